/* What passes between audio and video through the bottleneck tokens, layer by layer. */

const HEIGHT = 440; // px, of the columns
const [TOP, LEFT, RIGHT, NODE] = [26, 62, 34, 10]; // px: margins, and the width of a node
const { groups, layers, streams, label } = data;
const isStream = (group) => group < streams.length;
const [audio, ...others] = groups.keys(); // from above: the video, the bottleneck tokens, the audio
const order = [...others.filter(isStream), ...others.filter((group) => !isStream(group)), audio];
const hue = (group) => `var(--${isStream(group) ? streams[group] : "both"})`;
const sum = (some, value) => some.reduce((total, edge) => total + value(edge), 0);

// An edge: place of its layer, groups `from` and `to`, share of the attention, and the change of
// the logit when it is cut, null where it was not.
const edges = data.mass.flatMap((rows, layer) => rows.flatMap((row, from) =>
  row.map((share, to) => ({
    layer, from, to, share,
    stays: from === to && isStream(from),
    passes: isStream(from) !== isStream(to),
    change: data.effect?.[layer][from][to] == null ? null : -data.effect[layer][from][to],
  })))).filter((edge) => edge.share > 0);
const times = magnification();
const widest = Math.max(...edges.filter((edge) => !edge.stays).map((edge) => edge.share), 0) || 1;
const strongest = Math.max(...edges.map((edge) => Math.abs(edge.change ?? 0)), 0) || 1;

/** The factor that widens the bands of bottleneck tokens to nearly the width of the others. */
function magnification() {
  const stay = sum(edges.filter((edge) => edge.stays), (edge) => edge.share);
  const cross = sum(edges.filter((edge) => !edge.stays), (edge) => edge.share);
  const round = [1, 2, 5].flatMap((n) => [n, 10 * n, 100 * n]);
  return Math.max(1, ...round.filter((factor) => cross && factor * cross <= stay));
}

function drawn(edge) {
  return edge.share * (edge.stays ? 1 : times);
}

// ---- words ----

function way({ layer, from, to }) {
  const name = from === to ? `${groups[from]} stays` : `${groups[from]} \u2192 ${groups[to]}`;
  return `layer ${layers[layer]}, ${name}`;
}

function words(edge) {
  const cut = edge.change === null ? "" : `; cutting it ${cutting(edge.change)}`;
  return `${way(edge)}: ${percent(edge.share)} of the attention${cut}`;
}

function cutting(change) {
  const verb = change < 0 ? "lowers" : "raises";
  if (Math.abs(change) < 0.005) return `leaves the logit of \u201c${label}\u201d as it is`;
  return `${verb} the logit of \u201c${label}\u201d by ${number(Math.abs(change))}`;
}

/** The edges between streams and bottleneck tokens of the chosen layers, the highest first. */
function ranked(value) {
  const some = edges.filter((edge) => edge.passes && !isFaded(edge) && value(edge) > 0);
  return some.sort((a, b) => value(b) - value(a));
}

const byAttention = () => ranked((edge) => edge.share);
const byCause = () => ranked((edge) => Math.abs(edge.change ?? 0));

function describe() {
  const layer = board.state.layer;
  const where = layer ? `in layer ${layers[layer - 1]}` : "over all layers";
  const attention = byAttention(), cause = byCause();
  if (!attention.length) return say(`${where}, nothing passes through the bottleneck tokens`);
  const read = `${where}, most attention passes here: ${words(attention[0])}`;
  if (!cause.length) return say(read);
  const five = attention.slice(0, 5);
  const both = cause.slice(0, 5).filter((edge) => five.includes(edge)).length;
  say(`${read}. The cut that changes most: ${words(cause[0])}. Of the five strongest edges by ` +
    `attention, ${both || "none"} ${both === 1 ? "is" : "are"} among the five by cause`);
}

// ---- where things lie ----

/** The edges that come to a node from the left ("to") or leave it to the right ("from"). */
function touching(column, group, end) {
  const layer = end === "to" ? column - 1 : column;
  return edges.filter((edge) => edge.layer === layer && edge[end] === group);
}

/** The top of every node, its height and its middle, in pixels, by column and group. */
function layout() {
  const columns = [...Array(layers.length + 1).keys()];
  const size = (column, group) =>
    Math.max(...["to", "from"].map((end) => sum(touching(column, group, end), drawn)));
  const room = groups.map((_, group) => Math.max(...columns.map((k) => size(k, group))));
  const gap = Math.min(18, (0.4 * HEIGHT) / order.length);
  const unit = (HEIGHT - gap * (order.length - 1)) / room.reduce((a, b) => a + b);
  const nodes = columns.map(() => []);
  let top = TOP;
  for (const group of order) {
    const middle = top + (room[group] * unit) / 2;
    for (const column of columns) {
      const height = Math.max(size(column, group) * unit, 1);
      nodes[column][group] = { top: middle - height / 2, height, middle };
    }
    top += room[group] * unit + gap;
  }
  return { nodes, unit };
}

/** Where a band begins on its node, in pixels; bands lie there in the order of their other ends. */
function begins(edge, end, { nodes, unit }) {
  const column = edge.layer + (end === "to"), other = end === "to" ? "from" : "to";
  const node = nodes[column][edge[end]], all = touching(column, edge[end], end);
  const above = all.filter((one) => order.indexOf(one[other]) < order.indexOf(edge[other]));
  return node.middle - (sum(all, drawn) * unit) / 2 + sum(above, drawn) * unit;
}

// ---- the figure ----

function isFaded(edge) {
  return board.state.layer > 0 && edge.layer !== board.state.layer - 1;
}

function color(edge) {
  let [fill, opacity] = [hue(edge.from), 0.25 + 0.6 * Math.sqrt(edge.share / widest)];
  if (edge.stays) opacity = 0.3;
  if (board.state.color === 1) {
    const cut = edge.change !== null;
    fill = !cut ? "var(--soft)" : `var(--${edge.change > 0 ? "up" : "down"})`;
    opacity = cut ? 0.1 + 0.85 * Math.sqrt(Math.abs(edge.change) / strongest) : 0.15;
  }
  return { fill, "fill-opacity": (isFaded(edge) ? 0.1 * opacity : opacity).toFixed(3) };
}

function band(edge, places, x) {
  const height = Math.max(drawn(edge) * places.unit, 0.8);
  const [start, end] = ["from", "to"].map((side) => begins(edge, side, places));
  const [left, right] = [x(edge.layer) + NODE, x(edge.layer + 1)], half = (left + right) / 2;
  const d = `M${left} ${start}C${half} ${start} ${half} ${end} ${right} ${end}v${height}` +
    `C${half} ${end + height} ${half} ${start + height} ${left} ${start + height}Z`;
  return telling(draw("path", { d, ...color(edge) }), words(edge));
}

function node(column, group, place, x) {
  const when = column ? `after layer ${layers[column - 1]}` : `before layer ${layers[0]}`;
  const held = touching(column, group, column ? "to" : "from");
  const share = percent(sum(held, (edge) => edge.share));
  const { top, height } = place;
  const bar = draw("rect", { x, y: top, width: NODE, height, fill: hue(group) });
  bar.addEventListener("pointerenter", () =>
    tell(`${when}, ${groups[group]}: ${share} of the attention`));
  return bar;
}

function show() {
  const width = Math.max(holder.clientWidth, LEFT + RIGHT + 36 * layers.length);
  const x = (column) => LEFT + (column * (width - LEFT - RIGHT - NODE)) / layers.length;
  const room = (width - LEFT - RIGHT) / layers.length; // px from a column to the next
  const [before, after] = room > 110 ? ["before layer ", "after layer "] :
    room > 60 ? ["before ", "after "] : ["in ", "out "];
  const places = layout();
  const words = (x, y, anchor, text, kind = "") =>
    draw("text", { x, y, "text-anchor": anchor, class: kind }, text);
  const svg = draw("svg", { width, height: TOP + HEIGHT + 8, role: "group", "aria-label": "flow" });
  bands = new Map(edges.map((edge) => [edge, band(edge, places, x)]));
  svg.append(...[...edges].sort((a, b) => drawn(b) - drawn(a)).map((edge) => bands.get(edge)));
  places.nodes.forEach((column, k) => {
    const when = (k ? after : before) + layers[Math.max(k - 1, 0)];
    svg.append(words(x(k) + NODE / 2, 14, "middle", when, "soft"));
    svg.append(...order.map((group) => node(k, group, column[group], x(k))));
  });
  for (const group of order) {
    const name = groups[group].replace("bottleneck ", ""); // there is room for a short one
    svg.append(words(LEFT - 6, places.nodes[0][group].middle + 4, "end", name));
  }
  roving(edges.map((edge) => bands.get(edge)));
  holder.replaceChildren(svg);
  showKey();
  showLists();
  describe();
}

// ---- beside the figure ----

function showKey() {
  const colors = board.state.color === 1
    ? [["var(--down)", `cut, the logit of \u201c${label}\u201d falls`], ["var(--up)", "it rises"],
      ["var(--soft)", "not cut"]]
    : [...streams.map((_, group) => [hue(group), `from the ${groups[group]}`]),
      ["var(--both)", "from a bottleneck token"]];
  key.replaceChildren(...colors.map(([fill, words]) => {
    const entry = make("span", { class: "key" }, make("i"), words);
    entry.firstChild.style.background = fill;
    return entry;
  }));
}

/** Two lists of the same edges, ranked in two ways; what is in both has a strong border. */
function showLists() {
  const attention = byAttention(), cause = byCause();
  const listOf = (title, first, second, named) => {
    const items = first.slice(0, 5).map((edge) => item(edge, second.indexOf(edge) + 1, named));
    return make("section", {}, make("h2", {}, title), make("ol", {}, ...items));
  };
  const columns = [listOf("The strongest by attention", attention, cause, "cause")];
  if (cause.length) columns.push(listOf("The strongest by cause", cause, attention, "attention"));
  lists.replaceChildren(...columns);
}

function item(edge, place, named) {
  const rank = data.effect ? `number ${place} by ${named}` : "";
  const sign = edge.change > 0 ? "+" : "";
  const size = edge.change === null ? "" : `, cut: logit ${sign}${number(edge.change)}`;
  const button = make("button", { type: "button", class: place && place <= 5 ? "both" : "" },
    way(edge), make("small", {}, `${percent(edge.share)}${size}${rank && `; ${rank}`}`));
  for (const event of ["focus", "pointerenter", "click"]) {
    button.addEventListener(event, () => {
      bands.get(edge).classList.add("lit");
      tell(words(edge));
    });
  }
  for (const event of ["blur", "pointerleave"]) {
    button.addEventListener(event, () => bands.get(edge).classList.remove("lit"));
  }
  return make("li", {}, button);
}

let bands = new Map(); // from an edge to its path
const holder = make("div", { class: "scroll" });
const key = make("p", { class: "legend" });
const lists = make("div", { class: "lists" });
const note = make("p", { class: "note" }, "Width is the share of the attention; ",
  times === 1 ? "all bands are drawn to one scale." :
    `bands of bottleneck tokens are drawn ${times} times as wide as those that stay in a stream.`,
  data.effect ? " A strong border marks what is in both lists." : "");
const board = controls(data.choices, show);
view.append(key, holder, pointed, note, lists);
atEachWidth(holder, show);

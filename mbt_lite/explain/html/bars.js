/* Bars, one chart for each combination of choices. */

const ROW = 40; // px, of a bar with its label
const title = make("h2");
const holder = make("div", { class: "scroll" });
const note = make("p", { class: "note" });
let width = 0;

/** All values that the axis of a chart must hold. */
function valuesOf(chart) {
  const ends = chart.bars.flatMap((bar) => [bar.value, bar.low, bar.high]);
  return [0, ...ends].filter((value) => value !== null);
}

/** The ends of an axis, which are never the same. */
function range(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return [low, high > low ? high : low + 1];
}

/** The chart of the state; charts lie in the order in which the last choice turns fastest. */
function chart() {
  const place = data.choices.reduce(
    (index, choice) => index * choice.options.length + board.state[choice.name], 0);
  return data.charts[place];
}

function show() {
  const shown = chart();
  const alike = data.charts.filter((other) => other.axis === shown.axis);
  shown.range = range(alike.flatMap(valuesOf)); // one scale, so that states can be compared
  title.textContent = shown.title;
  holder.replaceChildren(bars(shown));
  note.textContent = shown.bars.some((bar) => bar.low !== null) ? "Whiskers are 95 % intervals." : "";
  say(shown.words);
}

/** From a value to pixels. */
function scale([low, high], from, to) {
  return (value) => from + ((value - low) / (high - low)) * (to - from);
}

function labelled(x, y, words, anchor = "start", kind = "soft") {
  return draw("text", { x, y, "text-anchor": anchor, class: kind }, words);
}

function line(x1, y1, x2, y2, kind = "axis") {
  return draw("line", { x1, y1, x2, y2, class: kind });
}

function bars(shown) {
  const bottom = shown.bars.length * ROW + 6;
  const across = scale(shown.range, 8, width - 8);
  const svg = draw("svg", { width, height: bottom + 44, role: "group", "aria-label": shown.title });
  for (const value of ticks(...shown.range, width < 500 ? 4 : 8)) {
    const zero = Math.abs(value) < 1e-12;
    svg.append(line(across(value), 4, across(value), bottom, zero ? "zero" : "axis"));
    svg.append(labelled(across(value), bottom + 16, number(value), "middle"));
  }
  svg.append(labelled(width / 2, bottom + 36, shown.axis, "middle"));
  const rows = shown.bars.map((bar, row) => barOf(bar, row * ROW, across, shown.axis));
  svg.append(...rows);
  roving(rows);
  return svg;
}

function barOf(bar, top, across, axis) {
  const between = bar.low !== null ? ` (${number(bar.low)} to ${number(bar.high)})` : "";
  const sentence = `${bar.label}: ${number(bar.value)}${between}, ${axis}`;
  const [from, to] = [across(0), across(bar.value)].sort((a, b) => a - b);
  const y = top + 22, size = { y, height: 13 };
  const group = draw("g", {},
    draw("rect", { x: 0, y: top + 3, width, height: ROW - 4, fill: "transparent" }),
    draw("rect", { x: from, width: Math.max(to - from, 1.5), rx: 2, ...size,
      fill: `var(--${bar.stream})` }),
    labelled(8, top + 17, bar.label, "start", ""),
    labelled(width - 8, top + 17, number(bar.value), "end", ""));
  if (between) {
    const [low, high, middle] = [across(bar.low), across(bar.high), y + 6.5];
    const path = `M${low} ${middle}H${high}M${low} ${middle - 4}v8M${high} ${middle - 4}v8`;
    group.append(draw("path", { d: path, stroke: "var(--ink)", "stroke-width": 1.5 }));
  }
  return telling(group, sentence);
}

const board = controls(data.choices, show);
view.append(title, holder, pointed, note);
atEachWidth(holder, (pixels) => {
  width = pixels;
  show();
});

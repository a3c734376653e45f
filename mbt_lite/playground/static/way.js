// The way of an answer: layers, bottleneck tokens, the bands between them; cut, silence, look inside.

import { $, ask, clip, color, did, image, latest, make, melImage, NAME, percent, problem, sized } from "./shared.js";
import { newScene, scene, sings } from "./singer.js";

const STREAMS = { spec: { name: "sound", y: 60 }, rgb: { name: "picture", y: 320 } };
const number = (x, digits = 2) => x.toFixed(digits).replace("-", "−");
let model = null, reply = null, whole = null, effects = null; // whole: the answer without cuts
let edits = new Set(), opened = { layer: 1, stream: "spec" }, asked = null; // asked: the label

const blockX = (layer) => 60 + 640 * layer / (model.config.depth - 1);
const tokenX = (layer) => (blockX(layer) + blockX(layer + 1)) / 2;
const tokenY = (z) => 190 + 38 * (z - (model.config.bottlenecks - 1) / 2);
const parse = (edge) => { const [way, layer, stream, z] = edge.split(" "); return { way, layer: +layer, stream, z: +z }; };

/** Builds the diagram once; `paint` then shows the numbers. */
function build() {
  const parts = [];
  for (const [s, { name, y }] of Object.entries(STREAMS)) {
    parts.push(make("path", { class: "trunk", d: `M0,${y}H730C800,${y} 830,${y} 830,${s === "spec" ? 150 : 230}` }));
    parts.push(make("text", { x: 18, y: s === "spec" ? y - 34 : y + 46 }, name));
    parts.push(make("text", { id: `out-${s}`, class: "faint", x: 898, y: s === "spec" ? y - 20 : y + 28, "text-anchor": "end" }));
  }
  for (const edge of Object.keys(reply.edges)) parts.push(band(edge));
  const first = model.prefixDepth - 1;
  for (let layer = first; layer < model.config.depth - 1; layer++) {
    const when = layer === first ? "as learned" : `after layer ${layer}`;
    parts.push(make("text", { class: "faint", x: tokenX(layer), y: 112, "text-anchor": "middle" }, when));
    for (let z = 0; z < model.config.bottlenecks; z++) parts.push(token(layer, z));
  }
  for (let layer = 0; layer < model.config.depth; layer++) for (const s of model.config.streams) parts.push(block(layer, s));
  parts.push(make("rect", { x: 762, y: 150, width: 136, height: 80, rx: 10 }));
  for (const [id, y, kind] of [["out-label", 178, ""], ["out", 206, "big"], ["out-mean", 246, "faint"]]) {
    parts.push(make("text", { id, class: kind, x: 830, y, "text-anchor": "middle" }));
  }
  $("diagram").replaceChildren(...parts);
  $("diagram").querySelector("[data-part]").setAttribute("tabindex", 0);
}

function part(name, act, ...children) {
  const tell = () => { $("pointed").textContent = words(name); };
  const choose = () => { focusOn(node); act(); tell(); };
  const node = make("g", {
    role: "button", "data-part": name, tabindex: -1, click: choose, pointerenter: tell, focus: tell,
    keydown: (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); }
    },
  }, ...children);
  return node;
}

function band(edge) {
  const { way, layer, stream, z } = parse(edge), { y } = STREAMS[stream], at = y < 190 ? y + 24 : y - 24;
  const reads = way === "read", aside = 10 + 22 * z / model.config.bottlenecks;
  const token = [tokenX(reads ? layer - 1 : layer), tokenY(z)];
  const gate = [blockX(layer) + (reads ? -aside : aside), at], [from, to] = reads ? [token, gate] : [gate, token];
  const middle = (from[0] + to[0]) / 2;
  const d = `M${from}C${middle},${from[1]} ${reads ? to[0] : middle},${(from[1] + to[1]) / 2} ${to}`;
  return part(edge, () => toggle(edge, "cut"), make("path", { class: "band", d }), make("path", { class: "hit", d }));
}

function token(layer, z) {
  const [cx, cy] = [tokenX(layer), tokenY(z)];
  return part(`zero ${layer} ${z}`, () => toggle(`zero ${layer} ${z}`, "silence"),
    make("circle", { cx, cy, r: 14 }), make("text", { x: cx, y: cy + 4.5, "text-anchor": "middle" }, z + 1));
}

function block(layer, stream) {
  const { y } = STREAMS[stream], x = blockX(layer);
  const node = part(`block ${layer} ${stream}`, () => openBlock(layer, stream),
    make("rect", { x: x - 42, y: y - 24, width: 84, height: 48, rx: 9 }),
    make("text", { x, y: y + 5, "text-anchor": "middle" }, `layer ${layer}`));
  node.classList.add(stream);
  return node;
}

function focusOn(node) {
  for (const each of $("diagram").querySelectorAll("[data-part]")) each.setAttribute("tabindex", each === node ? 0 : -1);
  node.focus();
}

/** Arrow keys go to the nearest part in that direction. */
function walk(event) {
  const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const here = event.target.closest?.("[data-part]");
  if (!direction || !here) return;
  event.preventDefault();
  const middle = (node) => { const b = node.getBBox(); return [b.x + b.width / 2, b.y + b.height / 2]; };
  const [x, y] = middle(here), places = [...$("diagram").querySelectorAll("[data-part]")].map((node) => {
    const [a, b] = middle(node), along = (a - x) * direction[0] + (b - y) * direction[1];
    const aside = Math.abs((a - x) * direction[1]) + Math.abs((b - y) * direction[0]);
    return [along > 2 ? along + 2 * aside : Infinity, node];
  }).sort((a, b) => a[0] - b[0]);
  if (places[0][0] < Infinity) focusOn(places[0][1]);
}

/** What a part is and does, with its number. */
function words(name) {
  const { way, layer, stream, z } = parse(name);
  if (way === "block") return `${STREAMS[stream].name}, layer ${layer}: press to look inside.`;
  if (way === "zero") {
    const token = `bottleneck token ${+stream + 1}, ${layer < model.prefixDepth ? "as learned" : `after layer ${layer}`}`;
    return edits.has(name) ? `${token}: silenced, set to zero. Press to let it speak again.` : `${token}: press to silence it.`;
  }
  if (edits.has(name)) return `The way ${direction(way, stream, z)} in layer ${layer} is cut. Press to restore it.`;
  const label = model.labels[asked], where = `Layer ${layer}, ${direction(way, stream, z)}`;
  if (effects && $("way-color").value === "cause") {
    const change = effects[name];
    return `${where}: cutting it ${change > 0 ? "lowers" : "raises"} the logit of “${label}” by ${number(Math.abs(change))}.`;
  }
  const token = `token ${z + 1}`, { name: modality } = STREAMS[stream];
  const [reader, source] = way === "read" ? [`the ${modality}`, token] : [token, `the ${modality}`];
  return `${where}: ${reader} takes ${number(100 * reply.edges[name], 1)} % of what it reads from ${source}.`;
}

function direction(way, stream, z) {
  return way === "read" ? `from token ${z + 1} to the ${STREAMS[stream].name}` : `from the ${STREAMS[stream].name} to token ${z + 1}`;
}

function toggle(name, what) {
  if (!edits.delete(name)) { edits.add(name); did(what); }
  refresh();
}

const refresh = latest(async () => {
  const details = { name: NAME, scene: scene(), edits: [...edits] };
  if (!whole) whole = await ask("ask", { ...details, edits: [] });
  reply = await ask("examine", details);
  chooseLabel();
  if (!$("diagram").children.length) build();
  if ($("way-color").value === "cause") ({ effects } = await ask("causes", { ...details, label: asked }));
  paint();
  await look();
});

function chooseLabel() {
  const shares = sings(whole.probabilities), top = 27 + shares.indexOf(Math.max(...shares));
  if ($("way-label").options.length) return;
  const order = [...model.labels.keys()].sort((a, b) => whole.probabilities[b] - whole.probabilities[a]);
  $("way-label").replaceChildren(...order.map((i) => make("option", { value: i }, `${model.labels[i]}?`)));
  $("way-label").value = asked = top;
}

function paint() {
  const byCause = $("way-color").value === "cause", values = byCause ? effects : reply.edges;
  const most = byCause ? Math.max(...Object.values(effects).map(Math.abs), 1e-6) : 1;
  for (const node of $("diagram").querySelectorAll("[data-part]")) {
    const name = node.dataset.part, { way, layer, stream } = parse(name), curve = node.querySelector(".band");
    node.setAttribute("aria-label", words(name));
    if (way === "zero" || curve) node.setAttribute("aria-pressed", edits.has(name));
    node.classList.toggle("silent", way === "zero" && edits.has(name));
    node.classList.toggle("open", way === "block" && opened.layer === layer && opened.stream === stream);
    if (!curve) continue;
    const share = Math.abs(values[name]) / most;
    curve.style.strokeWidth = `${1 + 13 * Math.sqrt(share)}px`;
    curve.style.stroke = color(byCause ? (values[name] > 0 ? "up" : "down") : stream);
    curve.classList.toggle("cut", edits.has(name));
  }
  const now = reply.probabilities[asked], label = model.labels[asked];
  const says = ({ probabilities, logits }) => `${percent(probabilities[asked])} (logit ${number(logits[asked])})`;
  $("out").textContent = percent(now);
  $("out-label").textContent = label;
  $("out-mean").textContent = "mean of the two logits";
  for (const s of model.config.streams) $(`out-${s}`).textContent = `${STREAMS[s].name} says ${percent(reply.streams[s][asked])}`;
  const counts = { cut: 0, silenced: 0 };
  for (const name of edits) counts[name.startsWith("zero") ? "silenced" : "cut"]++;
  const changes = [counts.cut && `${counts.cut} cut`, counts.silenced && `${counts.silenced} silenced`].filter(Boolean).join(" and ");
  $("way-verdict").textContent = changes
    ? `“${label}”: ${says(whole)} → ${says(reply)}, with ${changes}.` : `“${label}”: ${says(reply)}. Nothing is cut yet.`;
  $("way-undo").disabled = !edits.size;
  $("pointed").textContent = byCause
    ? `Green: the way speaks for “${label}”; pink: against it. The width grows with the root of what a cut changes. `
      + "Point at a part to read its number."
    : "Orange: sound; blue: picture. The width grows with the root of the share of attention. Point at a part to read its number.";
}

// ---- inside a layer ----

function openBlock(layer, stream) {
  opened = { layer, stream };
  did("layer");
  paint();
  look().catch((error) => problem(error.message));
}

const numberOfTokens = (stream) => model.grids[stream].reduce((a, b) => a * b) + 1;

async function look() {
  const { layer, stream } = opened, fused = model.fused.includes(layer), { name } = STREAMS[stream];
  const readers = ["cls", ...(fused ? [...Array(model.config.bottlenecks).keys()] : [])].map(String);
  const kept = readers.includes($("query").value) ? $("query").value : readers[fused ? 1 : 0];
  const named = (r) => (r === "cls" ? "the class token, which answers" : `bottleneck token ${+r + 1}`);
  $("query").replaceChildren(...readers.map((r) => make("option", { value: r }, named(r))));
  $("query").value = kept;
  const query = kept === "cls" ? kept : +kept, head = $("head").value === "" ? null : +$("head").value;
  const row = await ask("row", { name: NAME, layer, stream, head, query });
  if (opened.layer !== layer || opened.stream !== stream) return;
  const reader = $("query").selectedOptions[0].textContent;
  $("inside-heading").textContent = `Inside: ${name}, layer ${layer}`;
  const by = head === null ? "mean of all heads" : `head ${head + 1}`, caption = $("map-caption");
  caption.textContent = `What ${reader.split(",")[0]} reads of the ${name}, ${by}: brighter is more`;
  const patches = row.weights.slice(1, numberOfTokens(stream));
  drawMap(stream, patches);
  const best = patches.indexOf(Math.max(...patches));
  const most = `${tokenName(stream, best + 1)}, ${number(100 * patches[best], 1)} %`;
  $("map").setAttribute("aria-label", `${caption.textContent}. Most: ${most}.`);
  tabulate(stream, row);
}

/** Where a token of a stream lies, in words. */
function tokenName(stream, index) {
  if (index === 0) return "class token";
  const count = numberOfTokens(stream), grid = model.grids[stream];
  if (index >= count) return `bottleneck token ${index - count + 1}`;
  const at = index - 1, step = 2 / grid[0], time = Math.floor(at / (count - 1) * grid[0]);
  const when = `${number(time * step)}–${number((time + 1) * step)} s`;
  if (stream === "spec") return `sound ${when}, ${hertz(at % grid[1], grid[1])}`;
  const inside = at % (grid[1] * grid[2]);
  return `picture ${when}, row ${Math.floor(inside / grid[2]) + 1}, column ${inside % grid[2] + 1}`;
}

function hertz(band, bands) {
  const { low, high } = model.clip.front_end, mel = (hz) => 2595 * Math.log10(1 + hz / 700);
  const edge = (i) => Math.round(700 * (10 ** ((mel(low) + (mel(high) - mel(low)) * i / bands) / 2595) - 1));
  return `${edge(band)}–${edge(band + 1)} Hz`;
}

function tabulate(stream, { weights, scores }) {
  const order = [...weights.keys()].sort((a, b) => weights[b] - weights[a]), share = (x) => `${number(100 * x, 1)} %`;
  const cell = (text) => make("td", {}, text), score = (text, value) => cell(scores ? text(value) : "–");
  const rows = order.slice(0, 6).map((i) => make("tr", {}, cell(tokenName(stream, i)),
    score((x) => number(x), scores?.[i]), score((x) => number(Math.exp(x)), scores?.[i]), cell(share(weights[i]))));
  const sum = scores && scores.reduce((total, x) => total + Math.exp(x), 0);
  const all = make("tr", {}, make("td", {}, `all ${weights.length} tokens`), cell(""), score((x) => number(x), sum), cell("100.0 %"));
  $("numbers").replaceChildren(...rows, all);
}

/** Frames, or the spectrogram, darker where less is read. */
function drawMap(stream, shares) {
  const canvas = $("map"), grid = model.grids[stream], most = Math.max(...shares);
  canvas.style.height = stream === "rgb" ? `${canvas.clientWidth / grid[0]}px` : "15rem";
  const { context, width, height } = sized(canvas), { size, front_end: front } = model.clip;
  const shade = (value, ...place) => { context.fillStyle = `rgb(0 0 0 / ${0.82 * (1 - Math.sqrt(value / most))})`; context.fillRect(...place); };
  context.imageSmoothingEnabled = false;
  if (stream === "spec") {
    context.drawImage(melImage(reply.spec, front.mels), 0, 0, width, height);
    const [w, h] = [width / grid[0], height / grid[1]];
    shares.forEach((value, i) => shade(value, Math.floor(i / grid[1]) * w, height - (i % grid[1] + 1) * h, w, h));
    return;
  }
  const side = width / grid[0], step = model.clip.frames / grid[0];
  for (let t = 0; t < grid[0]; t++) {
    const start = t * step * size * size * 3;
    const picture = image(size, size, (x, y) => reply.rgb.subarray(start + (y * size + x) * 3, start + (y * size + x) * 3 + 3));
    context.drawImage(picture, t * side, 0, side - 3, height);
    for (let i = 0; i < grid[1] * grid[2]; i++) {
      const [w, h] = [(side - 3) / grid[2], height / grid[1]];
      shade(shares[t * grid[1] * grid[2] + i], t * side + i % grid[2] * w, Math.floor(i / grid[2]) * h, w, h);
    }
  }
}

$("diagram").addEventListener("keydown", walk);
$("way-label").addEventListener("change", () => { asked = +$("way-label").value; refresh(); });
$("way-color").addEventListener("change", () => { did(`color ${$("way-color").value}`); refresh(); });
$("way-undo").addEventListener("click", () => { edits.clear(); refresh(); });
for (const id of ["query", "head"]) $(id).addEventListener("change", () => { did("row"); look(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => reply && paint());

export const way = {
  async show() {
    if (!clip.scene) newScene();
    model ??= await ask("open", { name: NAME });
    if (!$("head").options.length) {
      const heads = Array.from({ length: model.config.heads }, (_, i) => make("option", { value: i }, i + 1));
      $("head").append(make("option", { value: "" }, "mean of all"), ...heads);
      $("head").value = 0;
    }
    whole = null;
    $("way-label").replaceChildren();
    refresh();
  },
};

/* What a model attends to in a clip: a frame and the audio, on one clock. */

const PALETTE = bytes(data.palette); // [256, 3]
const [first, last, frames] = [data.times[0], data.times.at(-1), data.times.length];
const audio = make("audio", { src: data.audio, preload: "auto" });
const button = make("button", { type: "button" }, "Play");
const board = controls(data.choices, (state, name) => {
  if (name === "frame") seek(data.times[state.frame]);
  else show();
});
const panels = {}; // per stream: where it is drawn, and the map of the state
let clock = data.times[board.state.frame]; // s, on the clock of the file

const time = () => data.choices.at(-1).options[board.state.frame]; // in words
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const sum = (values) => values.reduce((a, b) => a + b, 0);

// ---- the maps ----

/** The mean over the chosen heads and tokens of a stream's maps in the chosen layer. */
function mean(stream) {
  const [layers, heads, tokens, ...grid] = stream.shape;
  const { layer = layers - 1, head = 0, token = 0 } = board.state; // 0: all of them
  const size = grid.reduce((product, length) => product * length);
  const values = new Float32Array(size);
  const chosen = (state, count) => (state ? [state - 1] : [...Array(count).keys()]);
  const maps = chosen(head, heads).flatMap((h) =>
    chosen(token, tokens).map((q) => (layer * heads + h) * tokens + q));
  for (const map of maps) {
    const unit = stream.highest[map] / 255 / maps.length;
    for (let k = 0; k < size; k++) values[k] += stream.bytes[map * size + k] * unit;
  }
  return values;
}

/** The map [rows, columns] that lies over the frame. */
function overFrame() {
  const maps = data.rgb.shape[3], size = data.places.length;
  const map = Math.min(Math.floor(board.state.frame / Math.floor(frames / maps)), maps - 1);
  return panels.rgb.values.subarray(map * size, (map + 1) * size);
}

/** The map of the audio [mel, time], the highest pitch first, from [time, mel]. */
function pitchUp(values) {
  const [steps, mels] = data.spec.shape.slice(3);
  return values.map((_, k) => values[(k % steps) * mels + mels - 1 - Math.floor(k / steps)]);
}

// ---- drawing ----

/** A part of an image, and over it a map whose opacity follows the attention. */
function paint({ canvas, grid, highest }, map, image, top, height) {
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(image, 0, top, image.width, height, 0, 0, canvas.width, canvas.height);
  const small = new OffscreenCanvas(grid[1], grid[0]), colors = new ImageData(grid[1], grid[0]);
  map.forEach((value, k) => {
    const share = highest ? value / highest : 0;
    colors.data.set([...color(Math.min(255, Math.floor(256 * share))), 217 * share ** 0.7], 4 * k);
  });
  small.getContext("2d").putImageData(colors, 0, 0);
  context.imageSmoothingEnabled = true; // bilinear
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

function color(index) {
  return PALETTE.subarray(3 * index, 3 * index + 3);
}

function showFrame() {
  if (!data.rgb) return;
  const tall = data.size[0];
  paint(panels.rgb, overFrame(), panels.rgb.image, board.state.frame * tall, tall);
  panels.rgb.caption.textContent = `the frame at ${time()}`;
}

function showCursor() {
  if (!data.spec) return;
  const place = (clock - data.start) / data.seconds;
  panels.spec.cursor.hidden = place < 0 || place > 1;
  panels.spec.cursor.style.left = `${100 * place}%`;
}

/** Everything, after another layer, head or token was chosen. */
function show() {
  for (const [stream, panel] of Object.entries(panels)) {
    panel.values = mean(data[stream]);
    panel.highest = panel.values.reduce((a, b) => Math.max(a, b), 0);
    panel.most.textContent = number(panel.highest);
  }
  if (data.spec) {
    const { image, values } = panels.spec;
    paint(panels.spec, (panels.spec.values = pitchUp(values)), image, 0, image.height);
  }
  showFrame();
  showCursor();
  describe();
}

/** The alt text of this state, and the share of the video's map that lies over the frame. */
function describe() {
  const { layer = 0, head = 0, token = 0 } = board.state;
  const sentence = data.words[layer][head][token];
  if (!data.rgb) return say(`${sentence}; the cursor is at ${time()}`);
  const map = overFrame();
  const share = Math.round((100 * sum(map)) / (sum(panels.rgb.values) || 1));
  const even = Math.max(...map) - Math.min(...map) < 1e-9;
  const where = even ? "" : `, most ${data.places[map.indexOf(Math.max(...map))]}`;
  say(`${sentence}; ${share} % of ${data.part} lies around ${time()}${where}`);
}

// ---- the clock ----

const nearest = (seconds) => clamp(Math.round((seconds - first) / data.step), 0, frames - 1);

/** Sets the clock, and with it the frame and the cursor. */
function tick(seconds) {
  clock = seconds;
  board.set("frame", nearest(seconds));
  showFrame();
  showCursor();
}

/** Goes to the frame that is on show at a time, or to the time where there is only audio. */
function seek(seconds) {
  const moment = data.times[nearest(seconds)];
  tick(Math.abs(seconds - moment) <= data.step / 2 ? moment : seconds);
  describe();
  audio.currentTime = clamp(clock - data.start, 0, data.duration);
}

function play() {
  if (!audio.paused) return audio.pause();
  const from = clock - data.start;
  audio.currentTime = from >= data.duration - data.step ? 0 : Math.max(from, 0);
  audio.play();
  requestAnimationFrame(run);
}

function run() {
  tick(data.start + audio.currentTime);
  if (!audio.paused) return requestAnimationFrame(run);
  describe();
}

// ---- the page ----

/** A canvas with its legend; the pointer and the arrow keys tell `words(row, column)` of a cell. */
function panel(stream, name, [width, height], grid, words) {
  const canvas = make("canvas", { width, height, tabindex: 0, role: "img", "aria-label": name });
  const cell = make("div", { class: "cell", hidden: "" });
  const over = make("div", { class: "over" }, canvas, cell);
  const most = make("span");
  const legend = make("div", { class: "legend" }, `${data.unit} 0`, scale(), most);
  const caption = make("figcaption", {}, name);
  const body = make("div", { class: `panel ${stream}` });
  const figure = make("figure", {}, caption, body);
  const place = pointing(canvas, cell, grid, words);
  const image = new Image();
  data[stream].bytes = bytes(data[stream].maps);
  return { canvas, over, body, legend, caption, most, figure, place, grid, image };
}

/** A cell of a grid that follows the pointer and the arrow keys; returns where it is. */
function pointing(canvas, cell, [rows, columns], words) {
  const place = [rows >> 1, columns >> 1];
  function point(row, column) {
    [place[0], place[1]] = [clamp(row, 0, rows - 1), clamp(column, 0, columns - 1)];
    cell.hidden = false;
    cell.style.cssText = `left:${(100 * place[1]) / columns}%;top:${(100 * place[0]) / rows}%;` +
      `width:${100 / columns}%;height:${100 / rows}%`;
    tell(words(...place));
  }
  canvas.addEventListener("pointermove", (event) => {
    const down = event.offsetY / canvas.clientHeight, across = event.offsetX / canvas.clientWidth;
    point(Math.floor(down * rows), Math.floor(across * columns));
  });
  canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && point(...place));
  for (const event of ["pointerleave", "blur"]) {
    canvas.addEventListener(event, () => { cell.hidden = true; });
  }
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    point(place[0] + step[0], place[1] + step[1]);
  });
  return place;
}

/** The colors of a legend, from no attention to the most. */
function scale() {
  const canvas = make("canvas", { width: 256, height: 1, "aria-hidden": true });
  const image = new ImageData(256, 1);
  for (let k = 0; k < 256; k++) image.data.set([...color(k), 255], 4 * k);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function videoPanel() {
  const [tall, wide] = data.size, larger = Math.max(1, Math.round(448 / wide));
  const grid = data.rgb.shape.slice(4);
  const words = (row, column) => {
    const cell = row * grid[1] + column;
    return `video at ${time()}, ${data.places[cell]}: ${data.unit} ${number(overFrame()[cell])}`;
  };
  const parts = panel("rgb", "the frame", [wide * larger, tall * larger], grid, words);
  parts.body.append(make("span"), parts.over, parts.legend);
  return parts;
}

function audioPanel() {
  const [steps, mels] = data.spec.shape.slice(3);
  const words = (row, column) => {
    const value = number(panels.spec.values[row * steps + column]);
    const where = `${data.spans[column]}, near ${data.pitches[mels - 1 - row]}`;
    return `audio at ${where}: ${data.unit} ${value}`;
  };
  const name = "the audio: pitch in Hz upwards, time in seconds across";
  const parts = panel("spec", name, [800, 320], [mels, steps], words);
  const up = make("div", { class: "ticks up", "aria-hidden": true });
  for (const [hertz, part] of data.hertz) mark(up, hertz, "bottom", part);
  const across = make("div", { class: "ticks across", "aria-hidden": true });
  for (const seconds of ticks(data.start, data.start + data.seconds)) {
    mark(across, `${Number(seconds.toFixed(3))} s`, "left", (seconds - data.start) / data.seconds);
  }
  parts.cursor = make("div", { class: "cursor" });
  parts.over.append(parts.cursor);
  parts.body.append(up, parts.over, across, parts.legend);
  parts.canvas.addEventListener("click", (event) =>
    seek(data.start + (event.offsetX / parts.canvas.clientWidth) * data.seconds));
  parts.canvas.addEventListener("keydown", (event) => {
    if (event.key === "Enter") seek(data.start + ((parts.place[1] + 0.5) * data.seconds) / steps);
  });
  return parts;
}

function mark(axis, words, side, part) {
  axis.append(make("span", {}, words));
  axis.lastChild.style[side] = `${100 * part}%`;
}

/** A line over the audio while frames are on show. */
function spanOfFrames() {
  const from = Math.max(first - data.step / 2 - data.start, 0);
  const to = Math.min(last + data.step / 2 - data.start, data.seconds);
  const line = make("div", { class: "shown" });
  line.style.left = `${(100 * from) / data.seconds}%`;
  line.style.width = `${(100 * (to - from)) / data.seconds}%`;
  const key = make("span", { class: "key" }, make("i"), "while the frame is on show");
  key.firstChild.style.cssText = "background:var(--rgb);height:3px";
  panels.spec.over.append(line);
  panels.spec.legend.append(key);
}

async function begin() {
  if (data.rgb) panels.rgb = videoPanel();
  if (data.spec) panels.spec = audioPanel();
  if (data.rgb && data.spec) spanOfFrames();
  const figures = Object.values(panels).map((panel) => panel.figure);
  view.append(make("div", { class: `streams ${figures.length > 1 ? "two" : ""}` }, ...figures), pointed);
  button.addEventListener("click", play);
  for (const [event, word] of [["play", "Pause"], ["pause", "Play"]]) {
    audio.addEventListener(event, () => { button.textContent = word; });
  }
  document.getElementById("controls").append(button);
  if (data.rgb) panels.rgb.image.src = data.frames;
  if (data.spec) panels.spec.image.src = data.spectrogram;
  await Promise.all(Object.values(panels).map((panel) => panel.image.decode()));
  show();
}

begin();

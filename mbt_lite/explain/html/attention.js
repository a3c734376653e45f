/* What a model reads of a clip: a frame and the audio, on one clock. */

const PALETTE = bytes(data.palette); // [256, 3]
const image = new Image();
const frames = data.moments.length;
const audio = data.audio && make("audio", { src: data.audio, preload: "auto" });
const board = controls(data.choices, (state, name) => {
  if (name === "frame") seek(data.moments[state.frame]);
  else show();
});
let clock = data.moments[board.state.frame]; // s, on the clock of the file
const times = data.choices.find((choice) => choice.name === "frame").options; // in words
let reading = {}; // per stream the map of this state, and its highest value
const panels = {};

// ---- the maps ----

/** The mean over heads and bottleneck tokens of a stream's maps, and the highest value in it. */
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
  return { values, highest: values.reduce((a, b) => Math.max(a, b), 0) };
}

/** Which map lies over the frame. */
function mapOf(frame) {
  const maps = data.rgb.shape[3];
  return Math.min(Math.floor(frame / Math.floor(frames / maps)), maps - 1);
}

/** The part of the video's map that lies over the frame on show, [y, x]. */
function overFrame() {
  const size = data.places.length;
  const start = mapOf(board.state.frame) * size;
  return reading.rgb.values.subarray(start, start + size);
}

// ---- drawing ----

/** Colours of a map [rows, columns], stretched bilinearly; opacity follows the attention. */
function overlay(context, map, rows, columns, highest) {
  const { width, height } = context.canvas;
  const image = context.createImageData(width, height);
  const [down, across] = [places(height, rows), places(width, columns)];
  for (let y = 0, k = 0; y < height; y++) {
    const [top, bottom, v] = down[y];
    for (let x = 0; x < width; x++, k += 4) {
      const [left, right, u] = across[x];
      const above = map(top, left) * (1 - u) + map(top, right) * u;
      const below = map(bottom, left) * (1 - u) + map(bottom, right) * u;
      const share = highest ? (above * (1 - v) + below * v) / highest : 0;
      const colour = 3 * Math.min(255, Math.floor(256 * share));
      image.data.set(PALETTE.subarray(colour, colour + 3), k);
      image.data[k + 3] = 255 * 0.85 * share ** 0.7;
    }
  }
  return image;
}

/** For each of `length` pixels: the two cells it lies between, and how far it is to the second. */
function places(length, cells) {
  return Array.from({ length }, (_, pixel) => {
    const place = Math.min(Math.max(((pixel + 0.5) / length) * cells - 0.5, 0), cells - 1);
    return [Math.floor(place), Math.min(Math.floor(place) + 1, cells - 1), place % 1];
  });
}

function lay(context, image) {
  const layer = new OffscreenCanvas(image.width, image.height);
  layer.getContext("2d").putImageData(image, 0, 0);
  context.drawImage(layer, 0, 0);
}

function showFrame() {
  if (!data.rgb) return;
  const { context } = panels.rgb;
  const { width, height } = context.canvas;
  const [rows, columns] = data.rgb.shape.slice(4);
  const [tall, wide] = data.size;
  const map = overFrame();
  context.imageSmoothingEnabled = false;
  context.drawImage(image, 0, board.state.frame * tall, wide, tall, 0, 0, width, height);
  const cell = (y, x) => map[y * columns + x];
  lay(context, overlay(context, cell, rows, columns, reading.rgb.highest));
  panels.rgb.caption.textContent = `the frame at ${times[board.state.frame]}`;
}

function showSound() {
  if (!data.spec) return;
  const { context, image } = panels.spec;
  const [steps, mels] = data.spec.shape.slice(3);
  context.drawImage(image, 0, 0, context.canvas.width, context.canvas.height);
  const cell = (row, column) => reading.spec.values[column * mels + mels - 1 - row];
  lay(context, overlay(context, cell, mels, steps, reading.spec.highest));
}

function showCursor() {
  if (!data.spec) return;
  const place = (clock - data.start) / data.seconds;
  panels.spec.cursor.hidden = place < 0 || place > 1;
  panels.spec.cursor.style.left = `${100 * place}%`;
}

/** Everything, after another layer, head or bottleneck token was chosen. */
function show() {
  for (const stream of ["rgb", "spec"]) {
    if (!data[stream]) continue;
    reading[stream] = mean(data[stream]);
    panels[stream].most.textContent = number(reading[stream].highest);
  }
  showFrame();
  showSound();
  showCursor();
  describe();
}

/** The sentence of this state, and what of the frame lies around the frame. */
function describe() {
  const { layer = 0, head = 0, token = 0 } = board.state;
  const sentence = data.words[layer][head][token];
  if (!data.rgb) return say(`${sentence}; the cursor is at ${times[board.state.frame]}`);
  const map = overFrame();
  const all = reading.rgb.values.reduce((a, b) => a + b, 0) || 1;
  const share = Math.round((100 * map.reduce((a, b) => a + b, 0)) / all);
  const most = data.places[map.indexOf(Math.max(...map))];
  const where = Math.max(...map) - Math.min(...map) < 1e-9 ? "" : `, most ${most}`;
  const around = `lies around ${times[board.state.frame]}${where}`;
  say(`${sentence}; ${share} % of ${data.part} ${around}`);
}

// ---- the clock ----

function nearest(seconds) {
  const frame = Math.round((seconds - data.moments[0]) / data.step);
  return Math.min(Math.max(frame, 0), frames - 1);
}

/** Puts the clock to a time, and the frame and the cursor with it. */
function tick(seconds) {
  const before = board.state.frame;
  clock = seconds;
  board.set("frame", nearest(seconds));
  if (board.state.frame !== before) showFrame();
  showCursor();
}

/** Where a person wants to be: at the frame that is on show then, or where there is only audio. */
function seek(seconds) {
  const moment = data.moments[nearest(seconds)];
  tick(Math.abs(seconds - moment) <= data.step / 2 ? moment : seconds);
  showFrame();
  describe();
  if (audio) audio.currentTime = Math.min(Math.max(clock - data.start, 0), data.duration);
  else begun = performance.now() - 1000 * (clock - data.moments[0]);
}

const button = make("button", { type: "button" });
let playing = false;
let begun = 0; // ms, when a clip without audio would have begun

function play() {
  playing = !playing;
  button.textContent = playing ? "Pause" : audio ? "Play the audio" : "Play";
  if (!playing) {
    if (audio) audio.pause();
    return describe();
  }
  if (audio) {
    audio.currentTime = atEnd() ? 0 : Math.max(clock - data.start, 0);
    audio.play();
  } else {
    const from = board.state.frame === frames - 1 ? 0 : clock - data.moments[0];
    begun = performance.now() - 1000 * from;
  }
  requestAnimationFrame(run);
}

function atEnd() {
  return clock - data.start >= data.duration - data.step;
}

function run() {
  if (!playing) return;
  const silent = data.moments[0] + (performance.now() - begun) / 1000;
  tick(audio ? data.start + audio.currentTime : Math.min(silent, data.moments[frames - 1]));
  if (audio ? audio.ended : silent > data.moments[frames - 1]) play();
  else requestAnimationFrame(run);
}

// ---- the page ----

/** A canvas with its legend, whose grid pointer and arrow keys go through; `words(row, column)`. */
function panel(kind, name, [width, height], grid, words) {
  const canvas = make("canvas", { width, height, tabindex: 0, role: "img", "aria-label": name });
  const cell = make("div", { class: "cell", hidden: "" });
  const over = make("div", { class: "over" }, canvas, cell);
  const most = make("span");
  const legend = make("div", { class: "legend" }, `${data.unit} 0`, scale(), most);
  const caption = make("figcaption", {}, name);
  const body = make("div", { class: `panel ${kind}` });
  const figure = make("figure", {}, caption, body);
  const place = pointing(canvas, cell, grid, words);
  const context = canvas.getContext("2d");
  return { context, canvas, over, body, legend, caption, most, figure, place };
}

/** A cell of a grid that follows the pointer and the arrow keys; returns where it is. */
function pointing(canvas, cell, [rows, columns], words) {
  const place = [rows >> 1, columns >> 1];
  const inside = (index, count) => Math.min(Math.max(index, 0), count - 1);
  function point(row, column) {
    [place[0], place[1]] = [inside(row, rows), inside(column, columns)];
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

/** The colours of a legend, from no attention to the most. */
function scale() {
  const canvas = make("canvas", { width: 256, height: 1, "aria-hidden": true });
  const context = canvas.getContext("2d");
  const image = context.createImageData(256, 1);
  for (let k = 0; k < 256; k++) image.data.set([...PALETTE.subarray(3 * k, 3 * k + 3), 255], 4 * k);
  context.putImageData(image, 0, 0);
  return canvas;
}

function seen() {
  const [tall, wide] = data.size;
  const larger = Math.max(1, Math.round(448 / wide));
  const [rows, columns] = data.rgb.shape.slice(4);
  const words = (y, x) => {
    const value = number(overFrame()[y * columns + x]);
    const place = data.places[y * columns + x];
    return `video at ${times[board.state.frame]}, ${place}: ${data.unit} ${value}`;
  };
  const made = panel("seen", "the frame", [wide * larger, tall * larger], [rows, columns], words);
  made.body.append(make("span"), made.over, made.legend);
  return made;
}

function heard() {
  const [steps, mels] = data.spec.shape.slice(3);
  const length = data.seconds / steps;
  const words = (row, column) => {
    const mel = mels - 1 - row;
    const value = number(reading.spec.values[column * mels + mel]);
    return `audio at ${data.spans[column]}, near ${data.pitches[mel]}: ${data.unit} ${value}`;
  };
  const name = "the audio: pitch in Hz upwards, time in seconds across";
  const made = panel("heard", name, [800, 320], [mels, steps], words);
  const up = make("div", { class: "ticks up", "aria-hidden": true });
  for (const [hertz, part] of data.hertz) mark(up, hertz, "bottom", part);
  const across = make("div", { class: "ticks across", "aria-hidden": true });
  for (const time of ticks(data.start, data.start + data.seconds)) {
    mark(across, `${Number(time.toFixed(3))} s`, "left", (time - data.start) / data.seconds);
  }
  made.cursor = make("div", { class: "cursor" });
  made.over.append(made.cursor);
  made.image = new Image();
  made.body.append(up, made.over, across, made.legend);
  made.canvas.addEventListener("click", (event) =>
    seek(data.start + (event.offsetX / made.canvas.clientWidth) * data.seconds));
  made.canvas.addEventListener("keydown", (event) => {
    if (event.key === "Enter") seek(data.start + (made.place[1] + 0.5) * length);
  });
  return made;
}

function mark(axis, words, side, part) {
  axis.append(make("span", {}, words));
  axis.lastChild.style[side] = `${100 * part}%`;
}

/** A line over the audio while frames are on show. */
function spanOfFrames() {
  const from = Math.max(data.moments[0] - data.step / 2 - data.start, 0);
  const to = Math.min(data.moments[frames - 1] + data.step / 2 - data.start, data.seconds);
  const line = make("div", { class: "shown" });
  line.style.left = `${(100 * from) / data.seconds}%`;
  line.style.width = `${(100 * (to - from)) / data.seconds}%`;
  const key = make("span", { class: "key" }, make("i"), "while the frame is on show");
  key.firstChild.style.cssText = "background:var(--rgb);height:3px";
  panels.spec.over.append(line);
  panels.spec.legend.append(key);
}

async function begin() {
  if (data.rgb) panels.rgb = seen();
  if (data.spec) panels.spec = heard();
  if (data.rgb && data.spec) spanOfFrames();
  for (const stream of ["rgb", "spec"]) {
    if (data[stream]) data[stream].bytes = bytes(data[stream].maps);
  }
  const figures = Object.values(panels).map((made) => made.figure);
  const columns = figures.length > 1 ? "senses two" : "senses";
  view.append(make("div", { class: columns }, ...figures), told);
  button.textContent = audio ? "Play the audio" : "Play";
  button.addEventListener("click", play);
  document.getElementById("controls").append(button);
  const loads = [];
  if (data.rgb) loads.push([image, data.frames]);
  if (data.spec) loads.push([panels.spec.image, data.spectrogram]);
  await Promise.all(loads.map(([image, source]) => ((image.src = source), image.decode())));
  show();
}

begin();

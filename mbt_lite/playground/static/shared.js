// What all views share: questions to the worker, drawing, and the tabs that open them.

export const $ = (id) => document.getElementById(id);
export const NAME = "world-tiny"; // the model that knows the micro-world
export const clip = { scene: null, points: null }; // what the first three views are about
export const percent = (share) => (share > 0 && share < 0.005 ? "< 1 %" : `${Math.round(100 * share)} %`);
const views = {}; // by name: { show(), hide() }
let current = null;

/** An element with attributes and children; handlers are attributes that are functions. */
export function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "circle", "rect", "text", "line"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function problem(sentence) {
  $("problem").textContent = sentence;
  $("problem").hidden = !sentence;
}

// ---- the worker ----

const worker = new Worker("worker.js", { type: "module" }), waiting = new Map();
let questions = 0;
addEventListener("unhandledrejection", ({ reason }) => problem(reason.message));
worker.onerror = () => problem("The model could not be started: this browser is too old for the page.");
worker.onmessage = ({ data: { id, answer, error } }) => {
  const [resolve, reject] = waiting.get(id);
  waiting.delete(id);
  if (error) reject(Error(error));
  else resolve(answer);
};

/** Asks the worker one of its `QUESTIONS`. */
export function ask(question, details) {
  return new Promise((resolve, reject) => {
    waiting.set(++questions, [resolve, reject]);
    worker.postMessage({ id: questions, question, ...details });
  });
}

/** A function that does `work` now or, while it is busy, once more afterwards. */
export function latest(work) {
  let busy = false, again = false;
  return async function run() {
    if (busy) { again = true; return; }
    busy = true;
    do {
      again = false;
      try {
        await work();
      } catch (error) {
        problem(error.message);
      }
    } while (again);
    busy = false;
  };
}

/** Tells the guided tour that a person did something. */
export function did(what) {
  dispatchEvent(new CustomEvent("did", { detail: what }));
}

// ---- drawing ----

/** A canvas as large as it is shown: its context, width and height in CSS pixels. */
export function sized(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas, scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** An image of `get(x, y)`, [red, green, blue] in 0..255, to be drawn at any size. */
export function image(width, height, get) {
  const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  for (let y = 0, i = 0; y < height; y++) for (let x = 0; x < width; x++, i += 4) pixels.data.set([...get(x, y), 255], i);
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** Dark blue over purple to yellow, for 0 to 1. */
export function heat(value) {
  const stops = [[12, 8, 38], [74, 16, 108], [170, 48, 94], [240, 112, 48], [252, 240, 164]];
  const place = Math.min(Math.max(value, 0), 1) * (stops.length - 1), left = Math.min(Math.floor(place), 3);
  return stops[left].map((low, c) => low + (place - left) * (stops[left + 1][c] - low));
}

/** The image of a log-mel [N, M], high pitches above. */
export function melImage(spec, mels) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of spec) [low, high] = [Math.min(low, value), Math.max(high, value)];
  return image(spec.length / mels, mels, (x, y) => heat((spec[x * mels + mels - 1 - y] - low) / (high - low || 1)));
}

const OUTLINES = {
  circle: "M10 3a7 7 0 1 0 .01 0z", ring: "M10 2a8 8 0 1 0 .01 0zM10 6a4 4 0 1 1-.01 0z",
  cross: "M8 2h4v6h6v4h-6v6h-4v-6h-6v-4h6z", ladder: "M3 2h14v3h-14zM3 8.5h14v3h-14zM3 15h14v3h-14z",
};

/** An icon of a shape in a color; it needs no label where its name stands beside it. */
export function icon(shape, fill = "currentColor") {
  const path = make("path", {
    d: OUTLINES[shape], fill, "fill-rule": "evenodd",
    stroke: "currentColor", "stroke-opacity": 0.5, "stroke-width": 0.7,
  });
  return make("svg", { viewBox: "0 0 20 20", class: "icon", "aria-hidden": "true" }, path);
}

export const rgb = (values) => `rgb(${values.map((v) => Math.round(255 * v))})`;

// ---- tabs ----

/** Adds a view; `show` is called when it is opened, `hide` when it is left. */
export function addView(name, view) {
  views[name] = view;
}

export function open(name) {
  if (!views[name] || name === current) return;
  views[current]?.hide?.();
  current = name;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !chosen;
  }
  history.replaceState(null, "", `#${name}`);
  problem("");
  views[name].show();
  did(`open ${name}`);
}

// You are the singer: a pitch that a person bends, and the answer while it bends.

import { $, ask, clip, color, did, icon, latest, make, melImage, NAME, percent, rgb, sized } from "./shared.js";
import { hum, play, position, stop } from "./sound.js";
import { height, renderer, scene as drawScene, SECONDS, SHAPES } from "./world.js";

const POINTS = 33; // of the pitch curve
const SIZE = 160; // pixels of the picture
let draw = null, spectrum = null, chosen = 16, playing = false, drawn = 0, answers = [], visible = false;

/** The clip as it is now: the scene, and the pitch as it is bent. */
export const scene = () => ({
  ...clip.scene, tone: { ...clip.scene.tone, octaves: 0.5, contour: { points: clip.points } },
});

/** New shapes with another seed, the pitch following one of them. */
export function newScene(seed = Math.floor(Math.random() * 2 ** 31)) {
  clip.scene = drawScene(seed, true);
  draw = renderer(clip.scene, SIZE);
  const { things, singer } = clip.scene;
  $("follow").replaceChildren("Follow the ", ...things.map(({ shape, color: fill, contour }) => make("button", {
    click: () => { bend((_, u) => height(contour, u)); did(`follow ${shape}`); }, "aria-label": `Follow the ${shape}`,
  }, icon(shape, rgb(fill)))));
  bend((_, u) => height(things[singer].contour, u));
}

/** Sets each point of the curve to `value(old, u, i)`, and asks. */
function bend(value) {
  clip.points = Array.from({ length: POINTS }, (_, i) => Math.min(Math.max(value(clip.points?.[i] ?? 0, i / (POINTS - 1), i), -1), 1));
  describe();
  answer();
}

const hertz = (i) => Math.round(clip.scene.tone.middle * 2 ** (0.5 * clip.points[i]));

function describe() {
  $("pitch").setAttribute("aria-valuenow", clip.points[chosen].toFixed(2));
  $("pitch").setAttribute("aria-valuetext", `at ${(chosen / (POINTS - 1) * SECONDS).toFixed(2)} s, ${hertz(chosen)} hertz`);
}

/** A list of bars, one for each shape; `update(probabilities)` moves them. */
function shapeBars(list) {
  const rows = SHAPES.map((shape) => {
    const bar = make("b"), share = make("span"), mark = make("span");
    const row = make("li", {}, mark, make("span", {}, `${shape} sings`), share, make("i", { "aria-hidden": "true" }, bar));
    return { shape, row, bar, share, mark };
  });
  list.replaceChildren(...rows.map(({ row }) => row));
  return (shares) => rows.forEach(({ shape, row, bar, share, mark }, i) => {
    const thing = clip.scene.things.find((each) => each.shape === shape);
    mark.replaceChildren(icon(shape, thing ? rgb(thing.color) : "none"));
    row.classList.toggle("absent", !thing);
    row.classList.toggle("best", shares[i] > 0.5 && shares[i] === Math.max(...shares));
    bar.style.transform = `scaleX(${shares[i]})`;
    share.textContent = percent(shares[i]);
  });
}

/** The best of the shapes that may sing, in a sentence. */
function verdict(shares) {
  const best = Math.max(...shares), shape = SHAPES[shares.indexOf(best)];
  if (best < 0.2) return "It says: none of them sings.";
  return best < 0.5 ? `It is unsure: perhaps the ${shape} (${percent(best)}).` : `It says: the ${shape} sings (${percent(best)}).`;
}

export const sings = (probabilities) => [...probabilities.slice(27, 31)]; // as world.LABELS has them

let update = null, spoken = 0;
const answer = latest(async () => {
  const reply = await ask("ask", { name: NAME, scene: scene(), edits: [] });
  const shares = sings(reply.probabilities), words = verdict(shares);
  update ??= shapeBars($("singer-bars"));
  update(shares);
  clearTimeout(spoken); // a screen reader hears of the answer when the curve rests
  spoken = setTimeout(() => { if ($("verdict").textContent !== words) $("verdict").textContent = words; }, 250);
  spectrum = melImage(reply.spec, 128);
  if (playing) play(reply.wave);
  if (document.body.dataset.answers) answers = [...answers.slice(-19), reply.ms]; // the first one prepares noise
  const typical = [...answers].sort((a, b) => a - b)[answers.length >> 1];
  if (answers.length) {
    $("speed").textContent = `An answer takes ${Math.round(typical)} ms here. Only what follows from the sound is computed again; `
      + "the picture’s own layers are kept.";
  }
  document.body.dataset.answers = Number(document.body.dataset.answers ?? 0) + 1;
  did(`answer ${shares.indexOf(Math.max(...shares))} ${Math.max(...shares) > 0.5}`);
  frame();
});

// ---- drawing ----

/** Draws at the clip's time, 30 times a second while the view is open. */
function loop() {
  if (!visible) return;
  requestAnimationFrame(loop);
  if (performance.now() - drawn > 30 && position() !== null) frame();
}

function frame() {
  if (!visible) return;
  const at = position() ?? SECONDS / 2;
  drawn = performance.now();
  drawScreen(at);
  drawPitch(at);
  drawSpectrum(at);
}

function drawScreen(time) {
  const canvas = $("screen"), image = draw(time);
  if (canvas.width !== SIZE) canvas.width = canvas.height = SIZE;
  const context = canvas.getContext("2d"), pixels = context.createImageData(SIZE, SIZE);
  for (let i = 0, j = 0; i < image.length; i += 3, j += 4) {
    for (let c = 0; c < 3; c++) pixels.data[j + c] = 255 * image[i + c];
    pixels.data[j + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
}

function line(context, count, place, style, width, dash = []) {
  context.beginPath();
  for (let i = 0; i < count; i++) context.lineTo(...place(i));
  Object.assign(context, { strokeStyle: style, lineWidth: width, lineJoin: "round", lineCap: "round" });
  context.setLineDash(dash);
  context.stroke();
  context.setLineDash([]);
}

function drawPitch(time) {
  const { context, width, height: tall } = sized($("pitch"));
  const x = (u) => u * width, y = (value) => tall * (0.5 - 0.42 * value);
  context.font = "12px system-ui, sans-serif";
  for (const value of [-1, 0, 1]) {
    line(context, 2, (i) => [i * width, y(value)], "#3a3e46", 1);
    context.fillStyle = "#a9adb5";
    context.fillText(`${Math.round(clip.scene.tone.middle * 2 ** (0.5 * value))} Hz`, 6, y(value) - 4);
  }
  if ($("paths").checked) {
    for (const thing of clip.scene.things) {
      line(context, 60, (i) => [x(i / 59), y(height(thing.contour, i / 59))], rgb(thing.color), 2, [2, 7]);
    }
  }
  line(context, POINTS, (i) => [x(i / (POINTS - 1)), y(clip.points[i])], "#fff", 4);
  if (document.activeElement === $("pitch")) {
    context.fillStyle = color("spec");
    context.beginPath();
    context.arc(x(chosen / (POINTS - 1)), y(clip.points[chosen]), 8, 0, 7);
    context.fill();
  }
  cursor(context, x(time / SECONDS), tall);
}

function cursor(context, x, tall) {
  context.fillStyle = "#ffffffb0";
  context.fillRect(x - 1, 0, 2, tall);
}

function drawSpectrum(time) {
  const { context, width, height: tall } = sized($("spectrogram"));
  if (!spectrum) return;
  context.imageSmoothingEnabled = false;
  context.drawImage(spectrum, 0, 0, width, tall);
  const at = width * time / SECONDS;
  context.fillStyle = "#0009"; // it grows with time
  if (position() !== null) context.fillRect(at, 0, width - at, tall);
  cursor(context, at, tall);
}

// ---- a person bends ----

let last = null; // where the pointer was
function drag(event) {
  const box = $("pitch").getBoundingClientRect();
  const place = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1) * (POINTS - 1);
  const value = (0.5 - (event.clientY - box.top) / box.height) / 0.42;
  const from = last ?? [place, value], [low, high] = [Math.min(from[0], place), Math.max(from[0], place)];
  bend((old, _, i) => {
    const inside = Math.min(Math.max(i, low), high), apart = Math.abs(i - inside);
    const share = high > low ? (inside - from[0]) / (place - from[0]) : 1;
    const pulled = from[1] + share * (value - from[1]), weight = Math.exp(-((apart / 1.8) ** 2));
    return old + weight * (pulled - old);
  });
  chosen = Math.round(place);
  last = [place, value];
}

function listen() {
  const pitch = $("pitch");
  pitch.addEventListener("pointerdown", (event) => { pitch.setPointerCapture(event.pointerId); last = null; drag(event); });
  pitch.addEventListener("pointermove", (event) => { if (pitch.hasPointerCapture(event.pointerId)) drag(event); });
  pitch.addEventListener("pointerup", () => { last = null; did("bend"); });
  for (const name of ["focus", "blur"]) pitch.addEventListener(name, () => frame());
  pitch.addEventListener("keydown", (event) => {
    const along = { ArrowLeft: -1, ArrowRight: 1, Home: -POINTS, End: POINTS }[event.key];
    const up = { ArrowUp: 0.2, ArrowDown: -0.2, PageUp: 0.6, PageDown: -0.6 }[event.key];
    if (!along && !up) return;
    event.preventDefault();
    chosen = Math.min(Math.max(chosen + (along ?? 0), 0), POINTS - 1);
    if (up) { bend((old, _, i) => old + up * Math.exp(-(((i - chosen) / 4) ** 2))); did("bend"); }
    describe();
    frame();
  });
  $("flat").addEventListener("click", () => { bend(() => 0); did("flat"); });
  $("scene").addEventListener("click", () => newScene());
  $("paths").addEventListener("change", () => frame());
  $("play").addEventListener("click", () => sound(!playing));
  $("hum").addEventListener("click", async () => {
    $("hum").disabled = true;
    sound(false);
    try {
      $("verdict").textContent = "Listening for two seconds: hum now …";
      const heard = await hum(POINTS);
      if (heard) bend((_, __, i) => heard[i]);
      $("verdict").textContent = heard ? "This is how you hummed." : "No hum was heard; come closer and try again.";
    } catch (error) {
      $("verdict").textContent = `The microphone could not be used (${error.message}).`;
    }
    $("hum").disabled = false;
  });
  addEventListener("resize", () => frame());
}

function sound(on) {
  playing = on;
  $("play").setAttribute("aria-pressed", on);
  $("play").textContent = on ? "■ Stop the sound" : "▶ Play the sound";
  if (on) { answer(); did("play"); }
  else stop();
}

listen();
newScene(7);

export const singer = {
  show() { visible = true; loop(); answer(); },
  hide() { visible = false; sound(false); },
};

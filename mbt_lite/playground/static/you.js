// You: camera and microphone, answered live. What they give stays in this page.

import { $, ask, did, latest, make, melImage, percent, sized } from "./shared.js";
import { microphone, PLAIN } from "./sound.js";

const KINDS = { both: "Sound and picture", audio: "Sound only", video: "Picture only" };
let name = null, model = null, stream = null, ear = null, timer = null, ring = null, every = 1, hidden = { rgb: false, spec: false };

async function open() {
  ({ live: name } = await (await fetch("models.json")).json());
  model = await ask("open", { name });
  const world = name === "world-tiny", { labels } = model;
  $("you-about").textContent = world
    ? `The network here, ${name}, knows only the micro-world: four shapes that rise and fall, tones, bells, sirens, rain. `
      + "Of you and your room it knows nothing, and it should say so below. Try it all the same: whistle a rising tone, "
      + "or move a round lid up and down."
    : `The network here, ${name}, knows ${labels.length} sounds and things, listed below. What is not among them it cannot name.`;
  $("you-labels").textContent = labels.join(", ");
  $("live-answers").replaceChildren(make("div", { class: "three" }, ...Object.entries(KINDS).map(([kind, words]) =>
    make("div", {}, make("h2", {}, words), make("ol", { class: "bars", id: `live-${kind}` })))));
}

async function start() {
  stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } }, audio: PLAIN });
  const { clip } = model, front = clip.front_end, size = clip.size ** 2 * 3;
  ear = await microphone(stream, clip.spec_frames * front.hop);
  $("camera").srcObject = stream;
  await $("camera").play();
  every = Math.max(Math.round(4 * clip.stride / clip.fps), 1);
  ring = Array(clip.frames * every).fill(new Uint8Array(size));
  timer = setInterval(() => {
    ring = [...ring.slice(1), snapshot()];
    answer();
  }, 1000 * clip.stride / clip.fps / every);
  did("live");
}

function stop() {
  clearInterval(timer);
  stream?.getTracks().forEach((track) => track.stop());
  ear?.close();
  [stream, ear, ring] = [null, null, null];
  $("camera").srcObject = null;
}

/** The middle of the camera's picture as the model gets it: bytes [size, size, 3]. */
function snapshot() {
  const { size, resize } = model.clip, video = $("camera"), short = Math.min(video.videoWidth, video.videoHeight);
  const cut = short * size / resize, context = new OffscreenCanvas(size, size).getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(video, (video.videoWidth - cut) / 2, (video.videoHeight - cut) / 2, cut, cut, 0, 0, size, size);
  return context.getImageData(0, 0, size, size).data.filter((_, i) => i % 4 < 3);
}

/** The frames of the model: every so many of the last snapshots, the newest last. */
function frames() {
  const chosen = ring.filter((_, i) => (ring.length - 1 - i) % every === 0), { length } = chosen[0];
  const rgb = new Uint8Array(chosen.length * length);
  chosen.forEach((frame, i) => rgb.set(frame, i * length));
  return rgb;
}

const answer = latest(async () => {
  if (!ring) return;
  const reply = await ask("live", { name, rgb: hidden.rgb ? null : frames(), wave: hidden.spec ? null : ear.read() });
  if (!ring) return;
  for (const kind of Object.keys(KINDS)) fill($(`live-${kind}`), reply[kind]);
  const { context, width, height } = sized($("heard"));
  if (reply.spec) context.drawImage(melImage(reply.spec, model.clip.front_end.mels), 0, 0, width, height);
  const words = reply.unfamiliar ? "This is unlike anything the network was trained on: its answer says little, however sure."
    : `It answers about the last ${model.clip.spec_frames * model.clip.front_end.hop} s, several times a second.`;
  if ($("live-verdict").textContent !== words) $("live-verdict").textContent = words;
  document.body.dataset.live = Number(document.body.dataset.live ?? 0) + 1;
});

/** The five most probable labels; null: the stream is covered or muted. */
function fill(list, probabilities) {
  if (!probabilities) { list.replaceChildren(make("li", {}, "", "switched off")); return; }
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]).slice(0, 5);
  list.replaceChildren(...order.map((i) => {
    const bar = make("b");
    bar.style.transform = `scaleX(${probabilities[i]})`;
    return make("li", {}, make("span"), make("span", {}, model.labels[i]), make("span", {}, percent(probabilities[i])), make("i", {}, bar));
  }));
}

function shown(on) {
  $("live").textContent = on ? "Stop camera and microphone" : "Start camera and microphone";
  for (const id of ["cover", "mute"]) $(id).disabled = !on;
}

$("live").addEventListener("click", async () => {
  if (stream) { stop(); shown(false); return; }
  $("live").disabled = true;
  try {
    await start();
    if ($("you").hidden) stop(); // the view was left meanwhile
    shown(Boolean(stream));
  } catch (error) {
    stop();
    $("live-verdict").textContent = `Camera and microphone could not be used (${error.message}). Allow both for this page, and press again.`;
  }
  $("live").disabled = false;
});
for (const [id, s, what] of [["cover", "rgb", "cover"], ["mute", "spec", "mute"]]) {
  $(id).addEventListener("click", () => {
    hidden[s] = !hidden[s];
    $(id).setAttribute("aria-pressed", hidden[s]);
    did(what);
  });
}

export const you = { show: () => model ?? open(), hide() { stop(); shown(false); } };

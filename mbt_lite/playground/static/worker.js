// Answers the page's questions with the models, off the page's thread.

import { blank, logMel, normalizeFrames, normalizeMel } from "./frontend.js";
import { attentionRow, Edits, MBT } from "./mbt.js";
import { frames, names, scene as drawScene, waveform } from "./world.js";

const models = new Map(); // by name, as promises
const prefixes = new Map(); // "model stream": what it was computed from, and the tokens
const spectrograms = new Map(); // by model: what the log-mel was computed from, and it
let trace = []; // what each attention of the last examined answer computed

async function fetchModel(name) {
  const response = await fetch(`models/${name}.safetensors`);
  if (!response.ok) throw Error(`The model ${name} is not here (${response.status}).`);
  return new MBT(await response.arrayBuffer());
}

function modelOf(name) {
  if (!models.has(name)) models.set(name, fetchModel(name));
  return models.get(name);
}

/** The value that `make` gives for `key`, kept until another key is asked for. */
function kept(cache, place, key, make) {
  const entry = cache.get(place);
  if (entry?.key !== key) cache.set(place, { key, value: make() });
  return cache.get(place).value;
}

const waves = new Map();
const heardKey = ({ tone, events, both, beat, audioSeed }) => JSON.stringify([tone, events, both, beat, audioSeed]);
const seenKey = ({ things, both, beat, videoSeed }) => JSON.stringify([things, both, beat, videoSeed]);
const waveOf = (scene) => kept(waves, "scene", heardKey(scene), () => waveform(scene));

function melOf(name, model, scene) {
  const front = model.clip.front_end;
  return kept(spectrograms, name, heardKey(scene), () =>
    logMel(waveOf(scene), front).slice(0, model.clip.spec_frames * front.mels));
}

/** The tokens of each stream before fusion; of a stream that is as it was, they are not computed again. */
function prefixesOf(name, model, scene, recorded = null) {
  const front = model.clip.front_end, tokens = {};
  const make = {
    rgb: () => model.prefix("rgb", normalizeFrames(frames(scene, model.clip)), recorded),
    spec: () => model.prefix("spec", normalizeMel(melOf(name, model, scene), front), recorded),
  };
  const keys = { rgb: seenKey(scene), spec: heardKey(scene) };
  for (const s of model.config.streams) {
    tokens[s] = recorded ? make[s]() : kept(prefixes, `${name} ${s}`, keys[s], make[s]);
  }
  return tokens;
}

const answered = (model, output) => ({
  logits: output.logits, probabilities: model.probabilities(output.logits),
  streams: Object.fromEntries(Object.entries(output.streamLogits).map(([s, x]) => [s, model.probabilities(x)])),
});

const QUESTIONS = {
  /** What there is to know about a model. */
  async open({ name }) {
    const model = await modelOf(name), { config, clip, labels, fused, prefixDepth, scores } = model;
    const grids = Object.fromEntries(config.streams.map((s) => [s, model.grid(s)]));
    return { config, clip, labels, fused, prefixDepth, scores, grids };
  },

  /** The answer to a scene, with what was heard. */
  async ask({ name, scene, edits }) {
    const model = await modelOf(name), tokens = prefixesOf(name, model, scene);
    const answer = answered(model, model.answer(tokens, new Edits(edits)));
    return { ...answer, wave: waveOf(scene), spec: melOf(name, model, scene) };
  },

  /** The answer, and the share of attention that goes along each edge of the bottleneck. */
  async examine({ name, scene, edits }) {
    const model = await modelOf(name);
    trace = [];
    const tokens = prefixesOf(name, model, scene, trace);
    const answer = answered(model, model.answer(tokens, new Edits(edits), trace));
    const rgb = frames(scene, model.clip);
    return { ...answer, edges: edgesOf(model), rgb, spec: melOf(name, model, scene) };
  },

  /** By how much each edge changes a label's logit: with it, minus without. */
  async causes({ name, scene, edits, label }) {
    const model = await modelOf(name), tokens = prefixesOf(name, model, scene), effects = {};
    const logit = (names) => model.answer(tokens, new Edits(names)).logits[label];
    const all = logit(edits);
    for (const edge of edgeNames(model)) effects[edge] = all - logit([...edits, edge]);
    return { effects };
  },

  /** One row of attention of the answer examined last: scores and weights, or their mean over heads. */
  async row({ name, layer, stream, head, query }) {
    const { config } = await modelOf(name);
    const block = trace.find((b) => b.layer === layer && b.stream === stream);
    const at = query === "cls" ? 0 : block.length - block.bottlenecks + query;
    const rows = [...Array(config.heads).keys()].map((h) => attentionRow(block, config.heads, h, at));
    const mean = rows[0].weights.map((_, i) => rows.reduce((sum, r) => sum + r.weights[i], 0) / rows.length);
    return head === null ? { weights: mean, scores: null } : rows[head];
  },

  /** How many of `count` new scenes with a singer a model finds the singer of. */
  async trial({ name, seed, count }) {
    const model = await modelOf(name), first = model.labels.indexOf("circle sings");
    let right = 0;
    for (let i = 0; i < count; i++) {
      const scene = drawScene(seed + i, true);
      const logits = model.answer(prefixesOf(name, model, scene)).logits.slice(first, first + 4);
      right += model.labels[first + logits.indexOf(Math.max(...logits))] === names(scene).at(-1);
    }
    return { right, count };
  },

  /** Answers to what camera and microphone give: to both, to each alone. A stream of null is blank. */
  async live({ name, rgb, wave }) {
    const model = await modelOf(name), { config, clip: { front_end: front, spec_frames } } = model;
    const empty = (s) => kept(prefixes, `${name} ${s} blank`, "", () => model.prefix(s, blank(s, config, front)));
    const spec = wave && logMel(wave, front).slice(0, spec_frames * front.mels);
    const tokens = {
      rgb: rgb ? model.prefix("rgb", normalizeFrames(rgb)) : empty("rgb"),
      spec: spec ? model.prefix("spec", normalizeMel(spec, front)) : empty("spec"),
    };
    const output = model.answer(tokens);
    const alone = (s) => answered(model, model.answer({ rgb: empty("rgb"), spec: empty("spec"), [s]: tokens[s] }));
    return {
      both: answered(model, output).probabilities, audio: wave && alone("spec").probabilities,
      video: rgb && alone("rgb").probabilities, unfamiliar: model.isUnfamiliar(output.features), spec,
    };
  },
};

/** The edges whose cut can change an answer: the last layer's bottleneck tokens are not read. */
function edgeNames(model) {
  const { streams, bottlenecks } = model.config, all = [];
  for (const layer of model.fused) for (const s of streams) for (let z = 0; z < bottlenecks; z++) {
    all.push(`read ${layer} ${s} ${z}`);
    if (layer !== model.fused.at(-1)) all.push(`write ${layer} ${s} ${z}`);
  }
  return all;
}

/** The attention on each edge, averaged over heads: what a token gets of a stream, and a stream of a token. */
function edgesOf(model) {
  const shares = {}, { heads } = model.config;
  for (const edge of edgeNames(model)) {
    const [way, layer, stream, z] = edge.split(" ");
    const { weights, length, bottlenecks } = trace.find((b) => b.layer === +layer && b.stream === stream);
    const tokens = length - bottlenecks, [from, to] = way === "read" ? [0, tokens] : [tokens + +z, tokens + +z + 1];
    let sum = 0;
    for (let h = 0; h < heads; h++) for (let q = from; q < to; q++) {
      const row = (h * length + q) * length;
      if (way === "read") sum += weights[row + tokens + +z];
      else for (let j = 0; j < tokens; j++) sum += weights[row + j];
    }
    shares[edge] = sum / heads / (to - from);
  }
  return shares;
}

onmessage = async ({ data: { id, question, ...details } }) => {
  try {
    await modelOf(details.name);
    const start = performance.now(), answer = await QUESTIONS[question](details);
    postMessage({ id, answer: { ...answer, ms: performance.now() - start } });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
};

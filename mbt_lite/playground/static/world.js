// The micro-world of mbt_lite/data/world.py: moving shapes and sounds, drawn and synthesized.
//
// The same distributions from another random generator: scene number 7 is not Python's scene 7.

import { fourier } from "./frontend.js";

export const SECONDS = 2, RATE = 16000, SAMPLES = SECONDS * RATE;
export const SHAPES = ["circle", "ring", "cross", "ladder"], MOTIONS = ["rises", "falls", "arcs", "dips"];
const EVENTS = ["bell", "hiss", "knocking", "chirping"], BOTH = ["siren", "thunder", "rain"];
const TURN = 2 * Math.PI;

/** A random generator of 32 bits (mulberry32), with what a scene needs of it. */
class Random {
  constructor(seed) {
    this.state = seed | 0;
    for (let i = 0; i < 4; i++) this.next(); // neighboring seeds begin alike
  }

  next() {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  uniform(low, high) {
    return low + (high - low) * this.next();
  }

  integer(low, high) { // below `high`
    return Math.floor(this.uniform(low, high));
  }

  pick(items) {
    return items[this.integer(0, items.length)];
  }

  normal() {
    return Math.sqrt(-2 * Math.log(1 - this.next())) * Math.cos(TURN * this.next());
  }

  shuffled(items) {
    const list = [...items];
    for (let i = list.length - 1; i > 0; i--) {
      const j = this.integer(0, i + 1);
      [list[i], list[j]] = [list[j], list[i]];
    }
    return list;
  }
}

/** Height of a contour, -1 to 1, at time u, 0 to 1: a motion and its bend, or drawn `points`. */
export function height(contour, u) {
  u = Math.min(Math.max(u, 0), 1);
  if (contour.points) {
    const place = u * (contour.points.length - 1), left = Math.floor(place);
    const right = Math.min(left + 1, contour.points.length - 1);
    return contour.points[left] + (place - left) * (contour.points[right] - contour.points[left]);
  }
  const v = u ** contour.bend;
  const up = "rises falls".includes(contour.motion) ? 2 * v - 1 : 2 * Math.sin(Math.PI * v) - 1;
  return "rises arcs".includes(contour.motion) ? up : -up;
}

/** Center of a shape at a time in s; y points down, as in images. */
function center(thing, time) {
  const u = time / SECONDS;
  const x = thing.x + thing.sway * Math.sin(TURN * (u + thing.tilt));
  return [x, 1 - (thing.height + thing.swing * height(thing.contour, u))];
}

/** Draws a scene; its labels are `names`. */
export function scene(seed, plain = false) {
  const random = new Random(seed), bend = () => 2 ** random.uniform(-0.6, 0.6);
  const count = random.next() < 0.7 ? 2 : 3;
  const shapes = random.shuffled(SHAPES), motions = random.shuffled(MOTIONS);
  const lanes = random.shuffled([...Array(count).keys()]);
  const things = lanes.map((lane, i) => ({
    shape: shapes[i],
    contour: { motion: motions[i], bend: bend() },
    color: random.shuffled([1, random.uniform(0.45, 1), random.uniform(0.45, 1)]),
    radius: random.uniform(0.115, 0.155),
    x: (lane + 0.5) / count + random.uniform(-0.25, 0.25) * (1 / count - 0.3),
    sway: random.uniform(-0.03, 0.03),
    height: random.uniform(0.46, 0.54),
    swing: random.uniform(0.2, 0.3),
    tilt: random.uniform(-0.15, 0.15),
  }));
  const fate = plain ? 0 : random.next(); // 80 %: a shape sings; 10 %: a tone that fits none
  const singer = fate < 0.8 ? random.integer(0, count) : null;
  const contour = singer === null
    ? { motion: random.pick(motions.slice(count)), bend: bend() } : things[singer].contour;
  const overtones = [1, ...Array.from({ length: random.integer(1, 4) }, () => random.uniform(0.1, 0.6))];
  const tone = {
    contour, overtones, middle: 400 * 2 ** random.next(), octaves: random.uniform(0.35, 0.6),
    level: random.uniform(0.12, 0.3),
  };
  const some = (items) => items.filter(() => random.next() < 0.2 && !plain);
  return {
    seed, things, singer, tone: fate < 0.9 ? tone : null, events: some(EVENTS), both: some(BOTH),
    beat: random.next(), videoSeed: random.integer(0, 2 ** 31), audioSeed: random.integer(0, 2 ** 31),
  };
}

/** The true labels of a scene. */
export function names({ things, tone, events, both, singer }) {
  return [
    ...things.map(({ shape, contour }) => `${shape} ${contour.motion}`),
    ...(tone ? [`pitch ${tone.contour.motion}`] : []), ...events.map((event) => `${event} heard`),
    ...both, ...(singer === null ? [] : [`${things[singer].shape} sings`]),
  ];
}

// ---- video ----

/** Smooth noise around zero [size, size, 3], added to an image: random knots, linear between. */
function addNoise(image, size, cells, amplitude, random) {
  const knots = Float32Array.from({ length: cells * cells * 3 }, () => amplitude * random.uniform(-1, 1));
  const places = Array.from({ length: size }, (_, i) => {
    const place = (i + 0.5) / size * (cells - 1), left = Math.min(Math.floor(place), cells - 2);
    return [left, place - left];
  });
  for (let y = 0, at = 0; y < size; y++) for (let x = 0; x < size; x++) for (let c = 0; c < 3; c++) {
    const [i, down] = places[y], [j, right] = places[x], k = (i * cells + j) * 3 + c;
    const top = knots[k] + right * (knots[k + 3] - knots[k]), below = k + 3 * cells;
    image[at++] += top + down * (knots[below] + right * (knots[below + 3] - knots[below]) - top);
  }
}

function background(random, size) {
  const color = [0, 1, 2].map(() => random.uniform(0.1, 0.45));
  const image = new Float32Array(size * size * 3).map((_, i) => color[i % 3]);
  for (const cells of [4, 16]) addNoise(image, size, cells, random.uniform(0.02, 0.12), random);
  return image;
}

/** Signed distance to the outline of a shape of radius r, negative inside. */
function distance(shape, x, y, r) {
  if (shape === "circle") return Math.hypot(x, y) - r;
  if (shape === "ring") return Math.abs(Math.hypot(x, y) - 0.75 * r) - 0.3 * r;
  [x, y] = [Math.abs(x), Math.abs(y)];
  const long = 1.15 * r, arm = 0.36 * r;
  if (shape === "cross") return Math.min(Math.max(x - long, y - arm), Math.max(y - long, x - arm));
  return Math.max(x - r, Math.min(Math.abs(y - 0.8 * r), y) - 0.2 * r); // a ladder
}

function paint(image, i, share, color) {
  for (let c = 0; c < 3; c++) image[i + c] += share * (color[c] - image[i + c]);
}

function paintShape(image, size, thing, time) {
  const [x, y] = center(thing, time), cos = Math.cos(thing.tilt), sin = Math.sin(thing.tilt);
  const near = (middle) => [Math.max(Math.floor((middle - 0.2) * size), 0), Math.min(Math.ceil((middle + 0.2) * size), size)];
  const [top, bottom] = near(y), [left, right] = near(x);
  for (let row = top; row < bottom; row++) for (let column = left; column < right; column++) {
    const a = (column + 0.5) / size - x, b = (row + 0.5) / size - y;
    const d = distance(thing.shape, cos * a + sin * b, cos * b - sin * a, thing.radius);
    const share = Math.min(Math.max(0.5 - size * d, 0), 1);
    if (share) paint(image, 3 * (row * size + column), share, thing.color);
  }
}

const sirenTurns = (scene) => 1.5 + 1.5 * scene.beat; // Hz
const flashTime = (scene) => 0.1 + 1.2 * scene.beat; // s

function eachPixel(size, work) {
  for (let i = 0; i < size * size; i++) work(3 * i, (i % size + 0.5) / size, (Math.floor(i / size) + 0.5) / size);
}

/** A function of time in s that returns the frame at it: numbers 0..1 [size, size, 3]. */
export function renderer(scene, size) {
  const random = new Random(scene.videoSeed), ground = background(random, size);
  const corner = random.pick([0.07, 0.93]);
  const drops = Array.from({ length: 36 }, () => [random.next(), random.next(), random.uniform(1, 1.6)]);
  return (time) => {
    const image = ground.slice();
    for (const thing of scene.things) paintShape(image, size, thing, time);
    if (scene.both.includes("siren")) {
      const color = (time * sirenTurns(scene)) % 1 < 0.5 ? [1, 0.1, 0.1] : [0.15, 0.3, 1];
      eachPixel(size, (i, x, y) => {
        const share = Math.exp(-((((x - corner) ** 2 + (y - 0.07) ** 2) / 0.0025) ** 2));
        if (share > 1e-4) paint(image, i, share, color);
      });
    }
    if (scene.both.includes("rain")) {
      eachPixel(size, (i, x, y) => {
        let cover = 0;
        for (const [across, start, speed] of drops) {
          if (Math.abs(x - across) > 0.04) continue;
          const down = (start + time * speed) % 1.2 - 0.1;
          cover += Math.exp(-(((x - across) / 0.011) ** 2) - ((y - down) / 0.05) ** 2);
        }
        if (cover > 1e-3) paint(image, i, 0.6 * Math.min(cover, 1), [0.8, 0.85, 1]);
      });
    }
    const since = time - flashTime(scene);
    if (scene.both.includes("thunder") && since >= 0) {
      const flash = 0.6 * Math.exp(-since / 0.35);
      for (let i = 0; i < image.length; i++) image[i] += flash;
    }
    return image;
  };
}

/** Frames as bytes [T, size, size, 3] that a model with these settings of clips gets. */
export function frames(scene, clip) {
  const render = renderer(scene, clip.size), count = clip.size ** 2 * 3;
  const rgb = new Uint8ClampedArray(clip.frames * count);
  for (let t = 0; t < clip.frames; t++) {
    const image = render((t + 0.5) * clip.stride / clip.fps);
    for (let i = 0; i < count; i++) rgb[t * count + i] = Math.floor(image[i] * 255 + 0.5);
  }
  return rgb;
}

// ---- audio ----

const COLORS = { // of noise: the amplitude at each frequency in Hz
  white: () => 1,
  pink: (hz) => hz ** -0.5,
  rumble: (hz) => 1 / (1 + (hz / 110) ** 4),
  hiss: (hz) => 1 / (1 + (3500 / hz) ** 8),
  rain: (hz) => 1 / (1 + ((hz - 2500) / 900) ** 2),
};
const noises = {};

/** 8 s of noise with unit power. */
function noise(color) {
  if (noises[color]) return noises[color];
  const n = 2 ** 17, random = new Random(color.length * 1000 + color.charCodeAt(0));
  const re = new Float64Array(n).map(() => random.normal()), im = new Float64Array(n), transform = fourier(n);
  if (color === "rain") for (let i = 0; i < n; i++) if (random.next() >= 0.004) re[i] = 0;
  transform(re, im);
  for (let k = 0; k < n; k++) {
    const gain = COLORS[color](Math.max(Math.min(k, n - k) * RATE / n, 1));
    re[k] *= gain;
    im[k] *= -gain; // conjugate: the transform back
  }
  transform(re, im);
  const power = re.reduce((sum, x) => sum + x * x, 0) / n;
  return noises[color] = Float32Array.from(re, (x) => x / Math.sqrt(power));
}

function excerpt(random, color) {
  const start = random.integer(0, noise(color).length - SAMPLES);
  return noise(color).subarray(start, start + SAMPLES);
}

/** Adds gain * part(time in s, sample) to a waveform between two times in s. */
function mix(wave, gain, part, from = 0, to = SECONDS) {
  const start = Math.max(Math.round(from * RATE), 0), end = Math.min(Math.round(to * RATE), SAMPLES);
  for (let i = start; i < end; i++) wave[i] += gain * part(i / RATE, i);
}

const CYCLE = 4096; // samples of one period of a voice

/** Adds a singing voice whose pitch follows the tone's contour. */
function sing(wave, tone) {
  const period = Float32Array.from({ length: CYCLE + 1 }, (_, i) => tone.overtones.reduce(
    (sum, level, k) => sum + level * Math.sin((k + 1) * TURN * i / CYCLE), 0));
  const pitch = Float32Array.from({ length: SAMPLES / 32 + 1 }, (_, i) => // every 2 ms
    CYCLE / RATE * tone.middle * 2 ** (tone.octaves * height(tone.contour, 32 * i / SAMPLES)));
  let place = 0;
  for (let i = 0; i < SAMPLES; i++) {
    const k = i >> 5, fade = Math.min(1, Math.min(i, SAMPLES - i) / RATE / 0.05);
    place = (place + pitch[k] + (i & 31) / 32 * (pitch[k + 1] - pitch[k])) % CYCLE;
    const left = Math.floor(place);
    const value = period[left] + (place - left) * (period[left + 1] - period[left]);
    wave[i] += tone.level * fade * value;
  }
}

const SOUNDS = { // each adds an event to the waveform
  bell(wave, gain, random) {
    const hz = random.uniform(1200, 1800), start = random.uniform(0, 1.2), strike = excerpt(random, "white");
    const partials = [[1, 1], [1.51, 0.6], [2.63, 0.6], [4.17, 0.6]];
    mix(wave, 0.25 * gain, (t, i) => {
      const tones = partials.reduce((sum, [k, a]) => sum + a * Math.sin(TURN * hz * k * t), 0);
      return tones * Math.exp((start - t) / 0.4) + 0.6 * strike[i] * Math.exp((start - t) / 0.015);
    }, start);
  },
  hiss(wave, gain, random) {
    const start = random.uniform(0, 1.2), length = random.uniform(0.4, 0.8), sound = excerpt(random, "hiss");
    mix(wave, 0.15 * gain, (_, i) => sound[i], start, start + length);
  },
  knocking(wave, gain, random) {
    const hz = random.uniform(150, 260);
    const knock = (t) => Math.sin(TURN * hz * t) * Math.exp(-t / 0.02);
    repeat(wave, 0.6 * gain, knock, 0.1, random, [0.2, 0.35], [3, 6]);
  },
  chirping(wave, gain, random) {
    const low = random.uniform(3000, 4000), length = 0.12;
    const chirp = (t) => Math.sin(TURN * (low * t + 7000 * t * t)) * Math.sin(Math.PI * t / length);
    repeat(wave, 0.15 * gain, chirp, length, random, [0.18, 0.3], [3, 7]);
  },
};

function repeat(wave, gain, part, length, random, step, count) {
  const first = random.uniform(0, 0.3), gap = random.uniform(...step);
  for (let k = random.integer(...count) - 1; k >= 0; k--) {
    const start = Math.floor((first + k * gap) * RATE) / RATE;
    mix(wave, gain, (t) => part(t - start), start, start + length);
  }
}

/** The waveform of a scene, 2 s at 16 kHz in [-1, 1]. */
export function waveform(scene) {
  const random = new Random(scene.audioSeed), wave = new Float32Array(SAMPLES);
  const ground = 10 ** random.uniform(-3, -1.7), sound = excerpt(random, random.pick(["white", "pink"]));
  mix(wave, ground, (_, i) => sound[i]);
  if (scene.tone) sing(wave, scene.tone);
  for (const event of scene.events) SOUNDS[event](wave, 10 ** random.uniform(-0.2, 0.2), random);
  if (scene.both.includes("siren")) {
    let phase = 0;
    mix(wave, 0.1, (t) => {
      phase += TURN / RATE * ((t * sirenTurns(scene)) % 1 < 0.5 ? 2400 : 1900);
      return Math.sign(Math.sin(phase));
    });
  }
  if (scene.both.includes("thunder")) {
    const start = flashTime(scene), rumble = excerpt(random, "rumble");
    mix(wave, 0.35, (t, i) => rumble[i] * Math.exp((start - t) / 0.6), start);
  }
  if (scene.both.includes("rain")) {
    const rain = excerpt(random, "rain");
    mix(wave, 0.08, (_, i) => rain[i]);
  }
  const gain = 10 ** random.uniform(-0.4, 0.1);
  return wave.map((value) => Math.min(Math.max(value * gain, -1), 1));
}

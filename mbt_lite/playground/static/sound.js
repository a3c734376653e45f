// Sound: a tone that is played in a loop and may change, the microphone, and the pitch of a hum.

import { RATE, SECONDS } from "./world.js";

let context = null, source = null, start = null;
const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Plays a waveform in a loop; the one that plays fades into it at the same place. */
export function play(wave) {
  context ??= new AudioContext();
  context.resume();
  const buffer = context.createBuffer(1, wave.length, RATE), now = context.currentTime;
  buffer.copyToChannel(wave, 0);
  start ??= now;
  fade();
  const gain = context.createGain(), node = context.createBufferSource();
  gain.gain.setValueAtTime(0, now);
  gain.gain.linearRampToValueAtTime(1, now + 0.03);
  Object.assign(node, { buffer, loop: true });
  node.connect(gain).connect(context.destination);
  node.start(now, (now - start) % SECONDS);
  source = { node, gain };
}

function fade() {
  source?.gain.gain.linearRampToValueAtTime(0, context.currentTime + 0.03);
  source?.node.stop(context.currentTime + 0.04);
  source = null;
}

export function stop() {
  if (context) fade();
  start = null;
}

/** Where in the clip the loop is, in s; null where nothing plays and the reader wants no motion. */
export function position() {
  if (start !== null) return Math.max(context.currentTime - start, 0) % SECONDS;
  return still.matches ? null : performance.now() / 1000 % SECONDS;
}

/** The microphone as it is: what makes calls clearer would change what a model hears. */
export const PLAIN = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

/** The microphone of a stream: `read()` gives the last `seconds` at 16 kHz, `close()` ends it. */
export async function microphone(stream, seconds) {
  let ear = new AudioContext({ sampleRate: RATE }), input;
  try {
    input = ear.createMediaStreamSource(stream);
  } catch { // some browsers do not resample
    ear = new AudioContext();
    input = ear.createMediaStreamSource(stream);
  }
  await ear.audioWorklet.addModule("recorder.js");
  const recorder = new AudioWorkletNode(ear, "recorder", { numberOfOutputs: 0 });
  let samples = new Float32Array(Math.round(seconds * ear.sampleRate));
  recorder.port.onmessage = ({ data }) => {
    samples.copyWithin(0, data.length);
    samples.set(data, samples.length - data.length);
  };
  input.connect(recorder);
  return { read: () => resampled(samples, ear.sampleRate), close: () => ear.close() };
}

/** Samples at 16 kHz, each the mean of those that it replaces. */
function resampled(samples, rate) {
  const step = rate / RATE;
  return Float32Array.from({ length: Math.floor(samples.length / step) }, (_, i) => {
    const part = samples.subarray(Math.floor(i * step), Math.max(Math.floor((i + 1) * step), Math.floor(i * step) + 1));
    return part.reduce((sum, x) => sum + x, 0) / part.length;
  });
}

/** Two seconds of humming as a curve of `count` points between -1 and 1; null: nothing was heard. */
export async function hum(count) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: PLAIN }), ear = await microphone(stream, SECONDS);
  await new Promise((resolve) => setTimeout(resolve, 1000 * SECONDS + 150));
  const wave = ear.read();
  ear.close();
  stream.getTracks().forEach((track) => track.stop());
  return pitchCurve(wave, count);
}

/** The pitch of a waveform in octaves around its median, ±0.5 octaves as ±1; null: none was heard. */
function pitchCurve(wave, count) {
  const pitches = Array.from({ length: count }, (_, i) => pitchAt(wave, Math.round(i / (count - 1) * wave.length)));
  const heard = pitches.filter(Boolean).sort((a, b) => a - b);
  if (heard.length < count / 4) return null;
  const middle = (heard[0] * heard.at(-1)) ** 0.5;
  const octaves = pitches.map((hz) => hz && Math.log2(hz / middle));
  const half = Math.max(0.25, ...octaves.map((x) => Math.abs(x ?? 0)));
  let before = octaves.find((x) => x !== null);
  return octaves.map((x) => (before = x ?? before) / half);
}

/** Pitch in Hz around a sample, by autocorrelation; null where there is none. */
function pitchAt(wave, middle) {
  const size = 1024, start = Math.min(Math.max(middle - size, 0), wave.length - 2 * size);
  const sum = (lag) => {
    let total = 0;
    for (let i = 0; i < size; i++) total += wave[start + i] * wave[start + i + lag];
    return total;
  };
  const power = sum(0), lags = [];
  if (power / size < 1e-5) return null;
  for (let lag = 20; lag <= 200; lag++) lags.push(sum(lag)); // 800 to 80 Hz
  const best = Math.max(...lags);
  if (best < 0.5 * power) return null;
  const peak = lags.findIndex((x, i) => x > 0.9 * best && x >= (lags[i - 1] ?? 0) && x >= (lags[i + 1] ?? 0));
  return RATE / (20 + Math.max(peak, 0));
}

// The forward pass of mbt_lite/model/mbt.py for one clip, in its order: embed, blocks, fuse, head.
//
// N tokens   D width   H heads   d width of a head   Z bottleneck tokens   C classes
// A stream is "rgb" (video) or "spec" (audio). Arrays are flat, rows first.

import { dense, matmul } from "./matmul.js";

/** {meta, arrays} of a safetensors file of ours; bfloat16 becomes float32. */
function readSafetensors(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const { format, ...strings } = header.__metadata__ ?? {};
  if (format !== "mbt_lite") throw Error("This file holds no model of mbt_lite.");
  delete header.__metadata__;
  const meta = Object.fromEntries(Object.entries(strings).map(([k, v]) => [k, JSON.parse(v)]));
  const arrays = {};
  for (const [name, { dtype, data_offsets: [start, end] }] of Object.entries(header)) {
    const bytes = buffer.slice(8 + length + start, 8 + length + end);
    if (dtype === "F32") arrays[name] = new Float32Array(bytes);
    else if (dtype === "BF16") {
      arrays[name] = new Float32Array(Uint32Array.from(new Uint16Array(bytes), (x) => x << 16).buffer);
    } else throw Error(`This file holds ${dtype} numbers; only F32 and BF16 can be read.`);
  }
  return { meta, arrays };
}

export class MBT {
  constructor(buffer) {
    const { meta, arrays } = readSafetensors(buffer);
    Object.assign(this, { config: meta.config, clip: meta.clip, labels: meta.labels, arrays });
    this.familiarity = meta.familiarity;
    this.scores = meta.card?.scores;
    const loss = meta.card?.training?.loss ?? "sigmoid";
    this.heads = meta.label_heads ?? [{ kind: loss, classes: this.config.classes }];
    const c = this.config;
    const layers = [...Array(c.depth).keys()];
    this.fused = layers.filter((layer) => this.fuses(layer));
    this.prefixDepth = this.fused[0] ?? c.depth;
    this.embeddings = {};
    for (const s of c.streams) {
      const kernel = arrays[`${s}_embedding/kernel`];
      const values = kernel.length / c.width;
      this.embeddings[s] = s === "rgb"
        ? this.dense(`${s}_embedding`, values)
        : dense(oneChannel(kernel, c.width), arrays[`${s}_embedding/bias`], values / 3);
    }
    this.blocks = layers.map((i) => Object.fromEntries(c.streams.map((s) => {
      const name = c.shared_encoder ? `block_${i}` : `${s}_block_${i}`;
      return [s, {
        attention_norm: this.norm(`${name}/attention_norm`),
        mlp_norm: this.norm(`${name}/mlp_norm`),
        qkv: this.dense(`${name}/attention/qkv`, c.width),
        out: this.dense(`${name}/attention/out`, c.width),
        mlp_in: this.dense(`${name}/mlp_in`, c.width),
        mlp_out: this.dense(`${name}/mlp_out`, c.mlp_dim),
      }];
    })));
    this.finalNorm = this.norm("final_norm");
    this.preLogits = c.representation && this.dense("pre_logits", c.width);
    this.head = this.dense("head", c.representation ?? c.width);
  }

  dense(name, inputs) {
    return dense(this.arrays[`${name}/kernel`], this.arrays[`${name}/bias`], inputs);
  }

  norm(name) {
    const scale = this.arrays[`${name}/scale`], bias = this.arrays[`${name}/bias`];
    return (x) => layerNorm(x, scale, bias);
  }

  /** Whether the streams exchange information in this layer. */
  fuses(layer) {
    const c = this.config;
    return c.streams.length > 1 && c.fusion !== "late" && layer >= c.fusion_layer
      && (c.fusion === "joint" || c.bottlenecks_at_test);
  }

  /** Tokens along each axis of a stream's input. */
  grid(stream) {
    const c = this.config, patch = c[`${stream}_patch`], shape = [...c[`${stream}_shape`]];
    if (stream === "rgb" && c.rgb_sampled) shape[0] = sampledFrames(shape[0], c.rgb_sampled).length;
    return shape.map((size, i) => Math.floor(size / patch[i]));
  }

  /** Tokens [N, D] of a stream after the layers before fusion, where it is alone. */
  prefix(stream, input, trace = null) {
    let x = this.embed(stream, input);
    for (let layer = 0; layer < this.prefixDepth; layer++) {
      x = this.block(layer, stream, x, { trace });
    }
    return x;
  }

  /** Patches, a class token in front if the model has one, positions. */
  embed(stream, input) {
    const c = this.config, shape = [...c[`${stream}_shape`]];
    if (stream === "rgb" && c.rgb_sampled) {
      const frame = input.length / shape[0], chosen = sampledFrames(shape[0], c.rgb_sampled);
      const frames = new Float32Array(frame * chosen.length);
      chosen.forEach((t, i) => frames.set(input.subarray(t * frame, (t + 1) * frame), i * frame));
      [input, shape[0]] = [frames, chosen.length];
    }
    const patches = patchify(input, shape, c[`${stream}_patch`], stream === "rgb" ? 3 : 1);
    const embedded = this.embeddings[stream](patches);
    const positions = this.arrays[`${stream}_positions`];
    const x = new Float32Array(positions.length);
    if (c.pool === "token") x.set(this.arrays[`${stream}_cls`]);
    x.set(embedded, x.length - embedded.length);
    return x.map((value, i) => value + positions[i]);
  }

  /**
   * The answer from the tokens of each stream after `prefix`: logits [C], streamLogits {stream: [C]}
   * and features. `edits` (see `Edits`) silence tokens and cut edges; `trace`, a list, gets what
   * each attention computed.
   */
  answer(prefixes, edits = new Edits(), trace = null) {
    const c = this.config, streams = c.streams.filter((s) => prefixes[s]);
    let tokens = { ...prefixes };
    let bottleneck = c.fusion === "bottleneck" && streams.length > 1 && this.fused.length
      ? this.silence(this.prefixDepth - 1, this.arrays.bottleneck.slice(), edits) : null;
    for (let layer = this.prefixDepth; layer < c.depth; layer++) {
      if (bottleneck) {
        [tokens, bottleneck] = this.fuseBottleneck(layer, tokens, bottleneck, edits, trace);
      } else tokens = this.fuseJoint(layer, streams, tokens, trace);
    }
    return this.classify(streams, tokens);
  }

  /** Each stream attends to its own tokens and the bottleneck; their updates are averaged. */
  fuseBottleneck(layer, tokens, bottleneck, edits, trace) {
    const next = {}, merged = new Float32Array(bottleneck.length), { streams } = this.config;
    for (const s of streams) {
      const x = tokens[s], options = { trace, edits: edits.of(layer, s), bottlenecks: this.config.bottlenecks };
      const y = this.block(layer, s, joined([x, bottleneck]), options);
      next[s] = y.slice(0, x.length);
      for (let i = 0; i < merged.length; i++) merged[i] += y[x.length + i] / streams.length;
    }
    return [next, this.silence(layer, merged, edits)];
  }

  /** Sets the bottleneck tokens to zero that are silenced after this layer. */
  silence(layer, bottleneck, edits) {
    const width = this.config.width;
    for (let z = 0; z < this.config.bottlenecks; z++) {
      if (edits.has("zero", layer, z)) bottleneck.fill(0, z * width, (z + 1) * width);
    }
    return bottleneck;
  }

  /** All tokens attend to all: as one sequence (shared encoder), or in each stream's own block. */
  fuseJoint(layer, streams, tokens, trace) {
    const next = {}, shared = this.config.shared_encoder;
    let all = shared && this.block(layer, streams[0], joined(streams.map((s) => tokens[s])), { trace });
    for (const s of streams) {
      const length = tokens[s].length;
      if (shared) [next[s], all] = [all.slice(0, length), all.slice(length)];
      else {
        const others = streams.filter((other) => other !== s).map((other) => tokens[other]);
        next[s] = this.block(layer, s, joined([...others, tokens[s]]), { trace }).slice(-length);
      }
    }
    return next;
  }

  /** One pre-norm transformer block. */
  block(layer, stream, x, { trace, edits, bottlenecks = 0 } = {}) {
    const block = this.blocks[layer][stream], { width, heads } = this.config;
    const qkv = block.qkv(block.attention_norm(x));
    const { y, weights } = attention(qkv, width, heads, edits, bottlenecks);
    trace?.push({ layer, stream, qkv, weights, length: x.length / width, bottlenecks });
    x = added(x, block.out(y));
    return added(x, block.mlp_out(gelu(block.mlp_in(block.mlp_norm(x)))));
  }

  classify(streams, tokens) {
    const c = this.config, streamLogits = {};
    const featuresOf = (x) => {
      const pooled = pool(x, c.width, c.pool);
      return c.representation ? this.preLogits(pooled).map(Math.tanh) : pooled;
    };
    const normed = streams.map((s) => this.finalNorm(tokens[s]));
    const features = normed.map(featuresOf);
    streams.forEach((s, i) => { streamLogits[s] = this.head(features[i]); });
    if (c.pool === "token") {
      return { logits: mean(Object.values(streamLogits)), streamLogits, features: mean(features) };
    }
    const all = featuresOf(joined(normed));
    return { logits: this.head(all), streamLogits, features: all };
  }

  /** Probabilities [C] of logits: softmax within a softmax head, else sigmoid. */
  probabilities(logits) {
    const values = Float32Array.from(logits, (x) => 1 / (1 + Math.exp(-x)));
    let start = 0;
    for (const { kind, classes } of this.heads) {
      const part = logits.slice(start, start + classes), top = Math.max(...part);
      if (kind === "softmax") {
        const powers = part.map((x) => Math.exp(x - top)), sum = powers.reduce((a, b) => a + b);
        values.set(powers.map((x) => x / sum), start);
      }
      start += classes;
    }
    return values;
  }

  /** Whether features are unlike those of the training clips; null: the file does not say. */
  isUnfamiliar(features) {
    if (!this.familiarity) return null;
    const { mean: middle, precision, threshold } = this.familiarity;
    const apart = middle.map((m, i) => features[i] - m);
    const square = precision.reduce(
      (sum, row, i) => sum + apart[i] * row.reduce((part, p, j) => part + p * apart[j], 0), 0);
    return Math.sqrt(Math.max(square, 0)) > threshold;
  }
}

/**
 * What is changed in the bottleneck, as a set of names such as "zero 1 2": token 2 is set to zero
 * after layer 1 (the layer before the first fused one: at the start). "read 2 rgb 0" cuts what
 * video reads from token 0 in layer 2, "write 2 rgb 0" what token 0 gets from video there.
 */
export class Edits {
  constructor(names = []) {
    this.names = new Set(names);
  }

  has(...parts) {
    return this.names.size > 0 && this.names.has(parts.join(" "));
  }

  /** Whether a row of attention (token or bottleneck) may see a key, in one block. */
  of(layer, stream) {
    if (!this.names.size) return null;
    return (way, token) => this.has(way, layer, stream, token);
  }
}

/** Scores q k / sqrt(d) and attention weights [length] of one query of a traced block. */
export function attentionRow({ qkv, weights, length }, heads, head, query) {
  const width = qkv.length / length / 3, d = width / heads, scores = new Float32Array(length);
  for (let j = 0; j < length; j++) {
    for (let i = 0; i < d; i++) {
      scores[j] += qkv[query * 3 * width + head * d + i] * qkv[(j * 3 + 1) * width + head * d + i];
    }
    scores[j] /= Math.sqrt(d);
  }
  const start = (head * length + query) * length;
  return { scores, weights: weights.slice(start, start + length) };
}

/** Multi-head self-attention of qkv [N, 3 D]: y [N, D] and weights [H, N, N]. */
function attention(qkv, width, heads, cut, bottlenecks) {
  const n = qkv.length / width / 3, d = width / heads, scale = 1 / Math.sqrt(d);
  const y = new Float32Array(n * width), weights = new Float32Array(heads * n * n);
  const queries = new Float32Array(n * d), keys = new Float32Array(d * n), values = new Float32Array(n * d);
  for (let h = 0; h < heads; h++) {
    for (let j = 0, at = h * d; j < n; j++, at += 3 * width) {
      for (let i = 0; i < d; i++) {
        queries[j * d + i] = qkv[at + i] * scale;
        keys[i * n + j] = qkv[at + width + i];
        values[j * d + i] = qkv[at + 2 * width + i];
      }
    }
    const scores = matmul(queries, keys, d);
    for (let q = 0; q < n; q++) {
      const row = scores.subarray(q * n, (q + 1) * n);
      softmax(row);
      if (cut) cutEdges(row, q, n - bottlenecks, cut);
    }
    weights.set(scores, h * n * n);
    const part = matmul(scores, values, n);
    for (let q = 0; q < n; q++) y.set(part.subarray(q * d, (q + 1) * d), q * width + h * d);
  }
  return { y, weights };
}

/** Removes edges from a row of attention, query q, and renormalizes it; the first N keys are tokens. */
function cutEdges(w, q, tokens, cut) {
  let sum = 0;
  for (let j = 0; j < w.length; j++) {
    if (q >= tokens && j < tokens && cut("write", q - tokens)) w[j] = 0;
    if (q < tokens && j >= tokens && cut("read", j - tokens)) w[j] = 0;
    sum += w[j];
  }
  for (let j = 0; j < w.length; j++) w[j] /= sum;
}

function softmax(w) {
  let top = -Infinity, sum = 0;
  for (const value of w) if (value > top) top = value;
  for (let j = 0; j < w.length; j++) sum += w[j] = Math.exp(w[j] - top);
  for (let j = 0; j < w.length; j++) w[j] /= sum;
}

function layerNorm(x, scale, bias) {
  const width = scale.length, y = new Float32Array(x.length);
  for (let start = 0; start < x.length; start += width) {
    let sum = 0, squares = 0;
    for (let i = start; i < start + width; i++) {
      sum += x[i];
      squares += x[i] * x[i];
    }
    const middle = sum / width, factor = 1 / Math.sqrt(squares / width - middle * middle + 1e-6);
    for (let i = 0; i < width; i++) y[start + i] = (x[start + i] - middle) * factor * scale[i] + bias[i];
  }
  return y;
}

/** GELU in its tanh form: 0.5 (1 + tanh u) = 1 / (1 + exp(-2 u)). */
function gelu(x) {
  const c = 2 * Math.sqrt(2 / Math.PI);
  for (let i = 0; i < x.length; i++) {
    const v = x[i];
    x[i] = v / (1 + Math.exp(-c * (v + 0.044715 * v * v * v)));
  }
  return x;
}

/** Cuts an array [..., channels] into patches [N, values of a patch], row by row. */
function patchify(x, shape, patch, channels) {
  if (shape.length === 2) [shape, patch] = [[1, ...shape], [1, ...patch]];
  const [T, H, W] = shape.map((size, i) => Math.floor(size / patch[i])), [pt, ph, pw] = patch;
  const y = new Float32Array(T * H * W * pt * ph * pw * channels), line = pw * channels;
  let at = 0;
  for (let t = 0; t < T; t++) for (let h = 0; h < H; h++) for (let w = 0; w < W; w++) {
    for (let i = t * pt; i < (t + 1) * pt; i++) for (let j = h * ph; j < (h + 1) * ph; j++) {
      const start = ((i * shape[1] + j) * shape[2] + w * pw) * channels;
      y.set(x.subarray(start, start + line), at);
      at += line;
    }
  }
  return y;
}

/** The kernel [values, D] for a log-mel that the model repeats on three equal channels. */
function oneChannel(kernel, width) {
  const y = new Float32Array(kernel.length / 3);
  for (let i = 0; i < y.length; i++) {
    const start = 3 * Math.floor(i / width) * width + i % width;
    y[i] = kernel[start] + kernel[start + width] + kernel[start + 2 * width];
  }
  return y;
}

/** Indices of about `count` evenly spaced frames, as `config.sampled_frames` picks them. */
function sampledFrames(frames, count) {
  if (count >= frames) return [...Array(frames).keys()];
  const step = frames / (count + 1), indices = [];
  for (let i = 0; i < Math.ceil((frames - step) / step); i++) {
    const time = Math.fround(step + i * step), low = Math.floor(time);
    const even = time - low === 0.5 ? low + low % 2 : Math.round(time); // rounds half to even
    indices.push(Math.min(Math.max(even, 0), frames - 1));
  }
  return indices;
}

function pool(x, width, kind) {
  const y = x.slice(0, width), rows = x.length / width;
  if (kind === "token") return y;
  for (let i = width; i < x.length; i++) {
    const at = i % width;
    y[at] = kind === "max" ? Math.max(y[at], x[i]) : y[at] + x[i];
  }
  return kind === "mean" ? y.map((value) => value / rows) : y;
}

function added(x, y) {
  for (let i = 0; i < x.length; i++) y[i] += x[i];
  return y;
}

function mean(arrays) {
  return arrays[0].map((_, i) => arrays.reduce((sum, x) => sum + x[i], 0) / arrays.length);
}

function joined(arrays) {
  const y = new Float32Array(arrays.reduce((sum, x) => sum + x.length, 0));
  let at = 0;
  for (const x of arrays) {
    y.set(x, at);
    at += x.length;
  }
  return y;
}

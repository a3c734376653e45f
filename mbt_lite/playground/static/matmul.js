// Products of matrices, y = x W + b, by a WebAssembly kernel of four numbers at a time (SIMD).
//
// The kernel is written here as bytes: `CODE` below reads like the loop that it is. Where a browser
// has no SIMD, the same sums are done by plain JavaScript.

const get = (i) => [0x20, i], set = (i) => [0x21, i], int = (n) => [0x41, ...leb(n)];
const add = [0x6a], subtract = [0x6b], less = [0x49], positive = [...int(0), 0x4a];
const load = (offset) => [0xfd, 0x00, 0, ...leb(offset)], splat = [0xfd, 0x09, 0, 0];
const store = (offset) => [0xfd, 0x0b, 0, ...leb(offset)];
const multiplied = [0xfd, 0xe6, 1], summed = [0xfd, 0xe4, 1];
const loop = (body, condition) => [0x03, 0x40, ...body, ...condition, 0x0d, 0, 0x0b];
const step = (local, by) => [...get(local), ...by, ...add, ...set(local)];

/** LEB128: how WebAssembly writes a number. */
function leb(n) {
  return n < 64 ? [n] : [(n & 127) | 128, ...leb(n >> 7)];
}

// Parameters: addresses of x, W, b, y; rows of x; bytes of a row of x; bytes of a row of W and y.
const [X, W, B, Y, ROWS, XROW, YROW, J, END, AT, OUT] = Array(11).keys();
const xs = [11, 12, 13, 14], sums = [...Array(8).keys()].map((i) => 15 + i);
const [LEFT, RIGHT, VALUE] = [23, 24, 25];

// Four rows by eight columns of y at a time: for each p, sums += x[row, p] * W[p, columns].
const accumulate = xs.flatMap((x, r) => [
  ...get(x), ...splat, ...set(VALUE),
  ...[LEFT, RIGHT].flatMap((w, c) => [
    ...get(sums[2 * r + c]), ...get(VALUE), ...get(w), ...multiplied, ...summed,
    ...set(sums[2 * r + c]),
  ]),
  ...step(x, int(4)),
]);
const CODE = loop([
  ...int(0), ...set(J),
  ...loop([
    ...sums.flatMap((sum, i) => [
      ...get(B), ...get(J), ...add, ...load(16 * (i % 2)), ...set(sum),
    ]),
    ...get(X), ...set(xs[0]),
    ...[1, 2, 3].flatMap((r) => [...get(xs[r - 1]), ...get(XROW), ...add, ...set(xs[r])]),
    ...get(xs[1]), ...set(END),
    ...get(W), ...get(J), ...add, ...set(AT),
    ...loop([
      ...get(AT), ...load(0), ...set(LEFT), ...get(AT), ...load(16), ...set(RIGHT),
      ...accumulate, ...step(AT, get(YROW)),
    ], [...get(xs[0]), ...get(END), ...less]),
    ...get(Y), ...get(J), ...add, ...set(OUT),
    ...[0, 1, 2, 3].flatMap((r) => [
      ...get(OUT), ...get(sums[2 * r]), ...store(0),
      ...get(OUT), ...get(sums[2 * r + 1]), ...store(16),
      ...step(OUT, get(YROW)),
    ]),
    ...step(J, int(32)),
  ], [...get(J), ...get(YROW), ...less]),
  ...[1, 2, 3, 4].flatMap(() => [...step(X, get(XROW)), ...step(Y, get(YROW))]),
  ...get(ROWS), ...int(4), ...subtract, ...set(ROWS),
], [...get(ROWS), ...positive]);

const I32 = 0x7f, V128 = 0x7b;
const section = (id, body) => [id, ...leb(body.length), ...body];
const text = (word) => [word.length, ...new TextEncoder().encode(word)];
const body = [2, 8, I32, 11, V128, ...CODE, 0x0b];
const MODULE = new Uint8Array([
  0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
  ...section(1, [1, 0x60, 7, ...Array(7).fill(I32), 0]),
  ...section(2, [1, ...text("js"), ...text("memory"), 2, 0, 1]),
  ...section(3, [1, 0]),
  ...section(7, [1, ...text("dense"), 0, 0]),
  ...section(10, [1, ...leb(body.length), ...body]),
]);

const simd = typeof WebAssembly === "object" && WebAssembly.validate(MODULE);
const memory = simd && new WebAssembly.Memory({ initial: 160 });
const kernel = simd && new WebAssembly.Instance(
  new WebAssembly.Module(MODULE), { js: { memory } },
).exports.dense;
const HALF = 2 ** 22; // bytes at the beginning of the memory for x and y, and as many for passing W
let used = 2 * HALF;

/** Where `count` numbers may lie in the kernel's memory, which grows. */
function reserve(count) {
  const start = used;
  used += 16 * Math.ceil(count / 4);
  const missing = used - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / 65536));
  return start;
}

function put(address, values) {
  new Float32Array(memory.buffer, address, values.length).set(values);
}

/** Puts W [inputs, outputs] into rows of `columns` numbers, the last of which are not used. */
function putRows(address, weights, inputs, outputs, columns) {
  for (let p = 0; p < inputs; p++) {
    put(address + 4 * p * columns, weights.subarray(p * outputs, (p + 1) * outputs));
  }
}

function run(x, w, b, inputs, outputs) {
  const rows = x.length / inputs, padded = 4 * Math.ceil(rows / 4);
  const columns = 8 * Math.ceil(outputs / 8), out = 4 * padded * inputs; // x first, then y
  if (out + 4 * padded * columns > HALF) throw Error("This model is too large for this page.");
  put(0, x);
  kernel(0, w, b, out, rows, 4 * inputs, 4 * columns);
  const y = new Float32Array(memory.buffer, out, rows * columns);
  if (columns === outputs) return y.slice();
  const cut = new Float32Array(rows * outputs);
  for (let i = 0; i < rows; i++) {
    cut.set(y.subarray(i * columns, i * columns + outputs), i * outputs);
  }
  return cut;
}

/** A dense layer: the function from x [rows, inputs] to y [rows, outputs]. */
export function dense(weights, bias, inputs) {
  const outputs = bias.length, columns = 8 * Math.ceil(outputs / 8);
  if (!simd) return (x) => plain(x, weights, bias, inputs, outputs);
  const w = reserve(inputs * columns), b = reserve(columns);
  putRows(w, weights, inputs, outputs, columns);
  put(b, bias);
  return (x) => run(x, w, b, inputs, outputs);
}

const zeros = simd && reserve(4096);

/** The product x W [rows, outputs] of two matrices that change. */
export function matmul(x, weights, inputs) {
  const outputs = weights.length / inputs;
  if (!simd) return plain(x, weights, new Float32Array(outputs), inputs, outputs);
  const columns = 8 * Math.ceil(outputs / 8);
  if (columns > 4096 || 4 * inputs * columns > HALF) throw Error("This model is too large for this page.");
  putRows(HALF, weights, inputs, outputs, columns);
  return run(x, HALF, zeros, inputs, outputs);
}

function plain(x, weights, bias, inputs, outputs) {
  const rows = x.length / inputs, y = new Float32Array(rows * outputs);
  for (let i = 0; i < rows; i++) {
    const row = y.subarray(i * outputs, (i + 1) * outputs);
    row.set(bias);
    for (let p = 0; p < inputs; p++) {
      const value = x[i * inputs + p];
      for (let j = 0, w = p * outputs; j < outputs; j++, w++) row[j] += value * weights[w];
    }
  }
  return y;
}

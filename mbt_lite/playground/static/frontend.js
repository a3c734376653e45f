// The log-mel spectrogram of mbt_lite/features.py, and what a model gets of a clip.

/** The mel filters: for each, its first bin and its weights. */
function melFilters(front) {
  const toMel = (hz) => 2595 * Math.log10(1 + hz / 700), toHz = (mel) => 700 * (10 ** (mel / 2595) - 1);
  const [low, high] = [toMel(front.low), toMel(front.high)];
  const edge = (i) => toHz(low + (high - low) * i / (front.mels + 1));
  return Array.from({ length: front.mels }, (_, m) => {
    const [left, top, right] = [edge(m), edge(m + 1), edge(m + 2)], bin = front.rate / front.fft;
    const first = Math.ceil(left / bin), weights = [];
    for (let hz = first * bin; hz < right; hz += bin) {
      weights.push(Math.max(0, Math.min((hz - left) / (top - left), (right - hz) / (right - top))));
    }
    return { first, weights };
  });
}

/** A function that transforms complex numbers (re, im) of length n, a power of two, in place. */
export function fourier(n) {
  if (n & (n - 1)) throw Error(`An FFT of ${n} samples is not supported; only powers of two are.`);
  const cos = new Float64Array(n / 2).map((_, i) => Math.cos(2 * Math.PI * i / n));
  const sin = new Float64Array(n / 2).map((_, i) => Math.sin(2 * Math.PI * i / n));
  return (re, im) => {
    for (let i = 1, j = 0; i < n; i++) { // bit reversal
      let bit = n >> 1;
      for (; j & bit; bit >>= 1) j ^= bit;
      j ^= bit;
      if (i < j) {
        const [a, b] = [re[i], im[i]];
        re[i] = re[j];
        im[i] = im[j];
        re[j] = a;
        im[j] = b;
      }
    }
    for (let half = 1; half < n; half *= 2) {
      const turn = n / half / 2;
      for (let start = 0; start < n; start += 2 * half) {
        for (let k = 0, w = 0; k < half; k++, w += turn) {
          const a = start + k, b = a + half;
          const x = re[b] * cos[w] + im[b] * sin[w], y = im[b] * cos[w] - re[b] * sin[w];
          re[b] = re[a] - x;
          im[b] = im[a] - y;
          re[a] += x;
          im[a] += y;
        }
      }
    }
  };
}

const tables = new Map(); // what is computed once for each front end

function tablesOf(front) {
  const key = JSON.stringify(front);
  if (!tables.has(key)) {
    const samples = Math.round(front.window * front.rate), floor = front.window_fn === "hann" ? 0 : 0.08;
    const window = new Float64Array(samples).map((_, i) => front.amplitude
      * ((1 + floor) / 2 - (1 - floor) / 2 * Math.cos(2 * Math.PI * i / samples)));
    tables.set(key, { filters: melFilters(front), window, transform: fourier(front.fft) });
  }
  return tables.get(key);
}

/** Log-mel [N, M] of a waveform in [-1, 1], not standardized. Two frames share each transform. */
export function logMel(wave, front) {
  const { filters, window, transform } = tablesOf(front), { fft, mels } = front;
  const hop = Math.round(front.hop * front.rate), rows = Math.ceil(wave.length / hop);
  const lead = front.centered ? window.length >> 1 : 0, log = front.compression === "log";
  const padded = new Float64Array((rows + 1) * hop + window.length);
  for (let i = 0; i < wave.length; i++) {
    padded[lead + i] = wave[i] - (front.pre_emphasis && i > 0 ? front.pre_emphasis * wave[i - 1] : 0);
  }
  const out = new Float32Array(rows * mels), re = new Float64Array(fft), im = new Float64Array(fft);
  const sizes = [new Float64Array(fft / 2 + 1), new Float64Array(fft / 2 + 1)];
  for (let row = 0; row < rows; row += 2) {
    [re, im].forEach((frame, r) => {
      frame.fill(0);
      const start = (row + r) * hop;
      for (let i = 0; i < window.length; i++) frame[i] = padded[start + i] * window[i];
    });
    transform(re, im);
    for (let k = 0; k <= fft / 2; k++) { // the spectra of both, from the symmetric parts
      const m = (fft - k) % fft;
      const first = ((re[k] + re[m]) ** 2 + (im[k] - im[m]) ** 2) / 4;
      const second = ((im[k] + im[m]) ** 2 + (re[k] - re[m]) ** 2) / 4;
      sizes[0][k] = front.power === 1 ? Math.sqrt(first) : first;
      sizes[1][k] = front.power === 1 ? Math.sqrt(second) : second;
    }
    for (let r = 0; r < 2 && row + r < rows; r++) {
      filters.forEach(({ first, weights }, m) => {
        let energy = 0;
        for (let i = 0; i < weights.length; i++) energy += weights[i] * sizes[r][first + i];
        out[(row + r) * mels + m] = log ? Math.log(energy + front.offset) : energy;
      });
    }
  }
  return out;
}

/** What the model gets of frames (bytes) and of a log-mel: numbers around zero. */
export function normalizeFrames(rgb) {
  return Float32Array.from(rgb, (value) => value / 127.5 - 1);
}

export function normalizeMel(spec, front) {
  return spec.map((value) => (value - front.mean) / front.std);
}

/** A stream without content: black frames, or digital silence. */
export function blank(stream, config, front) {
  const count = config[`${stream}_shape`].reduce((a, b) => a * b) * (stream === "rgb" ? 3 : 1);
  const silence = front.compression === "log" ? Math.log(front.offset) : 0;
  return new Float32Array(count).fill(stream === "rgb" ? -1 : (silence - front.mean) / front.std);
}

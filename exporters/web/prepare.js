// From an image's pixels to the network's input, as `prepare` in the bundle's infer.py: to the bit what Pillow gives.
"use strict";
(() => {
  const BITS = 22; // of a weight: with them 8-bit pixels, and a sign, fill 32 bits
  const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
  // Filters of a distance x >= 0, zero from `reach` on; cubic convolution with a = -1/2 (Keys 1981).
  const FILTERS = {
    bilinear: { reach: 1, at: (x) => 1 - x },
    bicubic: { reach: 2, at: (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : (((x - 5) * x + 8) * x - 4) * -0.5) },
    lanczos: { reach: 3, at: (x) => sinc(x) * sinc(x / 3) },
  };

  /** Half to even, as Python rounds. */
  const round = (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

  /** For outputs `first` to `first + count` of a line scaled from `from` to `to` pixels: [first input, its weights]. */
  function taps(from, to, first, count, name) {
    const scale = from / to;
    if (name === "nearest") {
      const places = [];
      for (let i = 0, at = scale * 0.5; i < first + count; i++, at += scale) places.push(Math.min(from - 1, at | 0));
      return places.slice(first).map((place) => [place, [1 << BITS]]);
    }
    const { reach, at } = FILTERS[name];
    const wide = Math.max(scale, 1); // when shrinking, the filter is as wide as what becomes one pixel
    return Array.from({ length: count }, (_, i) => {
      const centre = (first + i + 0.5) * scale;
      const low = Math.max(0, Math.trunc(centre - reach * wide + 0.5));
      const high = Math.min(from, Math.trunc(centre + reach * wide + 0.5));
      const weights = [];
      let sum = 0;
      for (let x = low; x < high; x++) {
        const distance = Math.abs((x - centre + 0.5) * (1 / wide));
        weights.push(distance < reach ? at(distance) : 0);
        sum += weights[x - low];
      }
      return [low, weights.map((one) => Math.trunc((one / sum) * 2 ** BITS + (one < 0 ? -0.5 : 0.5)))];
    });
  }

  /** Weighted sums along one axis, rounded to 8 bits; pixel (i, j) is at i * across + j * along, C values each. */
  function pass(source, channels, lines, across, along, weights, outAcross, outAlong, out) {
    for (let line = 0; line < lines; line++) {
      weights.forEach(([first, factors], i) => {
        for (let channel = 0; channel < channels; channel++) {
          let sum = 1 << (BITS - 1);
          let at = line * across + first * along + channel;
          for (let k = 0; k < factors.length; k++, at += along) sum += source[at] * factors[k];
          out[line * outAcross + i * outAlong + channel] = sum >> BITS; // clamped to 0..255
        }
      });
    }
    return out;
  }

  /** Resize and crop RGBA pixels whose alpha is not looked at: Uint8ClampedArray [size, size, C]. */
  function resized({ data, width, height }, spec) {
    const { size, interpolation } = spec;
    const channels = spec.mean.length;
    let source = data;
    if (channels === 1) {
      source = new Uint8Array(width * height * 4);
      for (let i = 0; i < source.length; i += 4) {
        source[i] = (data[i] * 19595 + data[i + 1] * 38470 + data[i + 2] * 7471 + 0x8000) >> 16;
      }
    }
    const short = Math.trunc(size / spec.crop_pct);
    let [wide, high] = [short, short];
    if (spec.crop_mode !== "squash") {
      if (width <= height) high = Math.trunc((short * height) / width);
      else wide = Math.trunc((short * width) / height);
    }
    const columns = taps(width, wide, round((wide - size) / 2), size, interpolation);
    const rows = taps(height, high, round((high - size) / 2), size, interpolation);
    const top = Math.min(...rows.map(([first]) => first));
    const bottom = Math.max(...rows.map(([first, factors]) => first + factors.length));
    const line = size * channels;
    const below = source.subarray(top * width * 4);
    const narrow = new Uint8ClampedArray((bottom - top) * line);
    pass(below, channels, bottom - top, width * 4, 4, columns, line, channels, narrow); // Pillow's order
    const shifted = rows.map(([first, factors]) => [first - top, factors]);
    return pass(narrow, channels, size, channels, line, shifted, channels, line, new Uint8ClampedArray(size * line));
  }

  /** What the network takes: `pixels` [size, size, C], and of them `tensor` with its `dims`, as spec.input says. */
  globalThis.prepare = (image, spec) => {
    const { size, mean, std } = spec;
    const [pixels, channels, plane] = [resized(image, spec), mean.length, size * size];
    if (spec.input === "uint8") return { pixels, tensor: new Uint8Array(pixels), dims: [1, size, size, channels] };
    const tensor = new Float32Array(channels * plane);
    const { fround } = Math; // every step in float32, as numpy does it
    for (let channel = 0; channel < channels; channel++) {
      const [less, by] = [fround(mean[channel]), fround(std[channel])];
      for (let i = 0; i < plane; i++) {
        tensor[channel * plane + i] = fround(fround(pixels[i * channels + channel] / 255) - less) / by;
      }
    }
    return { pixels, tensor, dims: [1, channels, size, size] };
  };
})();

/** The labels of one image: strokes change them, and every stroke can be taken back. */

export const UNLABELLED = 255;

const BLOCK = 256; // pixels on a side of the squares that are copied before a stroke
const BAND = 2 ** 22; // pixels: a stroke is cut into bands of rows, so that a diagonal stays small

/** Return the smallest rectangle around two rectangles; null is the empty one. */
export function around(a, b) {
  if (!a || !b) return a || b;
  return {
    x0: Math.min(a.x0, b.x0),
    y0: Math.min(a.y0, b.y0),
    x1: Math.max(a.x1, b.x1),
    y1: Math.max(a.y1, b.y1),
  };
}

/** Return the rectangle that two rectangles share; null is the empty one. */
export function common(a, b) {
  const [x0, y0] = [Math.max(a.x0, b.x0), Math.max(a.y0, b.y0)];
  const [x1, y1] = [Math.min(a.x1, b.x1), Math.min(a.y1, b.y1)];
  return x0 < x1 && y0 < y1 ? { x0, y0, x1, y1 } : null;
}

/**
 * Return `bytes` as pairs of a value and a run length, the length in groups of seven bits.
 *
 * `bytes` is an array of its own buffer: runs are followed four bytes at a time.
 */
export function packRuns(bytes) {
  const { length } = bytes;
  const words = new Uint32Array(bytes.buffer, 0, length >> 2);
  const packed = [];
  let at = 0;
  while (at < length) {
    const value = bytes[at];
    const start = at++;
    while (at & 3 && bytes[at] === value) at++;
    if (!(at & 3)) {
      const four = value * 0x01010101;
      let word = at >> 2;
      while (word < words.length && words[word] === four) word++;
      at = word << 2;
      while (at < length && bytes[at] === value) at++;
    }
    packed.push(value);
    let run = at - start;
    for (; run > 127; run = Math.floor(run / 128)) packed.push((run & 127) | 128);
    packed.push(run);
  }
  return Uint8Array.from(packed);
}

/** Return the `length` bytes that `packRuns` packed. */
export function unpackRuns(packed, length) {
  const bytes = new Uint8Array(length);
  let at = 0;
  for (let i = 0; i < packed.length;) {
    const value = packed[i++];
    let run = 0;
    let unit = 1;
    for (; packed[i] > 127; unit *= 128) run += (packed[i++] & 127) * unit;
    run += packed[i++] * unit;
    bytes.fill(value, at, at + run);
    at += run;
  }
  return bytes;
}

/**
 * The labels of one image, (height, width) bytes: class indices, 255 where nothing is labelled.
 *
 * `dirty` is the rectangle that changed since somebody last set it to null.
 */
export class Labels {
  constructor(width, height, data = new Uint8Array(width * height).fill(UNLABELLED)) {
    if (data.length !== width * height) throw new RangeError(`${data.length} labels`);
    this.width = width;
    this.height = height;
    this.data = data;
    this.dirty = null;
    this.columns = Math.ceil(width / BLOCK);
    this.band = 2 ** Math.min(10, Math.floor(Math.log2(BAND / width))); // rows
    this.before = null; // block number -> its labels before the stroke
  }

  /** Return whether a pixel lies in the image. */
  holds(x, y) {
    return x >= 0 && y >= 0 && x < this.width && y < this.height;
  }

  /** Begin a stroke: from here on, changes are remembered. */
  begin() {
    this.before = new Map();
    this.bands = new Map(); // band number -> rectangle that changed in it
  }

  /**
   * Paint the pixels x0 to x1 - 1 of row y, as far as they lie in the image.
   *
   * `keeps` is null, or a table of 256 bytes: labels with a 1 there stay as they are.
   */
  paint(y, x0, x1, value, keeps = null) {
    x0 = Math.max(0, x0);
    x1 = Math.min(this.width, x1);
    if (y < 0 || y >= this.height || x0 >= x1) return;
    const rectangle = { x0, y0: y, x1, y1: y + 1 };
    this.#remember(rectangle);
    const row = y * this.width;
    if (keeps) {
      for (let i = row + x0; i < row + x1; i++) if (!keeps[this.data[i]]) this.data[i] = value;
    } else {
      this.data.fill(value, row + x0, row + x1);
    }
    const band = Math.floor(y / this.band);
    this.bands.set(band, around(this.bands.get(band), rectangle));
    this.dirty = around(this.dirty, rectangle);
  }

  #remember({ x0, y0, x1 }) {
    const row = Math.floor(y0 / BLOCK);
    for (let column = Math.floor(x0 / BLOCK); column * BLOCK < x1; column++) {
      const block = row * this.columns + column;
      if (this.before.has(block)) continue;
      const left = column * BLOCK;
      const top = row * BLOCK;
      const right = Math.min(left + BLOCK, this.width);
      this.before.set(block, this.#cut(left, top, right, Math.min(top + BLOCK, this.height)));
    }
  }

  #cut(x0, y0, x1, y1) {
    const part = new Uint8Array((x1 - x0) * (y1 - y0));
    for (let y = y0; y < y1; y++) {
      const start = y * this.width;
      part.set(this.data.subarray(start + x0, start + x1), (y - y0) * (x1 - x0));
    }
    return part;
  }

  #cutBefore({ x0, y0, x1, y1 }) {
    const part = this.#cut(x0, y0, x1, y1);
    for (const [block, old] of this.before) {
      const left = (block % this.columns) * BLOCK;
      const top = Math.floor(block / this.columns) * BLOCK;
      const wide = Math.min(BLOCK, this.width - left);
      const from = Math.max(x0, left);
      const to = Math.min(x1, left + wide);
      if (from >= to) continue;
      const last = Math.min(y1, top + BLOCK, this.height);
      for (let y = Math.max(y0, top); y < last; y++) {
        const start = (y - top) * wide - left;
        part.set(old.subarray(start + from, start + to), (y - y0) * (x1 - x0) + from - x0);
      }
    }
    return part;
  }

  /**
   * End the stroke. Yield its patches, none if it changed nothing. Each takes a little work, and
   * the rest may wait for the next task. Nothing may change the labels before the end.
   *
   * A patch is `{x, y, width, height, before, after}`, the last two packed runs.
   */
  *end() {
    for (const box of this.bands.values()) {
      const before = packRuns(this.#cutBefore(box));
      const after = packRuns(this.#cut(box.x0, box.y0, box.x1, box.y1));
      if (before.length === after.length && before.every((b, i) => b === after[i])) continue;
      const size = { width: box.x1 - box.x0, height: box.y1 - box.y0 };
      yield { x: box.x0, y: box.y0, ...size, before, after };
    }
    this.before = this.bands = null;
  }

  /** Take the stroke that is being painted back. */
  cancel() {
    for (const box of this.bands.values()) this.#put(box, this.#cutBefore(box));
    this.before = this.bands = null;
  }

  /** Set the labels of patches to one of their sides, "before" or "after". */
  apply(patches, side) {
    for (const { x, y, width, height, [side]: packed } of patches) {
      const box = { x0: x, y0: y, x1: x + width, y1: y + height };
      this.#put(box, unpackRuns(packed, width * height));
    }
  }

  #put(box, part) {
    const wide = box.x1 - box.x0;
    for (let y = box.y0; y < box.y1; y++) {
      const start = (y - box.y0) * wide;
      this.data.set(part.subarray(start, start + wide), y * this.width + box.x0);
    }
    this.dirty = around(this.dirty, box);
  }
}

/** The strokes of one image that can be undone and redone; the oldest go when memory is short. */
export class History {
  constructor(limit = 256 * 2 ** 20) {
    this.limit = limit; // bytes
    this.bytes = 0;
    this.done = [];
    this.undone = [];
  }

  /** Add a stroke. Strokes undone before it are gone. */
  push(patches) {
    for (const stroke of this.undone) this.bytes -= weight(stroke);
    this.undone = [];
    this.done.push(patches);
    this.bytes += weight(patches);
    while (this.bytes > this.limit && this.done.length > 1) this.bytes -= weight(this.done.shift());
  }

  /** Return the patches whose "before" takes the last stroke back, or null. */
  undo() {
    if (!this.done.length) return null;
    this.undone.push(this.done.pop());
    return this.undone.at(-1);
  }

  /** Return the patches whose "after" brings the last undone stroke again, or null. */
  redo() {
    if (!this.undone.length) return null;
    this.done.push(this.undone.pop());
    return this.done.at(-1);
  }
}

function weight(patches) {
  return patches.reduce((sum, p) => sum + p.before.length + p.after.length + 100, 0);
}

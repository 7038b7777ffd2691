/** Labels and the answer as coloured tiles, drawn again where they changed and are seen. */

import { UNLABELLED, around, common } from "./labels.js";
import { levelFor, tilesIn } from "./view.js";

const TILE = 512; // pixels of a level on a side of a tile
const KEPT = 64; // tiles in memory, a megabyte each
const ROWS = 32; // of a tile that are painted between two looks at the clock
const PALER = 0.45; // of a stroke's opacity that the answer has

/** Return the 256 colours of labels as RGBA in one number; `alpha` is 0 to 1. */
function table(colours, alpha) {
  const entries = new Uint32Array(256);
  const bytes = new Uint8Array(entries.buffer);
  colours.slice(0, UNLABELLED).forEach((colour, i) => {
    const rgb = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
    bytes.set([...rgb, Math.round(alpha * 255)], i * 4);
  });
  return entries;
}

/** The overlay of one image. `colours` are "#rrggbb", one a class. */
export class Overlay {
  constructor(labels, colours) {
    this.labels = labels;
    this.answer = null; // {width, height, data}
    this.tiles = new Map(); // key -> {canvas, stale rectangle of the image or null}
    this.pixels = new ImageData(TILE, TILE);
    this.words = new Uint32Array(this.pixels.data.buffer);
    this.recolour(colours);
  }

  // After a new colour or a new answer the caller says which part has `changed`.

  recolour(colours) {
    this.strokes = table(colours, 1);
    this.pale = table(colours, PALER);
  }

  /** Note that a rectangle of the image changed. */
  changed(rectangle) {
    for (const tile of this.tiles.values()) {
      tile.stale = around(tile.stale, common(rectangle, tile));
    }
  }

  /**
   * Draw the part in `rectangle`; `place(tile)` is where on the canvas a tile stands.
   *
   * Return whether all is drawn: when `deadline` (of performance.now) passes, the rest keeps its
   * former look, and has to be drawn in the next frame.
   */
  draw(context, rectangle, scale, place, deadline) {
    const level = levelFor(scale, 30);
    let complete = true;
    context.imageSmoothingEnabled = scale < 1;
    for (const seen of tilesIn(rectangle, level, TILE, this.labels)) {
      const tile = this.#tile(seen);
      if (tile.stale && performance.now() < deadline) this.#paint(tile, deadline);
      complete &&= !tile.stale;
      context.drawImage(tile.canvas, ...place(tile));
    }
    return complete;
  }

  #tile(seen) {
    let tile = this.tiles.get(seen.key);
    if (tile) {
      this.tiles.delete(seen.key);
    } else {
      const step = 2 ** seen.level;
      const wide = Math.ceil((seen.x1 - seen.x0) / step);
      const high = Math.ceil((seen.y1 - seen.y0) / step);
      const canvas = new OffscreenCanvas(wide, high);
      const { x0, y0, x1, y1 } = seen;
      tile = { ...seen, canvas, context: canvas.getContext("2d"), stale: { x0, y0, x1, y1 } };
      if (this.tiles.size >= KEPT) this.tiles.delete(this.tiles.keys().next().value);
    }
    this.tiles.set(seen.key, tile);
    return tile;
  }

  #paint(tile, deadline) {
    const step = 2 ** tile.level;
    const left = Math.floor((tile.stale.x0 - tile.x0) / step);
    const top = Math.floor((tile.stale.y0 - tile.y0) / step);
    const right = Math.ceil((tile.stale.x1 - tile.x0) / step);
    const bottom = Math.ceil((tile.stale.y1 - tile.y0) / step);
    let y = top;
    do {
      const end = Math.min(y + ROWS, bottom);
      for (; y < end; y++) this.#paintRow(tile, y, left, right);
    } while (y < bottom && performance.now() < deadline);
    tile.context.putImageData(this.pixels, 0, 0, left, top, right - left, y - top);
    tile.stale = y < bottom ? { ...tile.stale, y0: tile.y0 + y * step } : null;
  }

  // A pixel of a coarser level takes the first label among four in its square: a thin line stays.
  #paintRow(tile, y, left, right) {
    const { width, height, data } = this.labels;
    const { answer, strokes, pale, words } = this;
    const step = 2 ** tile.level;
    const quarter = step >> 2;
    const far = step > 1 ? quarter + (step >> 1) : 0;
    const upper = Math.min(tile.y0 + y * step + quarter, height - 1) * width;
    const lower = Math.min(tile.y0 + y * step + far, height - 1) * width;
    const middle = Math.min(tile.y0 + y * step + (step >> 1), height - 1);
    const answerRow = answer && Math.floor((middle * answer.height) / height) * answer.width;
    const ratio = answer && answer.width / width;
    const row = y * TILE;
    for (let x = left; x < right; x++) {
      const start = tile.x0 + x * step;
      const one = Math.min(start + quarter, width - 1);
      const two = Math.min(start + far, width - 1);
      let label = data[upper + one];
      if (label === UNLABELLED && step > 1) {
        label = data[upper + two];
        if (label === UNLABELLED) label = data[lower + one];
        if (label === UNLABELLED) label = data[lower + two];
      }
      if (label !== UNLABELLED || !answer) {
        words[row + x] = strokes[label];
      } else {
        const column = Math.floor(Math.min(start + (step >> 1), width - 1) * ratio);
        words[row + x] = pale[answer.data[answerRow + column]];
      }
    }
  }
}

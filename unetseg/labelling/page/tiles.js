/** The picture of one image, fetched in tiles as they are seen. */

import { highestLevel, levelFor, tilesIn } from "./view.js";

export const TILE = 512; // pixels of a level on a side of a tile
const KEPT = 192; // tiles in memory, a megabyte each
const AT_ONCE = 4; // requests

/** Tiles of an image `{width, height}`; `address(level, x, y)` is where a tile is fetched. */
export class Picture {
  constructor(image, address, onTile) {
    this.image = image;
    this.address = address;
    this.onTile = onTile;
    this.top = highestLevel(image, TILE);
    this.tiles = new Map(); // key -> bitmap, null while it is fetched; the oldest first
    this.wanted = [];
    this.running = 0;
    this.failed = new Map(); // key -> when it may be asked for again
    this.stopped = new AbortController();
  }

  /** Stop fetching, and give the memory back. */
  close() {
    this.stopped.abort();
    for (const bitmap of this.tiles.values()) bitmap?.close();
    this.tiles.clear();
  }

  /** Draw a rectangle of the image; `place(tile)` is where on the canvas a tile stands. */
  draw(context, rectangle, scale, place) {
    const level = levelFor(scale, this.top);
    const missing = [];
    context.imageSmoothingEnabled = scale < 2; // larger pixels are shown as they are
    for (const tile of this.#tilesAt(level, rectangle)) {
      const bitmap = this.#loaded(tile);
      if (bitmap) {
        context.drawImage(bitmap, ...place(tile));
        continue;
      }
      const covered = this.#drawCoarser(context, tile, place);
      if (!covered) missing.push(...this.#tilesAt(this.top, tile));
      missing.push(tile);
    }
    this.#fetch(missing);
  }

  #tilesAt(level, rectangle) {
    return tilesIn(rectangle, level, TILE, this.image);
  }

  #loaded({ key }) {
    const bitmap = this.tiles.get(key);
    if (bitmap) {
      this.tiles.delete(key);
      this.tiles.set(key, bitmap);
    }
    return bitmap;
  }

  #drawCoarser(context, tile, place) {
    for (let level = tile.level + 1; level <= this.top; level++) {
      const [coarse] = this.#tilesAt(level, tile);
      const bitmap = this.#loaded(coarse);
      if (!bitmap) continue;
      const [sx, sy] = [tile.x0 - coarse.x0, tile.y0 - coarse.y0].map((v) => v / 2 ** level);
      const [sw, sh] = [tile.x1 - tile.x0, tile.y1 - tile.y0].map((v) => v / 2 ** level);
      context.drawImage(bitmap, sx, sy, sw, sh, ...place(tile));
      return true;
    }
    return false;
  }

  #fetch(missing) {
    this.wanted = missing;
    while (this.running < AT_ONCE && this.wanted.length) this.#fetchOne(this.wanted.shift());
  }

  async #fetchOne(tile) {
    const { key } = tile;
    if (this.tiles.has(key) || performance.now() < this.failed.get(key)) return;
    this.tiles.set(key, null);
    this.running++;
    try {
      const answer = await fetch(this.address(tile.level, tile.x, tile.y), {
        signal: this.stopped.signal,
      });
      if (!answer.ok) throw new Error(`${answer.status}`);
      const bitmap = await createImageBitmap(await answer.blob());
      if (this.stopped.signal.aborted) return bitmap.close();
      this.tiles.set(key, bitmap);
      this.#forgetOldest();
    } catch {
      this.tiles.delete(key);
      this.failed.set(key, performance.now() + 2000);
      setTimeout(() => this.stopped.signal.aborted || this.onTile(), 2100); // then ask again
    } finally {
      this.running--;
    }
    if (this.stopped.signal.aborted) return;
    this.onTile();
    this.#fetch(this.wanted);
  }

  #forgetOldest() {
    for (const [key, bitmap] of this.tiles) {
      if (this.tiles.size <= KEPT) return;
      if (!bitmap || key === `${this.top}/0/0`) continue;
      bitmap.close();
      this.tiles.delete(key);
    }
  }
}

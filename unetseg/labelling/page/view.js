/**
 * Which part of an image is seen, and how large: pure geometry.
 *
 * A view is `{x, y, scale}`. The image's point (x, y) stands in the middle of the canvas, and a
 * pixel of the image is `scale` pixels of the canvas wide.
 */

const MAX_SCALE = 40; // pixels of the canvas for a pixel of the image
const MARGIN = 0.94; // of the canvas that a fitted image fills

/** Return the view in which the whole image is seen. */
export function fitted(image, canvas) {
  const scale = Math.min(canvas.width / image.width, canvas.height / image.height) * MARGIN;
  return { x: image.width / 2, y: image.height / 2, scale: Math.min(scale, MAX_SCALE) };
}

/** Return the view in which a box [x, y, width, height] is seen with its surroundings. */
export function around(box, image, canvas) {
  const [x, y, width, height] = box;
  const near = fitted({ width: width * 2, height: height * 2 }, canvas).scale;
  return limited({ x: x + width / 2, y: y + height / 2, scale: near }, image, canvas);
}

/** Return a view that is neither too close nor too far, with its middle in the image. */
export function limited(view, image, canvas) {
  const least = Math.min(1, fitted(image, canvas).scale / 2);
  return {
    x: Math.min(Math.max(view.x, 0), image.width),
    y: Math.min(Math.max(view.y, 0), image.height),
    scale: Math.min(Math.max(view.scale, least), MAX_SCALE),
  };
}

/** Return the point of the image at the point (x, y) of the canvas. */
export function toImage(view, canvas, x, y) {
  return [
    view.x + (x - canvas.width / 2) / view.scale,
    view.y + (y - canvas.height / 2) / view.scale,
  ];
}

/** Return the point of the canvas at the point (x, y) of the image. */
export function toCanvas(view, canvas, x, y) {
  return [
    (x - view.x) * view.scale + canvas.width / 2,
    (y - view.y) * view.scale + canvas.height / 2,
  ];
}

/** Return the view after a zoom that leaves the point (x, y) of the canvas where it is. */
export function zoomed(view, factor, x, y, image, canvas) {
  const [px, py] = toImage(view, canvas, x, y);
  const { scale } = limited({ ...view, scale: view.scale * factor }, image, canvas);
  const moved = {
    x: px - (x - canvas.width / 2) / scale,
    y: py - (y - canvas.height / 2) / scale,
    scale,
  };
  return limited(moved, image, canvas);
}

/** Return the view after the image was moved by (dx, dy) pixels of the canvas. */
export function moved(view, dx, dy, image, canvas) {
  const { scale } = view;
  return limited({ x: view.x - dx / scale, y: view.y - dy / scale, scale }, image, canvas);
}

/** Return the level of the pyramid that has at least a pixel for a pixel of the canvas. */
export function levelFor(scale, highest) {
  return Math.min(highest, Math.max(0, Math.floor(Math.log2(1 / scale) + 1e-9)));
}

/** Return the first level at which an image fits into one tile. */
export function highestLevel(image, side) {
  return Math.max(0, Math.ceil(Math.log2(Math.max(image.width, image.height) / side)));
}

/**
 * Yield the tiles of a level that a rectangle of the image touches. A tile is
 * `{key, level, x, y, x0, y0, x1, y1}`, the last four in pixels of the image; `key` tells it from
 * all other tiles of the image.
 */
export function* tilesIn(rectangle, level, side, image) {
  const step = side * 2 ** level;
  const right = Math.min(rectangle.x1, image.width);
  const bottom = Math.min(rectangle.y1, image.height);
  for (let y = Math.floor(Math.max(0, rectangle.y0) / step); y * step < bottom; y++) {
    for (let x = Math.floor(Math.max(0, rectangle.x0) / step); x * step < right; x++) {
      const x1 = Math.min((x + 1) * step, image.width);
      const y1 = Math.min((y + 1) * step, image.height);
      const key = `${level}/${x}/${y}`;
      yield { key, level, x, y, x0: x * step, y0: y * step, x1, y1 };
    }
  }
}

/** Return the rectangle of the image that the canvas shows. */
export function visible(view, image, canvas) {
  const [x0, y0] = toImage(view, canvas, 0, 0);
  const [x1, y1] = toImage(view, canvas, canvas.width, canvas.height);
  return {
    x0: Math.max(0, Math.floor(x0)),
    y0: Math.max(0, Math.floor(y0)),
    x1: Math.min(image.width, Math.ceil(x1)),
    y1: Math.min(image.height, Math.ceil(y1)),
  };
}

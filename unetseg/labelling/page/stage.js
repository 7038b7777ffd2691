/**
 * The middle of the page: three canvases above one another (picture, labels, hints), drawn again
 * where something changed, at most once a frame.
 */

import { Overlay } from "./overlay.js";
import { Picture } from "./tiles.js";
import { around, common } from "./labels.js";
import * as geometry from "./view.js";

const FRAME = 10; // milliseconds that new overlay tiles may take of a frame

export class Stage {
  /** `root` holds canvases with the classes "picture", "labels" and "hints". */
  constructor(root, onView) {
    this.root = root;
    this.onView = onView;
    this.layers = ["picture", "labels", "hints"].map((name) => root.querySelector(`.${name}`));
    this.contexts = this.layers.map((canvas) => canvas.getContext("2d"));
    this.size = { width: 1, height: 1 };
    this.image = null;
    this.view = null;
    this.opacity = 0.6;
    this.drawHints = () => {};
    this.pending = { picture: false, labels: null, hints: false };
    this.requested = false;
    new ResizeObserver(() => this.#resize()).observe(root);
  }

  /**
   * Show an image `{number, width, height}` with its labels; `address` is where its tiles are. An
   * image that is shown already stays where it is.
   */
  open(image, labels, colours, address) {
    const view = image.number === this.image?.number ? this.view : null;
    this.close();
    this.image = image;
    this.overlay = new Overlay(labels, colours);
    this.repicture(address);
    if (view) this.#look(view);
    else this.fit();
  }

  close() {
    this.picture?.close();
    this.image = this.overlay = this.picture = null;
    this.contexts.forEach((c) => c.clearRect(0, 0, this.size.width, this.size.height));
  }

  /** Fetch the tiles from other addresses: another contrast, other channels. */
  repicture(address) {
    this.picture?.close();
    this.picture = new Picture(this.image, address, () => this.#ask({ picture: true }));
    this.#ask({ picture: true });
  }

  /** Draw a changed rectangle of the image again, or the whole overlay. */
  relabel(rectangle = { x0: 0, y0: 0, x1: this.image.width, y1: this.image.height }) {
    this.overlay.changed(rectangle);
    this.#ask({ labels: rectangle });
  }

  setAnswer(answer) {
    this.overlay.answer = answer;
    this.relabel();
  }

  recolour(colours) {
    this.overlay.recolour(colours);
    this.relabel();
  }

  setOpacity(opacity) {
    this.opacity = opacity;
    if (this.image) this.#ask({ labels: this.#seen });
  }

  hide(hidden) {
    this.layers[1].hidden = hidden;
  }

  rehint() {
    this.#ask({ hints: true });
  }

  /** Return the point of the image under an event of the mouse, not rounded. */
  at(event) {
    return geometry.toImage(this.view, this.size, ...this.#point(event));
  }

  /** Return the point of the canvas at a point of the image. */
  place(x, y) {
    return geometry.toCanvas(this.view, this.size, x, y);
  }

  #point(event) {
    const box = this.root.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top].map((v) => v * this.ratio);
  }

  fit() {
    if (!this.image) return;
    this.fitted = true;
    this.#look(geometry.fitted(this.image, this.size));
  }

  /** Show a pixel of the image as a pixel of the screen. */
  actual() {
    this.zoom(1 / this.view?.scale);
  }

  /** Zoom by a factor, about the point of an event or about the middle. */
  zoom(factor, event = null) {
    if (!this.image) return;
    const { width, height } = this.size;
    const [x, y] = event ? this.#point(event) : [width / 2, height / 2];
    this.fitted = false;
    this.#look(geometry.zoomed(this.view, factor, x, y, this.image, this.size));
  }

  /** Move the image by pixels of the page. */
  pan(dx, dy) {
    if (!this.image) return;
    this.fitted = false;
    const [x, y] = [dx * this.ratio, dy * this.ratio];
    this.#look(geometry.moved(this.view, x, y, this.image, this.size));
  }

  /** Show a box [x, y, width, height] of the image. */
  lookAt(box) {
    this.fitted = false;
    this.#look(geometry.around(box, this.image, this.size));
  }

  #look(view) {
    this.view = view;
    this.onView(view.scale);
    this.#ask({ picture: true, labels: this.#seen, hints: true });
  }

  get #seen() {
    return geometry.visible(this.view, this.image, this.size);
  }

  #resize() {
    this.ratio = window.devicePixelRatio || 1;
    const box = this.root.getBoundingClientRect();
    this.size = {
      width: Math.max(1, Math.round(box.width * this.ratio)),
      height: Math.max(1, Math.round(box.height * this.ratio)),
    };
    for (const canvas of this.layers) Object.assign(canvas, this.size);
    if (!this.image) return;
    const fit = geometry.fitted(this.image, this.size);
    this.#look(this.fitted ? fit : geometry.limited(this.view, this.image, this.size));
    this.#frame(); // a new size empties the canvases: not a frame without a picture
  }

  #ask({ picture = false, labels = null, hints = false }) {
    this.pending.picture ||= picture;
    this.pending.labels = around(this.pending.labels, labels);
    this.pending.hints ||= hints;
    if (this.requested) return;
    this.requested = true;
    requestAnimationFrame(() => {
      this.requested = false;
      this.#frame();
    });
  }

  #frame() {
    if (!this.image) return;
    const deadline = performance.now() + FRAME;
    const { picture, labels, hints } = this.pending;
    this.pending = { picture: false, labels: null, hints: false };
    if (picture) this.#drawPicture();
    if (labels) this.#drawLabels(labels, deadline);
    if (hints) {
      this.contexts[2].clearRect(0, 0, this.size.width, this.size.height);
      this.drawHints(this.contexts[2]);
    }
  }

  // Tiles stand on whole pixels of the canvas: no seam is seen between them.
  #box({ x0, y0, x1, y1 }) {
    const [left, top] = this.place(x0, y0).map(Math.round);
    const [right, bottom] = this.place(x1, y1).map(Math.round);
    return [left, top, right - left, bottom - top];
  }

  #drawPicture() {
    const [context] = this.contexts;
    context.clearRect(0, 0, this.size.width, this.size.height);
    this.picture.draw(context, this.#seen, this.view.scale, (tile) => this.#box(tile));
  }

  #drawLabels(rectangle, deadline) {
    const context = this.contexts[1];
    const seen = this.#seen;
    const part = common(rectangle, seen);
    if (!part) return;
    const whole = ["x0", "y0", "x1", "y1"].every((side) => part[side] === seen[side]);
    context.save();
    if (whole) {
      context.clearRect(0, 0, this.size.width, this.size.height);
    } else {
      const [x, y, width, height] = this.#box(part);
      const spare = Math.ceil(this.view.scale) + 2; // smoothing and rounding reach a little further
      const box = [x - spare, y - spare, width + 2 * spare, height + 2 * spare];
      context.clearRect(...box);
      context.beginPath();
      context.rect(...box);
      context.clip();
      const more = Math.ceil(spare / this.view.scale) + 1;
      part.x0 -= more;
      part.y0 -= more;
      part.x1 += more;
      part.y1 += more;
    }
    context.globalAlpha = this.opacity;
    const { scale } = this.view;
    const place = (tile) => this.#box(tile);
    const complete = this.overlay.draw(context, part, scale, place, deadline);
    context.restore();
    if (!complete) this.#ask({ labels: rectangle });
  }
}

/** From the pointer to pixels: the work of each tool between pressing and letting go. */

import { UNLABELLED } from "./labels.js";
import * as shapes from "./shapes.js";

const ERASER = 5; // the button that browsers report for the other end of a pen
const NEAR = 8; // pixels of the page: a click this near to the first corner closes a polygon
const ONLY_UNLABELLED = Uint8Array.from({ length: 256 }, (_, label) => +(label !== UNLABELLED));

/**
 * A tool has `press(x, y, how)`, `move(x, y)`, `release()`, `cancel()` and `draw(context)`. Points
 * are in pixels of the image. `how` tells `erase` and `shift`.
 */
class Brush {
  constructor(session, erases = false) {
    this.session = session;
    this.erases = erases;
    this.last = null; // where the last stroke ended: shift and press draws a line from there
  }

  press(x, y, { erase, shift }) {
    const { session } = this;
    this.value = erase || this.erases ? UNLABELLED : session.current;
    this.keeps = session.keeps;
    this.painting = true;
    const from = shift && this.last?.labels === session.labels ? this.last.point : null;
    this.at = shapes.snapped(x, y, session.size);
    session.begin();
    this.line(from || this.at, this.at);
  }

  move(x, y) {
    if (!this.painting) return;
    const to = shapes.snapped(x, y, this.session.size);
    if (to[0] === this.at[0] && to[1] === this.at[1]) return;
    this.line(this.at, to);
    this.at = to;
  }

  line(from, to) {
    const { labels, size } = this.session;
    const paint = (y, x0, x1) => labels.paint(y, x0, x1, this.value, this.keeps);
    shapes.capsule(...from, ...to, size / 2, this.limited(paint, from, to));
  }

  limited(paint) {
    return paint;
  }

  release() {
    if (!this.painting) return;
    this.painting = false;
    this.last = { point: this.at, labels: this.session.labels };
    this.session.commit();
  }

  cancel() {
    if (!this.painting) return;
    this.painting = false;
    this.session.labels.cancel();
  }

  draw(context, stage, pointer) {
    if (!pointer) return;
    const [x, y] = stage.place(...shapes.snapped(...pointer, this.session.size));
    const radius = Math.max(1.5, (this.session.size / 2) * stage.view.scale);
    ring(context, x, y, radius, stage.ratio);
    if (radius > 8 * stage.ratio) ring(context, x, y, stage.ratio, stage.ratio);
  }
}

/** A brush that paints only in regions that its middle has touched in this stroke. */
class EdgeBrush extends Brush {
  press(x, y, how) {
    const { session } = this;
    if (!session.regions) {
      session.loadRegions();
      return session.say("The edges of this image are being found; try again in a moment.");
    }
    if (this.regions !== session.regions) {
      this.regions = session.regions;
      this.touched = new Uint8Array(this.regions.data.reduce((a, b) => (a > b ? a : b), 0) + 1);
    }
    this.touched.fill(0);
    super.press(x, y, how);
  }

  limited(paint, [ax, ay], [bx, by]) {
    const { labels } = this.session;
    const { width, height } = labels;
    const steps = Math.ceil(Math.max(Math.abs(bx - ax), Math.abs(by - ay), 1));
    for (let i = 0; i <= steps; i++) {
      const x = Math.floor(ax + ((bx - ax) * i) / steps);
      const y = Math.floor(ay + ((by - ay) * i) / steps);
      if (!labels.holds(x, y)) continue;
      this.touched[shapes.valueAt(this.regions, x, y, width, height)] = 1;
    }
    return shapes.within(this.regions, this.touched, width, height, paint);
  }
}

/** A polygon by clicks on its corners, or a lasso by one drag around an area. */
class Lasso {
  constructor(session) {
    this.session = session;
    this.points = [];
  }

  press(x, y, { erase }) {
    const { stage } = this.session;
    this.pressed = [x, y];
    this.dragged = false;
    if (!this.points.length) this.erase = erase;
    const first = this.points.length > 2 && this.points[0];
    const near = first && Math.hypot(x - first[0], y - first[1]) * stage.view.scale;
    if (first && near < NEAR * stage.ratio) {
      this.pressed = null;
      this.close();
    } else {
      this.points.push([x, y]);
    }
    stage.rehint();
  }

  move(x, y) {
    if (!this.pressed) return;
    const { stage } = this.session;
    const far = Math.hypot(x - this.pressed[0], y - this.pressed[1]) * stage.view.scale;
    if (far > 4 * stage.ratio) this.dragged = true;
    if (this.dragged) this.points.push([x, y]);
    stage.rehint();
  }

  release() {
    const closes = this.pressed && this.dragged;
    this.pressed = null;
    if (closes) this.close();
  }

  /** Fill the area. Return whether there was one. */
  close() {
    const { session, points } = this;
    if (!points.length) return false;
    const value = this.erase ? UNLABELLED : session.current;
    this.points = [];
    if (points.length > 2) {
      const { keeps, labels } = session;
      session.begin();
      shapes.polygon(points, (y, x0, x1) => labels.paint(y, x0, x1, value, keeps));
      session.commit();
    }
    session.stage.rehint();
    return true;
  }

  /** Take the last corner back. */
  back() {
    this.points.pop();
    this.session.stage.rehint();
  }

  cancel() {
    this.points = [];
    this.pressed = null;
    this.session.stage.rehint();
  }

  draw(context, stage, pointer) {
    if (!this.points.length) return;
    const line = this.points.map((point) => stage.place(...point));
    if (pointer && !this.dragged) line.push(stage.place(...pointer));
    context.beginPath();
    line.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    twice(context, stage.ratio);
    if (!this.dragged) ring(context, ...line[0], NEAR * stage.ratio, stage.ratio);
  }
}

/** A click takes the connected region of the answer as labels; with shift as the current class. */
class Take {
  constructor(session) {
    this.session = session;
  }

  press(x, y, { erase, shift }) {
    const { session } = this;
    const { labels, answer } = session;
    const { width, height } = labels;
    const [column, row] = [Math.floor(x), Math.floor(y)];
    if (!labels.holds(column, row)) return;
    const label = labels.data[row * width + column];
    const own = label !== UNLABELLED;
    if (own && !shift && !erase) {
      return session.say("This pixel is labelled already. Shift and click recolours its region.");
    }
    if (!own && !answer) {
      return session.say("There is no prediction yet: paint strokes of two classes first.");
    }
    const map = own ? labels : answer;
    const at = shapes.pixelOf(map, column, row, width, height);
    const found = shapes.valueAt(map, column, row, width, height);
    const value = erase ? UNLABELLED : shift ? session.current : found;
    if (value === UNLABELLED && !erase) return;
    const keeps = own ? session.keeps : ONLY_UNLABELLED; // strokes on the region stay as they are
    const spans = [];
    shapes.component(map, ...at, (...span) => spans.push(span));
    session.begin();
    const paint = (y, x0, x1) => labels.paint(y, x0, x1, value, keeps);
    const place = shapes.enlarged(map, width, height, paint);
    for (const span of spans) place(...span);
    session.commit();
  }

  move() {}
  release() {}
  cancel() {}
  draw() {}
}

export const TOOLS = [
  { name: "brush", title: "Brush", does: "paints the chosen class", make: (s) => new Brush(s) },
  { name: "eraser", title: "Eraser", does: "takes labels away", make: (s) => new Brush(s, true) },
  {
    name: "edges",
    title: "Edges",
    does: "a brush that stops at edges",
    make: (s) => new EdgeBrush(s),
  },
  {
    name: "lasso",
    title: "Lasso",
    does: "fills an area: drag around it, or click its corners",
    make: (s) => new Lasso(s),
  },
  {
    name: "take",
    title: "Region",
    does: "labels a region of the prediction with a click; with Shift as the chosen class",
    make: (s) => new Take(s),
  },
];

/** A white line beside a black one is seen on every picture. */
function twice(context, ratio) {
  context.lineJoin = "round";
  context.lineWidth = 3 * ratio;
  context.strokeStyle = "rgb(0 0 0 / 70%)";
  context.stroke();
  context.lineWidth = 1.25 * ratio;
  context.strokeStyle = "white";
  context.stroke();
}

function ring(context, x, y, radius, ratio) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  twice(context, ratio);
}

/** The pointer over the stage: mouse, pen, touch, or the keyboard. */
export class Pointer {
  constructor(session, stage) {
    this.session = session;
    this.stage = stage;
    this.tools = Object.fromEntries(TOOLS.map(({ name, make }) => [name, make(session)]));
    this.point = null; // in pixels of the image
    this.space = false; // held: a drag moves the image
    this.active = null; // the tool that is pressed
    this.panning = null;
    this.pointer = null; // the mouse, finger or pen that is down
    const { root } = stage;
    root.addEventListener("pointerdown", (e) => this.#down(e));
    root.addEventListener("pointermove", (e) => this.#move(e));
    root.addEventListener("pointerup", (e) => this.#up(e));
    root.addEventListener("pointercancel", (e) => this.#up(e));
    root.addEventListener("pointerleave", () => this.#leave());
    root.addEventListener("contextmenu", (e) => e.preventDefault());
    root.addEventListener("dblclick", () => this.tool.close?.());
    root.addEventListener("wheel", (e) => this.#wheel(e), { passive: false });
    session.addEventListener("leave", () => this.cancel());
    stage.drawHints = (context) => this.tool.draw(context, stage, this.point);
  }

  get tool() {
    return this.tools[this.session.tool];
  }

  /** Give up the shape that is being drawn. */
  cancel() {
    this.active = null;
    if (!this.session.labels) return;
    this.tool.cancel();
    this.session.redraw();
  }

  #press(how) {
    const { session } = this;
    if (!session.labels || session.busy || this.active) return;
    if (session.behind) return void session.open(session.image.number);
    if (!session.project.classes.length) return session.say("Add a class first: press A.");
    this.active = this.tool;
    this.active.press(...this.point, how);
    session.redraw();
  }

  #release() {
    this.active?.release();
    this.active = null;
    this.session.redraw();
  }

  #down(event) {
    if (!this.session.labels || this.#isOther(event) || event.target.closest(".notice")) return;
    this.pointer = event.pointerId;
    this.stage.root.focus({ preventScroll: true });
    this.stage.root.setPointerCapture(event.pointerId);
    this.point = this.stage.at(event);
    if (event.button === 1 || (event.button === 0 && this.space)) {
      event.preventDefault();
      this.panning = [event.clientX, event.clientY];
    } else if ([0, 2, ERASER].includes(event.button)) {
      this.#press({ erase: event.button !== 0, shift: event.shiftKey });
    }
  }

  /** Return whether a second finger or the palm came beside the pointer that is down. */
  #isOther(event) {
    return this.pointer !== null && this.pointer !== event.pointerId;
  }

  #move(event) {
    if (!this.session.labels || this.#isOther(event)) return;
    this.point = this.stage.at(event);
    this.stage.rehint();
    if (this.panning) {
      const [x, y] = this.panning;
      this.stage.pan(event.clientX - x, event.clientY - y);
      this.panning = [event.clientX, event.clientY];
    } else if (this.active) {
      const steps = event.getCoalescedEvents?.() ?? []; // missing without https, but on localhost
      for (const step of steps.length ? steps : [event]) this.active.move(...this.stage.at(step));
      this.session.redraw();
    }
  }

  #up(event) {
    if (this.#isOther(event)) return;
    this.pointer = this.panning = null;
    if (event.type === "pointercancel") this.cancel();
    else this.#release();
  }

  #leave() {
    if (this.active) return; // the keyboard's pen is down
    this.point = null;
    if (this.stage.image) this.stage.rehint();
  }

  // A wheel turns in steps and zooms; two fingers on a touchpad glide and move, or pinch and zoom.
  #wheel(event) {
    if (!this.session.labels) return;
    event.preventDefault();
    const { deltaX, deltaY } = event;
    const steps = event.deltaMode !== 0 || (deltaX === 0 && event.wheelDeltaY % 120 === 0);
    if (event.shiftKey) {
      this.session.grow(-Math.sign(deltaX || deltaY));
      this.stage.rehint();
    } else if (event.ctrlKey || event.metaKey || steps) {
      // Browsers report a pinch as a wheel with Ctrl that turns by far less than a step.
      const pinches = event.ctrlKey && event.deltaMode === 0 && Math.abs(deltaY) < 50;
      const strength = pinches ? 0.01 : event.deltaMode ? 0.08 : 0.002;
      this.stage.zoom(Math.exp(-Math.max(-200, Math.min(200, deltaY)) * strength), event);
    } else {
      this.stage.pan(-deltaX, -deltaY);
    }
    this.point = this.stage.at(event);
  }

  // From the keyboard

  /** Move the point by the brush's radius or more, and paint on the way if the pen is down. */
  step(dx, dy) {
    if (!this.session.labels) return;
    const { width, height } = this.session.labels;
    const least = 6 / this.stage.view.scale;
    const far = Math.max(1, Math.round(Math.max(this.session.size / 4, least)));
    const [x, y] = this.#standing();
    this.point = [
      Math.min(width - 0.5, Math.max(0.5, x + dx * far)),
      Math.min(height - 0.5, Math.max(0.5, y + dy * far)),
    ];
    this.active?.move(...this.point);
    this.session.redraw();
    this.stage.rehint();
  }

  #standing() {
    return this.point || [this.stage.view.x, this.stage.view.y];
  }

  /** Press the tool at the point, with `shift` or without, or let it go. */
  pen(shift) {
    if (!this.session.labels) return;
    this.point = this.#standing();
    if (this.active) return this.#release();
    this.#press({ erase: false, shift });
    if (["lasso", "take"].includes(this.session.tool)) this.#release(); // these take clicks
  }

  /** Choose the class under the point. */
  pick() {
    if (!this.point) return;
    const [x, y] = this.point.map(Math.floor);
    if (this.session.labels.holds(x, y)) this.session.pick(x, y);
  }
}

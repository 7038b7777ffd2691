/** The open image, the choices, and all acts of a person. Panels show it, keys call it. */

import * as api from "./api.js";
import { History, Labels, UNLABELLED } from "./labels.js";
import { Outbox } from "./outbox.js";
import { valueAt } from "./shapes.js";

const SLICE = 8; // milliseconds of work on a stroke that has ended, in one task
const POLL = 50; // milliseconds between two looks whether the person rests

export const SIZES = { least: 1, most: 500 }; // of the brush, in pixels of the image

const pause = (time) => new Promise((done) => setTimeout(done, time));

/** Return whether an image is done: accepted, or accepted as background only. */
export function isDone({ state }) {
  return state === "accepted" || state === "empty";
}

/**
 * Do an act that the server may refuse or not hear. Return whether it was done. Without
 * `onFailure`, as for an act that nobody asked for, the line about the connection says enough.
 */
async function attempt(action, onFailure) {
  try {
    await action();
    return true;
  } catch (error) {
    if (!(error instanceof api.Refused || error instanceof api.Lost)) throw error;
    onFailure?.(error.message);
    return false;
  }
}

/**
 * Events say what changed: "project", "images", "classes", "open", "answer", "tool", "view",
 * "saving" or "score". "leave" comes before the open image or the tool does, "say" with a sentence.
 */
export class Session extends EventTarget {
  constructor(stage) {
    super();
    this.stage = stage;
    this.project = null;
    this.image = null; // the open one, as in project.images
    this.labels = this.answer = this.regions = this.range = null;
    this.warned = null; // the labels that the next act may replace as a whole
    this.behind = false; // the server has other labels of the open image; they are read first
    this.shown = {}; // low, high and channels of the picture, where they are not the server's own
    this.histories = new Map(); // number -> History
    this.tool = "brush";
    this.size = 12;
    this.current = 0; // class index
    this.locked = new Set(); // class indices that no stroke changes
    this.painted = new Set(); // class indices that were painted since the page was opened
    this.ending = null; // the last stroke, while it is being packed
    this.busy = false; // an image is being opened or accepted
    this.wanted = null; // the number of the image to open after that
    this.changing = Promise.resolve(); // the last change of the classes
    this.isLoading = this.hasNews = false; // an answer is on its way; there is a later one
    this.connected = true;
    this.reading = null; // labels that are read again once the person rests
    this.returned = false; // after a break, until it is known how many windows there are
    this.pages = 1; // windows that show this folder
    this.suspects = [];
    this.stranger = ""; // why the server, if it answers, is not the one that this page is for
    this.outbox = new Outbox(
      (...stroke) => this.#deliver(...stroke),
      () => this.#tell("saving"),
      (number, message) => this.#refused(number, message),
    );
  }

  #tell(...topics) {
    topics.forEach((topic) => this.dispatchEvent(new Event(topic)));
  }

  /** Show a sentence for some seconds. */
  say(text) {
    this.dispatchEvent(new CustomEvent("say", { detail: text }));
  }

  /** Do an act that may fail; say what went wrong. Return whether it was done. */
  #try(action) {
    return attempt(action, (message) => this.say(message));
  }

  async start() {
    await this.#loadProject();
    // The first class is most often the ground: people begin with the second.
    this.chooseClass(Math.min(1, this.project.classes.length - 1));
    api.listen(
      {
        answer: ({ number }) => number === this.image?.number && this.#loadAnswer(),
        state: (found) => this.#stateOf(found),
        next: ({ after, number }) =>
          after === this.image?.number && this.#part({ next: number }, "images"),
        labels: (found) => this.#painted(found),
        pages: ({ count }) => this.#pages(count),
        failed: ({ error }) => this.say(error),
        score: (score) => this.#part({ score }, "score"),
        training: (training) => this.#part({ training }, "score"),
        classes: (found) => this.#classes(found),
      },
      (connected) => this.#connection(connected),
    );
    const first = this.project.next ?? this.project.images[0]?.number;
    if (first !== undefined) await this.open(first);
  }

  async #loadProject() {
    this.project = await api.project();
    this.#tell("project", "images", "classes", "score");
    if (this.project.images.some((i) => i.state === "accepted")) this.#loadSuspects();
  }

  async #loadSuspects() {
    await attempt(async () => (this.suspects = await api.suspects()));
    this.#tell("score");
  }

  async #connection(connected) {
    const wasKnown = this.connected && !this.stranger;
    this.connected = connected;
    if (connected && wasKnown) return this.#tell("saving");
    this.returned = connected;
    this.doubtful = true;
    await attempt(() => this.#recognise());
    this.#tell("saving", "images", "classes", "score");
    if (this.doubtful) return;
    this.outbox.hurry();
    this.#loadAnswer();
  }

  // After a break another server may stand at this address: it gets no strokes that are not its.
  async #recognise() {
    this.stranger = "";
    try {
      const found = await api.project();
      const name = ({ folder, images }) => [folder, ...images.map((i) => i.name)].join("/");
      if (name(found) !== name(this.project)) {
        throw new api.Refused(403, "Another folder is labelled at this address now.");
      }
      const { classes } = this.project;
      const was = found.classes.map((c) => classes.findIndex((old) => old.name === c.name));
      this.project = { ...found, classes, next: this.project.next };
      this.image &&= this.#imageOf(this.image.number);
      this.#replaceClasses(found.classes, was);
      this.doubtful = false;
    } catch (error) {
      if (error instanceof api.Refused) this.stranger = error.message;
      throw error;
    }
  }

  async #deliver(...stroke) {
    if (this.doubtful) await this.#recognise();
    await api.putLabels(...stroke);
  }

  #part(values, topic) {
    Object.assign(this.project, values);
    this.#tell(topic);
  }

  #imageOf(number) {
    return this.project.images.find((i) => i.number === number);
  }

  // Events and answers come by two ways. An older one may arrive last.
  #stateOf({ number, ...found }) {
    const image = this.#imageOf(number);
    if (image && !(found.version < image.version)) Object.assign(image, found);
    this.#tell("images");
  }

  // Another page painted: its strokes are shown once nothing of ours is on its way. An undo of ours
  // would take them back, too.
  async #painted({ number, page }) {
    if (page === api.PAGE) return;
    this.histories.delete(number);
    const isOpen = () => number === this.image?.number;
    if (!isOpen() || this.reading === this.labels) return;
    this.reading = this.labels;
    while (isOpen() && (this.busy || this.labels.before || this.unsaved)) await pause(POLL);
    this.reading = null;
    this.histories.delete(number);
    if (isOpen()) await this.#reread();
  }

  // A window that heard nothing for a while does not know what the others painted.
  #pages(count) {
    if (this.returned && Math.max(count, this.pages) > 1) {
      this.histories.clear();
      if (this.image) this.#painted(this.image);
    }
    this.returned = false;
    this.pages = count;
    this.#tell("saving");
  }

  #classes({ classes, was, revision }) {
    if (revision <= this.project.revision) return; // the event and the answer say the same
    this.project.revision = revision;
    this.#replaceClasses(classes, was);
  }

  // A class stays the same object, so that its row and its field stay. `was` has the old indices.
  #replaceClasses(classes, was) {
    const old = this.project.classes;
    const found = classes.map((c, i) => Object.assign(old[was[i]] ?? {}, c));
    const moved = (indices) => [...indices].map((i) => found.indexOf(old[i])).filter((i) => i >= 0);
    this.project.classes = found;
    this.current = moved([this.current])[0] ?? Math.max(0, Math.min(this.current, found.length - 1));
    this.locked = new Set(moved(this.locked));
    this.painted = new Set(moved(this.painted));
    if (this.image) this.stage.recolour(this.colours);
    this.#tell("classes");
    if (old.some((c, i) => c !== found[i])) this.#renumbered();
  }

  /** Return where the tiles of an image are, as it is shown. */
  tiles(image) {
    return api.tileAddress(image.number, this.project.key, this.shown);
  }

  get colours() {
    return this.project.classes.map((c) => c.colour);
  }

  // Opening and going on

  /** Open an image. While another one is being opened or accepted, it waits for that. */
  async open(number) {
    if (!this.#imageOf(number)) return;
    if (this.busy) return void (this.wanted = number);
    this.#tell("leave");
    this.busy = true;
    this.#tell("open");
    await this.#try(async () => {
      await this.#stored();
      const { width, height, data, next } = await api.labels(number);
      const image = this.#imageOf(number); // the list may have come anew meanwhile
      this.image = image;
      this.project.next = next;
      this.labels = new Labels(width, height, data);
      this.behind = false;
      this.answer = this.regions = this.range = null;
      this.shown = this.#kept(image);
      this.stage.open(image, this.labels, this.colours, this.tiles(image));
    });
    if (this.#free()) return;
    if (this.tool === "edges") this.loadRegions(); // a stroke before they come would be lost
    if (this.image?.number === number) await Promise.all([this.#loadAnswer(), this.#loadRange()]);
  }

  // Return whether an image that was asked for meanwhile is opened now.
  #free() {
    const { wanted } = this;
    this.busy = false;
    this.wanted = null;
    this.#tell("open", "images");
    if (wanted !== null) this.open(wanted);
    return wanted !== null;
  }

  // Channels stay chosen from image to image; a window of grey values is each image's own.
  #kept(image) {
    const { channels } = this.shown;
    const fits = channels?.split(",").every((c) => +c < image.channels);
    return fits ? { channels } : {};
  }

  // One request at a time: of two, the older answer might come last.
  async #loadAnswer() {
    this.hasNews = true;
    if (this.isLoading) return;
    this.isLoading = true;
    try {
      while (this.hasNews) {
        this.hasNews = false;
        await this.#fetchAnswer();
      }
    } finally {
      this.isLoading = false;
    }
  }

  async #fetchAnswer() {
    const { image } = this;
    if (!image) return;
    await attempt(async () => {
      const answer = await api.answer(image.number);
      if (image !== this.image) return;
      this.answer = answer;
      this.stage.setAnswer(answer);
      this.#tell("answer");
    });
  }

  async #loadRange() {
    const { image } = this;
    await attempt(async () => {
      const range = await api.range(image.number);
      if (image !== this.image) return;
      this.range = range;
      this.#tell("open");
    });
  }

  /** Fetch the regions of the open image for the edge brush; ask again until they come. */
  async loadRegions() {
    const { image } = this;
    if (!image || this.regions || this.asking === image) return;
    this.asking = image;
    await attempt(async () => {
      const regions = await api.regions(image.number);
      if (image === this.image) this.regions = regions;
    });
    this.asking = null;
    this.#tell("tool");
    if (image === this.image && !this.regions && this.tool === "edges") {
      setTimeout(() => this.loadRegions(), 1000);
    }
  }

  /** Return when all strokes are stored. */
  async #stored() {
    this.#finish();
    if (this.outbox.state === "lost") {
      throw new api.Lost("Some strokes are not saved yet: this has to wait for the connection.");
    }
    await this.outbox.drained();
  }

  /** Open the image `step` places further in the list. */
  go(step) {
    const { images } = this.project;
    const at = images.indexOf(this.image) + step;
    if (images[at]) this.open(images[at].number);
    else this.say(step > 0 ? "This is the last image." : "This is the first image.");
  }

  /** Make the answer with all corrections the mask, and go to the next image. */
  async accept(empty = false) {
    const { image, labels } = this;
    if (!image || this.busy) return;
    const isOther = (label) => label > 0 && label !== UNLABELLED;
    const replaces = empty && labels.data.some(isOther);
    if (replaces && this.warned !== labels) {
      this.warned = labels;
      const [{ name }] = this.project.classes;
      return this.say(`Other classes are painted here. Press again to make all of it ${name}.`);
    }
    this.#tell("leave");
    this.busy = true;
    this.#tell("open");
    const sparse = !empty && !this.answer && this.labels.data.includes(UNLABELLED);
    let next = null;
    const done = await this.#try(async () => {
      await this.#stored();
      // From here on, the mask may hold the prediction, too.
      this.behind = true;
      this.histories.delete(image.number);
      const found = await api.accept(image.number, empty);
      this.#stateOf(found.image);
      this.#part({ score: found.score, next: found.next }, "score");
      next = found.next;
    });
    const isElsewhere = this.#free();
    if (!done) return void (this.behind && !isElsewhere && this.#reread());
    this.#loadSuspects();
    if (sparse) this.say("Accepted without a prediction: other pixels stay unlabelled.");
    if (isElsewhere) return;
    if (next !== null && next !== undefined && next !== image.number) return this.open(next);
    await this.open(image.number);
    this.say("All images are accepted.");
  }

  async reopen() {
    const { image } = this;
    if (!image || !isDone(image)) return;
    await this.#try(async () => this.#stateOf(await api.reopen(image.number)));
  }

  async openSuspect() {
    if (!this.suspects.length) return this.say("No accepted image looks wrong.");
    this.suspects.push(this.suspects.shift()); // the next call goes to the next one
    const { number, why, box } = this.suspects.at(-1);
    if (this.image?.number !== number) await this.open(number);
    if (this.image?.number !== number) return;
    if (box) this.stage.lookAt(box);
    this.say(why);
  }

  async train(on) {
    await this.#try(() => api.train(on));
  }

  // Strokes

  /** Return the table of labels that a stroke leaves as they are, or null. */
  get keeps() {
    if (!this.locked.size) return null;
    return Uint8Array.from({ length: 256 }, (_, label) => +this.locked.has(label));
  }

  /** Draw again the pixels that a stroke has changed so far. */
  redraw() {
    if (this.labels.dirty) this.stage.relabel(this.labels.dirty);
    this.labels.dirty = null;
  }

  /** Begin a stroke. */
  begin() {
    this.#finish();
    this.labels.begin();
  }

  /** End the stroke: draw it, remember it, send it. A large one takes several tasks. */
  commit() {
    this.redraw();
    if (this.tool !== "eraser") this.painted.add(this.current);
    this.ending = { work: this.labels.end(), patches: [] };
    this.#goOn(performance.now() + SLICE);
  }

  #goOn(until) {
    const { ending } = this;
    do {
      const { value, done } = ending.work.next();
      if (done) return this.#ended(ending.patches);
      ending.patches.push(value);
    } while (performance.now() < until);
    setTimeout(() => ending === this.ending && this.#goOn(performance.now() + SLICE));
  }

  /** Do the rest of the last stroke now. */
  #finish() {
    if (this.ending) this.#goOn(Infinity);
  }

  #ended(patches) {
    this.ending = null;
    if (!patches.length) return;
    this.#history.push(patches);
    this.#send(patches, "after");
  }

  // Of the open image.
  get #history() {
    const { number } = this.image;
    if (!this.histories.has(number)) this.histories.set(number, new History());
    return this.histories.get(number);
  }

  /** Return whether something painted is not stored yet. */
  get unsaved() {
    return Boolean(this.ending || this.outbox.length);
  }

  #send(patches, side) {
    if (this.image.state === "untouched") this.image.state = "begun";
    this.warned = null;
    this.outbox.add(this.image.number, patches, side, this.project.revision);
    this.#tell("images");
  }

  undo() {
    this.#step("undo", "before", "Nothing to undo.");
  }

  redo() {
    this.#step("redo", "after", "Nothing to redo.");
  }

  #step(way, side, nothing) {
    if (!this.image || this.busy) return;
    this.#finish();
    if (this.labels.before) return; // within a stroke
    const patches = this.#history[way]();
    if (!patches) return this.say(nothing);
    this.labels.apply(patches, side);
    this.redraw();
    this.#send(patches, side);
  }

  // The page and the disk must agree: refused strokes are not shown as painted.
  async #refused(number, message) {
    this.histories.delete(number);
    if (this.image?.number === number) await this.#reread();
    this.say(`A stroke was not saved: ${message}`);
  }

  // Tools and classes

  choose(tool) {
    if (this.tool !== tool) this.#tell("leave");
    this.tool = tool;
    if (tool === "edges") this.loadRegions();
    this.#tell("tool");
  }

  resize(size) {
    this.size = Math.min(SIZES.most, Math.max(SIZES.least, Math.round(size)));
    this.#tell("tool");
  }

  /** Make the brush a step larger (1) or smaller (-1). */
  grow(step) {
    this.resize(this.size + step * Math.max(1, Math.round(this.size * 0.15)));
  }

  chooseClass(index) {
    if (!this.project.classes[index]) return;
    this.current = index;
    if (this.tool === "eraser") this.choose("brush");
    this.#tell("classes", "tool");
  }

  /** Choose the class of the label or the answer at a pixel. */
  pick(x, y) {
    const { width, height, data } = this.labels;
    const label = data[y * width + x];
    if (label !== UNLABELLED) this.chooseClass(label);
    else if (this.answer) this.chooseClass(valueAt(this.answer, x, y, width, height));
  }

  lock(index) {
    if (!this.locked.delete(index)) this.locked.add(index);
    this.#tell("classes");
  }

  /** Lock all classes but the current one; unlock all if they are. */
  lockOthers() {
    const others = this.project.classes.map((_, i) => i).filter((i) => i !== this.current);
    const all = others.every((i) => this.locked.has(i)) && !this.locked.has(this.current);
    this.locked = new Set(all ? [] : others);
    this.#tell("classes");
    this.say(all ? "All classes can be painted over." : "The other classes are locked.");
  }

  /**
   * Store other classes, after the changes before this one. `change` takes the classes and returns
   * `[{name, colour, was}]`, `was` the index it had or null. Return whether that was done.
   */
  changeClasses(change) {
    const done = this.changing.then(() =>
      this.#try(async () => {
        await this.#stored();
        const { classes, revision } = this.project;
        this.#classes(await api.putClasses(change(classes), revision));
      }),
    );
    this.changing = done.catch(() => {}); // a fault of this change is not the next one's
    return done;
  }

  // A class is gone: the numbers in labels and in histories are others now.
  #renumbered() {
    this.histories.clear();
    this.#reread();
  }

  // Open the image again, unless another one is opened next.
  async #reread() {
    this.behind = true;
    if (this.image && this.wanted === null) await this.open(this.image.number);
  }

  setOpacity(opacity) {
    this.stage.setOpacity(Math.min(1, Math.max(0.1, opacity)));
    this.#tell("view");
  }

  /** Show the picture with another window of grey values or other channels. */
  show(shown) {
    this.shown = shown;
    this.stage.repicture(this.tiles(this.image));
    this.#tell("view");
  }
}

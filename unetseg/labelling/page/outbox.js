/** Strokes on their way to the server: in order, one at a time, kept until it is stored. */

import { PAGE, Refused } from "./api.js";

const FIRST_WAIT = 500; // milliseconds until a lost connection is tried again
const LONGEST_WAIT = 5000;

/**
 * `send(number, rectangle, id, revision)` returns when the server has stored a rectangle.
 *
 * `state` is "saved", "saving" or "lost" (tried again by itself); `problem` says why.
 * `onRefused(number, message)` is called when the server will never store a rectangle; it is
 * dropped then.
 */
export class Outbox {
  constructor(send, onChange, onRefused) {
    this.send = send;
    this.onChange = onChange;
    this.onRefused = onRefused;
    this.queue = []; // {number, rectangle, id, revision}
    this.count = 0;
    this.wait = FIRST_WAIT;
    this.waiting = []; // functions to call once all is stored
    this.state = "saved";
    this.problem = "";
  }

  get length() {
    return this.queue.length;
  }

  /** Add one side, "before" or "after", of the patches of a stroke, and of which classes it is. */
  add(number, patches, side, revision) {
    for (const { x, y, width, height, [side]: runs } of patches) {
      const id = `${PAGE}-${this.count++}`;
      this.queue.push({ number, rectangle: { x, y, width, height, runs }, id, revision });
    }
    if (!this.running) this.#run();
    else this.onChange();
  }

  /** Return when all is stored. */
  async drained() {
    while (this.queue.length) await new Promise((done) => this.waiting.push(done));
  }

  /** Try again now: the server was heard of. */
  hurry() {
    this.wake?.();
  }

  async #run() {
    this.running = true;
    if (this.state === "saved") this.#set("saving");
    while (this.queue.length) {
      const { number, rectangle, id, revision } = this.queue[0];
      try {
        await this.send(number, rectangle, id, revision);
        this.queue.shift();
        this.wait = FIRST_WAIT;
        this.#set("saving");
      } catch (error) {
        await this.#failed(error, number);
      }
    }
    this.running = false;
    this.#set("saved");
    this.waiting.splice(0).forEach((done) => done());
  }

  async #failed(error, number) {
    // A server that does not know this page may know it again after a visit to its address.
    if (error instanceof Refused && ![401, 403].includes(error.status)) {
      this.queue = this.queue.filter((entry) => entry.number !== number);
      this.onRefused(number, error.message);
      return;
    }
    this.#set("lost", error.message);
    await new Promise((done) => {
      this.wake = done;
      setTimeout(done, this.wait);
    });
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT);
  }

  #set(state, problem = "") {
    this.state = state;
    this.problem = problem;
    this.onChange();
  }
}

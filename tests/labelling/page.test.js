// The parts of the page that need no browser; run by test_page_modules.py beside a copy of them.

import assert from "node:assert/strict";
import { test } from "node:test";

import * as api from "./api.js";
import { Lost, Refused } from "./api.js";
import { History, Labels, UNLABELLED, packRuns, unpackRuns } from "./labels.js";
import { Outbox } from "./outbox.js";
import { Session } from "./session.js";
import * as shapes from "./shapes.js";
import * as view from "./view.js";

/** Return a source of numbers from 0 to 1 that are the same in each run. */
function dice(seed) {
  return () => {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return seed / 2147483648;
  };
}

/** Return the pixels of spans as sorted numbers y * width + x, those in the image alone. */
function pixels(width, height, draw) {
  const found = [];
  draw((y, x0, x1) => {
    for (let x = x0; x < x1; x++) {
      if (x >= 0 && x < width && y >= 0 && y < height) found.push(y * width + x);
    }
  });
  return found.sort((a, b) => a - b);
}

function chosen(width, height, isIn) {
  const all = [...Array(width * height).keys()];
  return all.filter((i) => isIn((i % width) + 0.5, Math.floor(i / width) + 0.5));
}

function distance(px, py, [ax, ay], [bx, by]) {
  const length = (bx - ax) ** 2 + (by - ay) ** 2;
  const t = length ? ((px - ax) * (bx - ax) + (py - ay) * (by - ay)) / length : 0;
  const near = Math.min(1, Math.max(0, t));
  return Math.hypot(px - ax - near * (bx - ax), py - ay - near * (by - ay));
}

/** Run `body` while each request has the answer that `answer` returns. */
async function answering(answer, body) {
  const { fetch } = globalThis;
  globalThis.fetch = async () => answer();
  try {
    await body();
  } finally {
    globalThis.fetch = fetch;
  }
}

test("a stroke is stored when the server says so, not when a proxy sends a page", async () => {
  const runs = packRuns(Uint8Array.of(1, 1));
  const put = () => api.putLabels(0, { x: 0, y: 0, width: 2, height: 1, runs }, "s", 0);
  await answering(() => new Response("<html>Log in</html>"), () => assert.rejects(put, Lost));
  await answering(() => Response.json({}), () => assert.rejects(put, Lost));
  await answering(() => Response.json({ saved: true }), put);
});

test("an answer that breaks off after its head is lost, and no fault of the page", async () => {
  const broken = { start: (stream) => stream.error(new TypeError("network error")) };
  await answering(
    () => new Response(new ReadableStream(broken)),
    async () => {
      await assert.rejects(api.labels(0), Lost);
      await assert.rejects(api.accept(0, false), Lost);
    },
  );
});

test("runs unpack to what was packed", () => {
  const next = dice(1);
  const bytes = Uint8Array.from({ length: 5000 }, () =>
    next() < 0.9 ? 255 : Math.floor(next() * 4),
  );
  assert.deepEqual(unpackRuns(packRuns(bytes), 5000), bytes);
  const long = new Uint8Array(300000).fill(7);
  assert.equal(packRuns(long).length, 4); // a value and 19 bits
  assert.deepEqual(unpackRuns(packRuns(long), 300000), long);
  assert.equal(packRuns(new Uint8Array(0)).length, 0);
});

test("a brush paints the pixels whose centres are within its radius of the line", () => {
  const next = dice(2);
  for (let k = 0; k < 200; k++) {
    const size = 1 + Math.floor(next() * 12);
    const [a, b] = [0, 1].map(() => shapes.snapped(next() * 40, next() * 30, size));
    const got = pixels(40, 30, (span) => shapes.capsule(...a, ...b, size / 2, span));
    const far = chosen(40, 30, (x, y) => distance(x, y, a, b) <= size / 2 + 1e-9);
    const near = chosen(40, 30, (x, y) => distance(x, y, a, b) <= size / 2 - 1e-9);
    assert.ok(
      near.every((i) => got.includes(i)),
      `${size} ${a} ${b}`,
    );
    assert.ok(
      got.every((i) => far.includes(i)),
      `${size} ${a} ${b}`,
    );
  }
});

test("a brush of one pixel paints one pixel, and its lines have no gap", () => {
  const dot = pixels(9, 9, (span) =>
    shapes.capsule(...shapes.snapped(4.9, 3.1, 1), 4.5, 3.5, 0.5, span),
  );
  assert.deepEqual(dot, [3 * 9 + 4]);
  const line = pixels(40, 40, (span) => shapes.capsule(0.5, 0.5, 39.5, 13.5, 0.5, span));
  assert.deepEqual([...new Set(line.map((i) => i % 40))], [...Array(40).keys()]);
});

test("a polygon holds the pixels whose centres lie inside", () => {
  const next = dice(3);
  for (let k = 0; k < 50; k++) {
    const points = Array.from({ length: 3 + (k % 5) }, () => [next() * 50 - 5, next() * 40 - 5]);
    const inside = (x, y) =>
      points.reduce((odd, [bx, by], i) => {
        const [ax, ay] = points.at(i - 1);
        const crosses = ay > y !== by > y && x < ax + ((y - ay) / (by - ay)) * (bx - ax);
        return crosses ? !odd : odd;
      }, false);
    assert.deepEqual(
      pixels(40, 30, (span) => shapes.polygon(points, span)),
      chosen(40, 30, inside),
    );
  }
});

test("a component is what can be reached over equal neighbours", () => {
  const next = dice(4);
  for (let k = 0; k < 30; k++) {
    const map = {
      width: 23,
      height: 17,
      data: Uint8Array.from({ length: 391 }, () => +(next() < 0.55)),
    };
    const reached = new Set([200]);
    for (const i of reached) {
      const x = i % 23;
      const sides = [i - 23, i + 23, ...(x > 0 ? [i - 1] : []), ...(x < 22 ? [i + 1] : [])];
      for (const j of sides) if (map.data[j] === map.data[200]) reached.add(j);
    }
    const got = pixels(23, 17, (span) =>
      shapes.component(map, 200 % 23, Math.floor(200 / 23), span),
    );
    assert.deepEqual(
      got,
      [...reached].sort((a, b) => a - b),
    ); // each pixel once
  }
});

test("an enlarged span covers the pixels that take their value from it", () => {
  for (const [w, h, width, height] of [
    [7, 5, 20, 13],
    [4, 4, 4, 4],
    [10, 9, 31, 28],
  ]) {
    const map = { width: w, height: h, data: new Uint8Array(w * h) };
    map.data[2 * w + 1] = map.data[2 * w + 2] = 1;
    const got = pixels(width, height, (span) => shapes.enlarged(map, width, height, span)(2, 1, 3));
    const due = chosen(
      width,
      height,
      (x, y) => shapes.valueAt(map, x - 0.5, y - 0.5, width, height) === 1,
    );
    assert.deepEqual(got, due);
  }
});

test("spans are cut to the chosen regions", () => {
  const map = { width: 3, height: 1, data: Int32Array.from([0, 1, 2]) };
  const got = pixels(9, 2, (span) =>
    shapes.within(map, Uint8Array.from([1, 0, 1]), 9, 2, span)(1, -4, 30),
  );
  assert.deepEqual(got, [9, 10, 11, 15, 16, 17]);
});

/** Paint random strokes; return labels, the state after each stroke, and the patches. */
function painted(width, height, strokes) {
  const next = dice(5);
  const labels = new Labels(width, height);
  const states = [labels.data.slice()];
  const all = [];
  for (let k = 0; k < strokes; k++) {
    labels.begin();
    const value = k % 4 === 3 ? UNLABELLED : k % 3;
    const points = Array.from({ length: 4 }, () => [next() * width, next() * height]);
    points.slice(1).forEach((b, i) => {
      shapes.capsule(...points[i], ...b, 9, (y, x0, x1) => labels.paint(y, x0, x1, value));
    });
    all.push([...labels.end()]);
    states.push(labels.data.slice());
  }
  return { labels, states, all };
}

test("every stroke is undone and redone exactly", () => {
  const { labels, states, all } = painted(700, 2300, 12);
  const history = new History();
  all.forEach((patches) => history.push(patches));
  for (let k = 12; k > 0; k--) {
    assert.deepEqual(labels.data, states[k]);
    labels.apply(history.undo(), "before");
  }
  assert.deepEqual(labels.data, states[0]);
  assert.equal(history.undo(), null);
  for (let k = 1; k <= 12; k++) {
    labels.apply(history.redo(), "after");
    assert.deepEqual(labels.data, states[k]);
  }
  assert.equal(history.redo(), null);
});

test("patches sent one after the other give the same labels elsewhere", () => {
  const { labels, all } = painted(700, 2300, 12);
  const other = new Labels(700, 2300);
  all.forEach((patches) => other.apply(patches, "after"));
  assert.deepEqual(other.data, labels.data);
});

test("a long diagonal is cut into bands, far smaller than its box", () => {
  const labels = new Labels(4000, 4000);
  labels.begin();
  shapes.capsule(10, 10, 3990, 3990, 3, (y, x0, x1) => labels.paint(y, x0, x1, 1));
  const patches = [...labels.end()];
  assert.equal(patches.length, 4);
  const area = patches.reduce((sum, p) => sum + p.width * p.height, 0);
  assert.ok(area < 4000 * 4000 * 0.3);
});

test("a stroke that changes nothing leaves no patch, one that is given up no trace", () => {
  const labels = new Labels(300, 300);
  labels.begin();
  labels.paint(5, 0, 10, UNLABELLED);
  assert.deepEqual([...labels.end()], []);
  labels.begin();
  labels.paint(5, 250, 900, 1);
  assert.equal(labels.data[5 * 300 + 299], 1);
  labels.cancel();
  assert.ok(labels.data.every((label) => label === UNLABELLED));
  assert.deepEqual(labels.dirty, { x0: 0, y0: 5, x1: 300, y1: 6 });
});

test("locked classes stay under a stroke", () => {
  const labels = new Labels(10, 1, Uint8Array.from([0, 0, 1, 1, 2, 2, 255, 255, 0, 1]));
  const keeps = new Uint8Array(256);
  keeps[1] = 1;
  labels.begin();
  labels.paint(0, 0, 10, 2, keeps);
  assert.deepEqual([...labels.data], [2, 2, 1, 1, 2, 2, 2, 2, 2, 1]);
});

test("memory of undo is bounded, and the last stroke can always be undone", () => {
  const patch = {
    x: 0,
    y: 0,
    width: 1,
    height: 1,
    before: new Uint8Array(400),
    after: new Uint8Array(500),
  };
  const history = new History(3000);
  for (let k = 0; k < 10; k++) history.push([patch]);
  assert.equal(history.done.length, 3);
  history.push([{ ...patch, before: new Uint8Array(9000) }]);
  assert.equal(history.done.length, 1);
  assert.ok(history.undo());
  history.push([patch]);
  assert.equal(history.redo(), null);
  assert.equal(history.bytes, 1000);
});

test("a zoom leaves the point under the pointer where it is", () => {
  const image = { width: 4000, height: 3000 };
  const canvas = { width: 800, height: 600 };
  let seen = view.fitted(image, canvas);
  for (const factor of [1.5, 3, 0.7]) {
    const before = view.toImage(seen, canvas, 300, 200);
    seen = view.zoomed(seen, factor, 300, 200, image, canvas);
    const after = view.toImage(seen, canvas, 300, 200);
    before.forEach((v, i) => assert.ok(Math.abs(v - after[i]) < 1e-6));
  }
  assert.equal(view.zoomed(seen, 1e9, 300, 200, image, canvas).scale, 40);
});

test("tiles cover what is seen, each pixel once", () => {
  const image = { width: 1300, height: 900 };
  for (const level of [0, 1, 2]) {
    const tiles = [...view.tilesIn({ x0: 0, y0: 0, x1: 1300, y1: 900 }, level, 512, image)];
    const area = tiles.reduce((sum, t) => sum + (t.x1 - t.x0) * (t.y1 - t.y0), 0);
    assert.equal(area, 1300 * 900);
  }
  const some = [...view.tilesIn({ x0: 510, y0: 0, x1: 514, y1: 2 }, 0, 512, image)];
  assert.deepEqual(
    some.map((t) => [t.x, t.y]),
    [
      [0, 0],
      [1, 0],
    ],
  );
  assert.equal(view.highestLevel({ width: 512, height: 100 }, 512), 0);
  assert.equal(view.highestLevel({ width: 513, height: 100 }, 512), 1);
  assert.equal(view.levelFor(0.25, 9), 2);
  assert.equal(view.levelFor(0.26, 9), 1);
  assert.equal(view.levelFor(3, 9), 0);
});

const PATCH = {
  x: 0,
  y: 0,
  width: 1,
  height: 1,
  before: new Uint8Array(2),
  after: new Uint8Array(2),
};

test("without a connection strokes are kept, and sent in order once it is back", async () => {
  const sent = [];
  const states = new Set();
  let broken = 3;
  const send = async (number, rectangle, id) => {
    if (broken-- > 0) throw new Lost("no route");
    sent.push(id);
  };
  const outbox = new Outbox(send, () => outbox && states.add(outbox.state), assert.fail);
  for (let k = 0; k < 4; k++) outbox.add(7, [PATCH], "after");
  const hurry = setInterval(() => outbox.hurry(), 5);
  await outbox.drained();
  clearInterval(hurry);
  assert.deepEqual(
    sent.map((id) => +id.split("-").at(-1)),
    [0, 1, 2, 3],
  );
  assert.deepEqual([...states].sort(), ["lost", "saved", "saving"]);
});

test("what is refused is dropped and told, strokes on other images are sent", async () => {
  const told = [];
  const sent = [];
  const send = async (number) => {
    if (number === 1) throw new Refused(422, "no such class");
    sent.push(number);
  };
  const outbox = new Outbox(
    send,
    () => {},
    (...refusal) => told.push(refusal),
  );
  outbox.add(1, [PATCH, PATCH], "after");
  outbox.add(2, [PATCH], "after");
  await outbox.drained();
  assert.deepEqual(told, [[1, "no such class"]]);
  assert.deepEqual(sent, [2]);
});

/**
 * Run `body` with a session of two images of 2 x 2 pixels. It gets the session, a function that
 * tells it of an event, and the paths of its requests.
 */
async function withSession(body) {
  const listeners = new Map();
  const asked = [];
  const image = (number) => ({ number, name: `im${number}`, width: 2, height: 2, state: "begun" });
  const classes = ["background", "object"].map((name) => ({ name, colour: "#000000" }));
  const project = { folder: "here", classes, revision: 0, images: [0, 1].map(image), next: 0 };
  const blank = { "Labels-Width": "2", "Labels-Height": "2" };
  const answers = [
    [/project$/, () => Response.json(project)],
    [/labels$/, () => new Response(new Uint8Array(4).fill(UNLABELLED), { headers: blank })],
    [/labels\?/, () => Response.json({ saved: true })],
    [/accept/, () => Response.json({ image: image(0), score: null, next: 1 })],
    [/answer$/, () => new Response(null, { status: 204 })],
    [/range$|suspects$/, () => Response.json([])],
  ];
  const { fetch, EventSource } = globalThis;
  globalThis.fetch = async (path) => {
    asked.push(path);
    return answers.find(([pattern]) => pattern.test(path))[1]();
  };
  globalThis.EventSource = class {
    addEventListener = (name, react) => listeners.set(name, react);
  };
  const session = new Session(new Proxy({}, { get: () => () => {} }));
  try {
    await session.start();
    await body(session, (name, data) => listeners.get(name)({ data: JSON.stringify(data) }), asked);
    await session.outbox.drained();
  } finally {
    Object.assign(globalThis, { fetch, EventSource });
  }
}

function paint(session) {
  session.begin();
  session.labels.paint(0, 0, 2, 1);
  session.commit();
}

const rest = () => new Promise((done) => setTimeout(done, 150));

test("the window that accepts an image opens the next one once, and no news make it wait", () =>
  withSession(async (session, tell, asked) => {
    paint(session);
    await session.accept();
    assert.equal(session.image.number, 1);
    const opened = asked.filter((path) => path.endsWith("labels"));
    assert.deepEqual(opened, ["api/images/0/labels", "api/images/1/labels"]);
    const { searchParams } = new URL(asked.find((path) => path.includes("accept")), "http://here");
    await session.open(0);
    paint(session);
    await session.outbox.drained();
    tell("labels", { number: 0, page: searchParams.get("page") }); // a proxy kept it so long
    await rest();
    assert.equal(asked.filter((path) => path.endsWith("labels")).length, 3);
    assert.ok(session.histories.get(0).undo());
  }));

test("an image that is opened after a break is one of the list, which has come anew", () =>
  withSession(async (session) => {
    session.doubtful = true;
    paint(session);
    await session.open(1);
    assert.ok(session.project.images.includes(session.image));
  }));

test("strokes of others are read though an earlier image was to be read again as well", () =>
  withSession(async (session, tell, asked) => {
    session.labels.begin(); // a stroke goes on
    tell("labels", { number: 0, page: "other" });
    session.labels.cancel();
    await session.open(1);
    const before = asked.length;
    tell("labels", { number: 1, page: "other" });
    await rest();
    assert.ok(asked.slice(before).includes("api/images/1/labels"));
    assert.ok(!asked.slice(before).includes("api/images/0/labels"));
  }));

test("after a break, a window among others undoes no stroke, and a window alone does", () =>
  withSession(async (session, tell) => {
    for (const [count, left] of [
      [1, true],
      [2, false],
    ]) {
      await session.open(0);
      paint(session);
      await session.outbox.drained();
      await session.open(1);
      session.returned = true;
      tell("pages", { count });
      await rest();
      assert.equal(session.histories.has(0), left);
    }
  }));

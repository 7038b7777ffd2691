/** The running score, its curve, the gain of ten more images, and the training behind it. */

import { drawing, element, found, hint, icon } from "./dom.js";

const WIDTH = 232;
const HEIGHT = 70;
const LEFT = 26; // for the numbers of the axis
const BOTTOM = 16;

const two = (x) => x.toFixed(2);

/** Show `score` in the element "score"; hide it while there is none. */
export function showScore(score) {
  const panel = found("score");
  panel.hidden = !score;
  if (!score) return;
  const { mean_iou: mean, interval, images, curve, ten_more: more, note } = score;
  const parts = [];
  found("score-figure").hidden = mean === null;
  if (mean === null) {
    if (!note) parts.push(hint("The score begins with the first accepted image."));
  } else {
    const range = interval
      ? `95 % interval ${two(interval[0])} to ${two(interval[1])}`
      : "No interval yet";
    found("score-figure").firstChild.textContent = two(mean);
    parts.push(hint(`${range}, over ${images} image${images === 1 ? "" : "s"}.`));
  }
  if (curve?.length > 1) parts.push(chart(curve));
  if (more) parts.push(hint(promise(more)));
  if (note) parts.push(hint(note));
  found("score-body").replaceChildren(...parts);
}

function promise({ gain, interval }) {
  const sign = (x) => `${["−", "", "+"][Math.sign(Math.round(x * 100)) + 1]}${two(Math.abs(x))}`;
  const [low, high] = interval.map(sign);
  const range = low === high ? "" : `, between ${low} and ${high}`;
  return `Ten more images would bring about ${sign(gain)}${range}.`;
}

/** Return the mean IoU over the accepted images, with its interval as a band. */
function chart(curve) {
  const values = curve.flatMap((p) => [p.mean_iou, ...(p.interval || [])]);
  const low = Math.max(0, Math.floor(Math.min(...values) * 10) / 10);
  const high = Math.min(1, Math.max(Math.ceil(Math.max(...values) * 10) / 10, low + 0.1));
  const x = (i) => LEFT + (i / (curve.length - 1)) * (WIDTH - LEFT - 5);
  const y = (v) => 5 + ((high - v) / (high - low)) * (HEIGHT - BOTTOM - 5);
  const line = (points) => points.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" ");
  const points = curve.map((p, i) => [x(i), y(p.mean_iou)]);
  const sided = curve.map((p, i) => [p.interval, i]).filter(([interval]) => interval);
  const band = [
    ...sided.map(([[, top], i]) => [x(i), y(top)]),
    ...sided.map(([[bottom], i]) => [x(i), y(bottom)]).reverse(),
  ];
  const ends = `from ${two(curve[0].mean_iou)} to ${two(curve.at(-1).mean_iou)}`;
  const label = `Mean IoU over ${curve.length} accepted images: ${ends}`;
  const text = (content, attributes) => drawing("text", attributes, content);
  return drawing(
    "svg",
    { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label },
    ...[low, high].flatMap((v) => [
      drawing("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: y(v), y2: y(v) }),
      text(v.toFixed(1), { x: LEFT - 5, y: y(v) + 4, "text-anchor": "end" }),
    ]),
    drawing("polygon", { class: "band", points: line(band) }),
    drawing("polyline", { class: "line", points: line(points) }),
    drawing("circle", { class: "last", cx: points.at(-1)[0], cy: points.at(-1)[1], r: 3 }),
    text("1", { x: x(0), y: HEIGHT - 3 }),
    text(`${curve.length} images`, { x: WIDTH - 2, y: HEIGHT - 3, "text-anchor": "end" }),
  );
}

let followed = null; // the state of the training that the bar shows
let clock = 0;

/** Let the bar grow with the time of the round; the server tells only of its beginning and end. */
function followRound(training) {
  if (training === followed) return;
  followed = training;
  clearInterval(clock);
  const { state, share, seconds } = training;
  const bar = found("training-share");
  bar.hidden = share === null || state !== "training";
  if (bar.hidden) return;
  const began = performance.now() - share * seconds * 1000;
  const show = () => (bar.value = (performance.now() - began) / (seconds * 1000));
  show();
  clock = setInterval(show, 500);
}

const MADE = {
  head: "The quick model makes this prediction, and learns from each stroke.",
  network: "The network makes this prediction. It learns from your strokes in the next round.",
  model: "The given model makes this prediction.",
};

const STATES = {
  waiting: "Waiting for new labels.",
  training: "Learning from your labels.",
  predicting: "Predicting images.",
  paused: "Paused.",
  failed: "Stopped by an error.",
};

/**
 * Show `training` in the element "training"; hide it while there is none. `by` says which model
 * made the answer that is shown, if there is one. The button stays: it may just be pressed.
 */
export function showTraining(training, by) {
  const panel = found("training");
  panel.hidden = !training;
  if (!training) return;
  const { on, state, round, note, next } = training;
  const told = note || STATES[state] || "";
  const facts = [told, by && MADE[by], round && `Round ${round}.`];
  found("training-text").textContent = facts.filter(Boolean).join(" ");
  found("training-next").hidden = !next;
  found("training-next").lastChild.textContent = next ?? "";
  followRound(training);
  found("training-switch").replaceChildren(
    icon(on ? "pause" : "play"),
    on ? "Pause training" : "Train",
  );
}

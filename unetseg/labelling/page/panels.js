/** The panels around the picture: images, tools, classes, view, the state of saving. */

import { tileAddress } from "./api.js";
import { showClasses } from "./classes.js";
import { element, found, icon } from "./dom.js";
import { showScore, showTraining } from "./score.js";
import { SIZES, isDone } from "./session.js";
import { TILE } from "./tiles.js";
import { TOOLS } from "./tools.js";
import { highestLevel } from "./view.js";

const THUMBNAIL = 2 ** 24; // pixels: a larger image is not decoded for a thumbnail
const TOOL_KEYS = { brush: "B", eraser: "E", edges: "G", lasso: "L", take: "T" };
const STATES = {
  untouched: "not begun",
  accepted: "accepted",
  empty: "background only",
};

/** Fill the panels, and keep them as the session is. */
export function showPanels(session, stage) {
  const on = (topics, show) => {
    topics.forEach((topic) => session.addEventListener(topic, show));
  };
  on(["project"], () => showProject(session));
  on(["images"], () => showImages(session));
  on(["images", "open", "answer"], () => showOpen(session));
  on(["tool"], () => showTools(session));
  on(["classes"], () => showClasses(session));
  on(["open", "view"], () => showView(session, stage));
  on(["saving"], () => showSaving(session));
  on(["score", "open", "answer"], () => showNumbers(session));
  makeTools(session);
  makeView(session, stage);
  session.addEventListener("say", (event) => say(event.detail));
}

// Images

function showProject({ project }) {
  found("project").textContent = project.name;
  found("project").title = project.folder;
  document.title = `${project.name} · unetseg label`;
  found("no-images").hidden = project.images.length > 0;
}

const rows = new Map(); // image number -> its button in the list

function showImages(session) {
  const { images, next } = session.project;
  const list = found("images");
  if (list.childElementCount !== images.length) {
    rows.clear();
    const start = commonStart(images.map((i) => i.name));
    list.replaceChildren(...images.map((i) => element("li", {}, makeRow(session, i, start))));
  }
  for (const image of images) showRow(rows.get(image.number), image, session.image, next);
  const done = images.filter(isDone).length;
  found("count").textContent = `${done} of ${images.length} accepted`;
  found("progress").max = Math.max(1, images.length);
  found("progress").value = done;
}

/** Return how many characters all names begin with, up to a separator; few are worth showing. */
function commonStart([first, ...others]) {
  let length = others.length ? first.length : 0;
  while (!others.every((name) => name.startsWith(first.slice(0, length)))) length--;
  const shared = first.slice(0, length).replace(/[^_\-. ]*$/, "").length;
  return shared > 6 ? shared : 0;
}

function makeRow(session, image, start) {
  const level = highestLevel(image, TILE);
  const tile = tileAddress(image.number, session.project.key);
  const row = element(
    "button",
    { type: "button", onclick: () => session.open(image.number) },
    image.width * image.height < THUMBNAIL
      ? element("img", { src: tile(level, 0, 0), alt: "", loading: "lazy", decoding: "async" })
      : element("span", { className: "img" }),
    element(
      "span",
      { className: "name", title: image.name },
      start ? `…${image.name.slice(start)}` : image.name,
    ),
    element("span", { className: "state" }),
    element("span", { className: "badge" }),
  );
  rows.set(image.number, row);
  return row;
}

function showRow(row, image, open, next) {
  const current = image === open;
  if (current && row.ariaCurrent !== "true") row.scrollIntoView({ block: "nearest" });
  row.ariaCurrent = String(current);
  row.dataset.state = image.state;
  const share = percent(image.labelled);
  row.children[2].textContent = image.state === "begun" ? `${share} labelled` : STATES[image.state];
  row.children[3].textContent = image.number === next && !current ? "next" : "";
}

function percent(share) {
  const value = share * 100;
  if (value < 0.1) return "< 0.1 %";
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} %`;
}

function showOpen(session) {
  const { image, busy, project, answer } = session;
  found("stage").classList.toggle("busy", busy);
  found("accept").disabled = found("empty").disabled = !image || busy;
  if (!image) return;
  const at = project.images.indexOf(image) + 1;
  found("name").textContent = image.name;
  found("place").textContent =
    `${at} of ${project.images.length} · ${image.width} × ${image.height}`;
  const closed = isDone(image);
  found("closed").hidden = !closed;
  found("closed-text").textContent =
    image.state === "empty" ? "Accepted as background only." : "This image is accepted.";
  found("waiting").hidden = closed || Boolean(answer);
  found("waiting").textContent =
    session.painted.size > 1
      ? "Predicting the rest of the picture…"
      : "Paint a few strokes of two classes. The rest of the picture is then predicted.";
}

// Tools

function makeTools(session) {
  found("tools").replaceChildren(
    ...TOOLS.map(({ name, title, does }) =>
      element(
        "button",
        {
          type: "button",
          id: `tool-${name}`,
          title: `${title}: ${does}`,
          onclick: () => session.choose(name),
        },
        icon(name),
        element("kbd", {}, TOOL_KEYS[name]),
        element("span", {}, title),
      ),
    ),
  );
  // The slider is steeper for large brushes: a step changes every size by a similar share.
  const slider = found("size");
  slider.addEventListener("input", () => session.resize(SIZES.most ** (slider.value / 100)));
  showTools(session);
}

function showTools(session) {
  for (const { name } of TOOLS) {
    found(`tool-${name}`).ariaPressed = String(session.tool === name);
  }
  const { size, tool, regions, image } = session;
  found("size").value = (Math.log(size) / Math.log(SIZES.most)) * 100;
  found("size-value").textContent = `${size} px`;
  found("size").ariaValueText = `${size} pixels`;
  found("size-row").hidden = ["lasso", "take"].includes(tool);
  found("finding").hidden = tool !== "edges" || Boolean(regions) || !image;
}

// View

function makeView(session, stage) {
  found("opacity").addEventListener("input", (event) =>
    session.setOpacity(event.target.value / 100),
  );
  for (const side of ["low", "high"]) {
    let timer = 0;
    found(side).addEventListener("input", () => {
      showWindow();
      clearTimeout(timer); // tiles are fetched when the slider rests
      const { image } = session;
      const chosen = windowOf(); // another panel may set the sliders back meanwhile
      timer = setTimeout(() => {
        if (image === session.image) session.show({ ...session.shown, ...chosen });
      }, 150);
    });
  }
  found("stretch").addEventListener("click", () => stretch(session));
  found("channels").addEventListener("change", (event) => {
    session.show({ channels: event.target.value });
  });
  showView(session, stage);
}

function windowOf() {
  const [low, high] = ["low", "high"].map((side) => +found(side).value);
  const [from, to] = [Math.min(low, high), Math.max(low, high)];
  return { low: from, high: to > from ? to : from + 1e-3 };
}

function showWindow() {
  const { low, high } = windowOf();
  const digits = found("low").step === "any" ? 3 : 0;
  found("window").textContent = `${low.toFixed(digits)} to ${high.toFixed(digits)}`;
}

/** Return the channels that are shown, as text. Of more than three it is the first by itself. */
function channelsShown({ range, shown }) {
  return shown.channels ?? (range.channels.length > 3 ? "0" : [...range.channels.keys()].join());
}

/**
 * Return windows of the pixels in view: the one of percentiles (`stretched`), the `whole` range,
 * and the one that is shown `now`. `isStretched` tells whether that is the stretched one. Deep
 * images are stretched unless another window is asked for.
 */
function windows(session) {
  const { image, range, shown } = session;
  const seen = channelsShown(session)
    .split(",")
    .map((i) => range.channels[i]);
  const span = (low, high) => ({
    low: Math.min(...seen.map((channel) => channel[low])),
    high: Math.max(...seen.map((channel) => channel[high])),
  });
  const stretched = span("low", "high");
  const bytes = image.depth === "uint8";
  const whole = bytes ? { low: 0, high: 255 } : span("min", "max");
  const own = bytes ? whole : stretched;
  const now = { low: shown.low ?? own.low, high: shown.high ?? own.high };
  const isStretched = now.low === stretched.low && now.high === stretched.high;
  return { stretched, whole, now, isStretched };
}

/** Stretch the contrast to the 1st and 99.8th percentile of the pixels in view, or back. */
export function stretch(session) {
  if (!session.range) return;
  const { stretched, whole, isStretched } = windows(session);
  const { low, high } = isStretched ? whole : stretched;
  if (low < high) session.show({ ...session.shown, low, high });
}

function showView(session, stage) {
  found("opacity").value = Math.round(stage.opacity * 100);
  found("opacity-value").textContent = `${Math.round(stage.opacity * 100)} %`;
  const { range, image } = session;
  found("contrast").hidden = !range;
  if (!range) return;
  const { stretched, whole, now, isStretched } = windows(session);
  const ends = [...Object.values(stretched), ...Object.values(whole), ...Object.values(now)];
  for (const side of ["low", "high"]) {
    const slider = found(side);
    slider.step = image.depth.startsWith("float") ? "any" : 1;
    slider.min = Math.floor(Math.min(...ends));
    slider.max = Math.ceil(Math.max(...ends));
    slider.value = now[side];
  }
  found("stretch").ariaPressed = String(isStretched);
  showWindow();
  found("channel-row").hidden = image.channels <= 3;
  const { channels } = range;
  const chosen = channelsShown(session);
  const option = (value, text) => element("option", { value, selected: value === chosen }, text);
  found("channels").replaceChildren(
    ...channels.map((_, i) => option(`${i}`, `Channel ${i + 1}`)),
    ...channels.slice(2).map((_, i) => {
      const text = `${i + 1}, ${i + 2}, ${i + 3} as red, green, blue`;
      return option(`${i},${i + 1},${i + 2}`, text);
    }),
  );
}

// The state of saving, and messages

function showSaving({ outbox, connected, stranger, pages }) {
  found("pages").hidden = pages < 2;
  found("pages").textContent = `Open in ${pages} windows`;
  const kept = `${outbox.length} change${outbox.length === 1 ? "" : "s"}`;
  let [state, text, title] = ["saved", "All saved", "Every stroke is on disk."];
  if (stranger) {
    [state, text, title] = ["lost", "The server was started anew", sentence(stranger)];
  } else if (outbox.state === "lost" || !connected) {
    [state, text] = ["lost", "No connection"];
    title = sentence(outbox.problem) || "The server does not answer.";
  } else if (outbox.length) {
    [state, text, title] = ["saving", "Saving…", `${kept} on the way to the disk.`];
  }
  if (state === "lost" && outbox.length) {
    text += `: ${kept} kept here`;
    title += " Your strokes are kept in this page, and sent when the server answers again.";
  }
  const line = found("saving");
  line.dataset.state = state;
  line.title = title;
  found("saving-text").textContent = text;
}

/** Return words of the server as a sentence. */
function sentence(text) {
  return text && text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

function showNumbers(session) {
  const { project, suspects } = session;
  showScore(project.score);
  showTraining(project.training, session.answer?.by);
  found("suspects").hidden = !suspects.length;
  found("suspects-text").textContent =
    suspects.length === 1
      ? "1 accepted image looks wrong"
      : `${suspects.length} accepted images look wrong`;
}

let quiet = 0;

function say(text) {
  found("toast").textContent = sentence(text);
  found("toast").classList.add("shown");
  clearTimeout(quiet);
  quiet = setTimeout(() => found("toast").classList.remove("shown"), 4000 + text.length * 40);
}

/** The requests of the page. Addresses are relative, so that the page works behind a proxy. */

import { unpackRuns } from "./labels.js";

/** The name of this page: others hear of its strokes, and it of theirs. */
export const PAGE = crypto.getRandomValues(new Uint32Array(2)).join("-");

const CHUNK = 2 ** 20; // bytes packed before others may have a turn

/** The server said no: `status` and its words. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The server was not reached, or could not do it now; worth another try. */
export class Lost extends Error {}

async function call(method, path, options = {}) {
  let response;
  try {
    response = await fetch(`api/${path}`, { method, ...options });
  } catch {
    throw new Lost("The server does not answer.");
  }
  if (response.ok) return response;
  const words = await response.json().catch(() => ({}));
  const message = words.error || `The server answered ${response.status}.`;
  if (response.status >= 500) throw new Lost(message);
  throw new Refused(response.status, message);
}

// The connection may break after the head of an answer, and a proxy may send a page of its own.
async function content(response, kind) {
  try {
    return await response[kind]();
  } catch {
    throw new Lost("The answer of the server did not arrive.");
  }
}

async function callJson(method, path, body) {
  const options = { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  return content(await call(method, path, body === undefined ? {} : options), "json");
}

/** Return a map `{width, height, data}` from a response whose headers begin with `name`. */
async function map(response, name, Kind) {
  if (response.status === 204) return null;
  const [width, height] = ["Width", "Height"].map((s) => +response.headers.get(`${name}-${s}`));
  const data = new Kind(await content(response, "arrayBuffer"));
  if (data.length !== width * height) throw new Lost(`${name}: ${data.length} pixels arrived.`);
  return { width, height, data };
}

export const project = () => callJson("GET", "project");
export const suspects = () => callJson("GET", "suspects");
export const range = (number) => callJson("GET", `images/${number}/range`);
export const putClasses = (classes, revision) => callJson("PUT", "classes", { classes, revision });
export const accept = (number, empty) =>
  callJson("POST", `images/${number}/accept?page=${PAGE}`, { empty });
export const reopen = (number) => callJson("POST", `images/${number}/reopen`, {});
export const train = (on) => callJson("POST", "train", { on });

/** Open an image. Return its labels, and as `next` the image that is suggested after it, or null. */
export async function labels(number) {
  const response = await call("GET", `images/${number}/labels`);
  const next = response.headers.get("Labels-Next");
  return { ...(await map(response, "Labels", Uint8Array)), next: next === null ? null : +next };
}

export const regions = async (number) =>
  map(await call("GET", `images/${number}/regions`), "Regions", Int32Array);

/** Return the answer of an image with its `version` and `by`, or null while there is none. */
export async function answer(number) {
  const response = await call("GET", `images/${number}/answer`);
  const found = await map(response, "Answer", Uint8Array);
  const [version, by] = ["Version", "By"].map((name) => response.headers.get(`Answer-${name}`));
  return found && { ...found, version: +version, by };
}

/**
 * Return the address of a tile. `shown` holds `low`, `high` and `channels`, where they are not the
 * server's own; `key` names this run of the server: its tiles may be kept.
 */
export function tileAddress(number, key, shown = {}) {
  const query = new URLSearchParams({ ...shown, key });
  return (level, x, y) => `api/images/${number}/tiles/${level}/${x}/${y}?${query}`;
}

/**
 * Send a rectangle of labels, packed as runs; the server has stored it when this returns. It refuses
 * labels of a `revision` of the classes whose numbers meant others.
 */
export async function putLabels(number, { x, y, width, height, runs }, stroke, revision) {
  const query = new URLSearchParams({ x, y, width, height, stroke, revision, page: PAGE });
  const body = await gzip(unpackRuns(runs, width * height));
  const headers = { "Content-Type": "application/octet-stream", "Content-Encoding": "gzip" };
  const answer = await call("PUT", `images/${number}/labels?${query}`, { headers, body });
  const { saved } = await content(answer, "json");
  if (!saved) throw new Lost("The server did not say that the stroke is stored.");
}

// In steps: the browser packs where it paints, and a frame must not wait for a large rectangle.
async function gzip(bytes) {
  const stream = new CompressionStream("gzip");
  const packed = new Response(stream.readable).arrayBuffer();
  const writer = stream.writable.getWriter();
  for (let at = 0; at < bytes.length; at += CHUNK) {
    await writer.write(bytes.subarray(at, at + CHUNK));
    if (at + CHUNK < bytes.length) await new Promise((done) => setTimeout(done));
  }
  writer.close();
  return packed;
}

/** Tell the server that this page closes: a proxy may keep its stream of events open. */
export const leave = () => navigator.sendBeacon(`api/leave?page=${PAGE}`);

/** Call `on[name](data)` for the server's events, and `onConnection(true or false)`. */
export function listen(on, onConnection) {
  const source = new EventSource(`api/events?page=${PAGE}`);
  source.onopen = () => onConnection(true);
  source.onerror = () => {
    onConnection(false);
    if (source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
    setTimeout(() => listen(on, onConnection), 2000);
  };
  for (const [name, react] of Object.entries(on)) {
    source.addEventListener(name, (event) => react(JSON.parse(event.data)));
  }
}

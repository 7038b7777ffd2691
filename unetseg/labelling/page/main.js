/** Put the page together: the stage, the session, the panels, the keys. */

import * as api from "./api.js";
import { addClass, editClass } from "./classes.js";
import { found } from "./dom.js";
import * as keys from "./keys.js";
import { showPanels, stretch } from "./panels.js";
import { Session } from "./session.js";
import { Stage } from "./stage.js";
import { Pointer } from "./tools.js";

const stage = new Stage(found("stage"), (scale) => {
  found("zoom").textContent = `${Math.round(scale * 100)} %`;
});
const session = new Session(stage);
const pointer = new Pointer(session, stage);
const help = found("help");

const page = {
  accept: () => pointer.tool.close?.() || session.accept(),
  empty: () => session.accept(true),
  addClass: () => addClass(session),
  editClass: () => editClass(session),
  stretch: () => stretch(session),
  help: () => (help.open ? help.close() : help.showModal()),
  theme: () => {
    const chosen = document.documentElement.dataset.theme;
    const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    setTheme(dark ? "light" : "dark");
  },
};

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("unetseg-theme", theme);
}

const groups = keys.commands({ session, stage, pointer, page });
found("help-body").append(...keys.help(groups));
// Typed text is text. A focused button keeps the keys that press it.
keys.listen(groups, ({ target, key }) => {
  if (help.open) return key !== "?";
  if (target.matches("input[type=text], select")) return true;
  if (target.matches("input[type=range]")) return /^(Arrow|Page)/.test(key);
  if (target.matches("input[type=color]")) return key === "Enter" || key === " ";
  return target.matches("button, summary") && (key === "Enter" || key === " ");
});

const press = {
  accept: page.accept,
  empty: page.empty,
  "add-class": page.addClass,
  "help-open": page.help,
  "help-close": page.help,
  "theme-switch": page.theme,
  undo: () => session.undo(),
  redo: () => session.redo(),
  fit: () => stage.fit(),
  reopen: () => session.reopen(),
  suspects: () => session.openSuspect(),
  "training-switch": () => session.train(!session.project.training.on),
};
for (const [id, run] of Object.entries(press)) found(id).addEventListener("click", run);

// A button pressed by the mouse does not keep the keyboard: Enter accepts, Space moves the image.
document.addEventListener("click", ({ detail, target }) => {
  const { activeElement } = document;
  if (detail && !help.open && target.closest("button") === activeElement) found("stage").focus();
});
document.addEventListener("change", ({ target }) => {
  const byKeys = target.matches(":focus-visible"); // the next arrow is for the slider, too
  if (!byKeys && target.matches("aside input:not([type=text]), aside select")) found("stage").focus();
});

window.addEventListener("beforeunload", (event) => {
  if (session.unsaved) event.preventDefault(); // the browser asks whether to leave
});

window.addEventListener("pagehide", api.leave);

const theme = localStorage.getItem("unetseg-theme");
if (theme) document.documentElement.dataset.theme = theme;
showPanels(session, stage);
session.start().catch((error) => {
  found("failed").hidden = false;
  found("failed-text").textContent = error.message;
});
window.unetseg = { session, stage }; // for tests, and for the curious

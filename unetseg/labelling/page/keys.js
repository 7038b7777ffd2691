/** Every command of the page with its keys: one table for the keyboard and for the help. */

import { element } from "./dom.js";

const PAN = 80; // pixels of the page that an arrow key moves the image

/**
 * Return groups of commands, each `{keys, text, run}`; the keys are written as `name` returns them.
 * `run` is called with the event, `release` when the key is let go. With `once` a key that is held
 * runs no second time.
 */
export function commands({ session, stage, pointer, page }) {
  const choose = (tool) => () => session.choose(tool);
  return [
    [
      "Images",
      [
        {
          keys: ["Enter"],
          once: true,
          text: "Accept this image; go to the one that teaches most",
          run: page.accept,
        },
        {
          keys: ["0"],
          once: true,
          text: "Accept as background only: nothing to label here",
          run: page.empty,
        },
        { keys: ["n", "PageDown"], text: "Next image in the list", run: () => session.go(1) },
        { keys: ["p", "PageUp"], text: "Previous image in the list", run: () => session.go(-1) },
        { keys: ["r"], text: "Reopen an accepted image", run: () => session.reopen() },
        {
          keys: ["s"],
          text: "Go to an accepted image that looks wrong",
          run: () => session.openSuspect(),
        },
      ],
    ],
    [
      "Tools",
      [
        { keys: ["b"], text: "Brush; Shift and click draws a straight line", run: choose("brush") },
        {
          keys: ["e"],
          text: "Eraser; the right button erases with any tool",
          run: choose("eraser"),
        },
        {
          keys: ["g"],
          text: "Edge brush: stays in the regions that it touches",
          run: choose("edges"),
        },
        {
          keys: ["l"],
          text: "Lasso by dragging, polygon by clicking its corners",
          run: choose("lasso"),
        },
        {
          keys: ["t"],
          text: "Take a region of the prediction; with Shift as the current class",
          run: choose("take"),
        },
        {
          keys: ["["],
          also: "Shift and wheel",
          text: "Smaller brush",
          run: () => session.grow(-1),
        },
        { keys: ["]"], also: "Shift and wheel", text: "Larger brush", run: () => session.grow(1) },
        { keys: ["Ctrl z", "z"], text: "Undo", run: () => session.undo() },
        { keys: ["Ctrl Shift z", "Ctrl y", "y"], text: "Redo", run: () => session.redo() },
        { keys: ["Escape"], text: "Give up the stroke or polygon", run: () => pointer.cancel() },
        {
          keys: ["Backspace"],
          text: "Take back a corner of the polygon",
          run: () => pointer.tool.back?.(),
        },
      ],
    ],
    [
      "Classes",
      [
        ...[1, 2, 3, 4, 5, 6, 7, 8, 9].map((n) => ({
          keys: [`${n}`],
          hidden: n > 1,
          shown: "1 to 9",
          text: "Choose a class",
          run: () => session.chooseClass(n - 1),
        })),
        { keys: ["q"], text: "Choose the class under the pointer", run: () => pointer.pick() },
        {
          keys: ["k"],
          text: "Lock the other classes, or unlock all",
          run: () => session.lockOthers(),
        },
        { keys: ["a"], text: "Add a class", run: page.addClass },
        { keys: ["F2"], text: "Change the current class", run: page.editClass },
      ],
    ],
    [
      "View",
      [
        { keys: ["+", "="], also: "wheel", text: "Zoom in", run: () => stage.zoom(1.25) },
        { keys: ["-"], also: "wheel", text: "Zoom out", run: () => stage.zoom(0.8) },
        { keys: ["f"], text: "Fit the image into the window", run: () => stage.fit() },
        { keys: ["d"], text: "Show the pixels at their own size", run: () => stage.actual() },
        { keys: ["ArrowLeft"], hidden: true, run: () => stage.pan(PAN, 0) },
        { keys: ["ArrowRight"], hidden: true, run: () => stage.pan(-PAN, 0) },
        { keys: ["ArrowDown"], hidden: true, run: () => stage.pan(0, -PAN) },
        {
          keys: ["ArrowUp"],
          shown: "Arrows",
          also: "Space and drag",
          text: "Move the image",
          run: () => stage.pan(0, PAN),
        },
        {
          keys: [" "],
          hidden: true,
          run: () => (pointer.space = true),
          release: () => (pointer.space = false),
        },
        {
          keys: ["h"],
          text: "Hide labels while held",
          run: () => stage.hide(true),
          release: () => stage.hide(false),
        },
        {
          keys: [","],
          text: "Labels more transparent",
          run: () => session.setOpacity(stage.opacity - 0.1),
        },
        {
          keys: ["."],
          text: "Labels less transparent",
          run: () => session.setOpacity(stage.opacity + 0.1),
        },
        {
          keys: ["c"],
          text: "Stretch the contrast, or show the picture as it is",
          run: page.stretch,
        },
        { keys: ["m"], text: "Light or dark page", run: page.theme },
        { keys: ["?"], text: "Show or close this help", run: page.help },
      ],
    ],
    [
      "Without a mouse",
      [
        { keys: ["Shift ArrowLeft"], hidden: true, run: () => pointer.step(-1, 0) },
        { keys: ["Shift ArrowRight"], hidden: true, run: () => pointer.step(1, 0) },
        { keys: ["Shift ArrowDown"], hidden: true, run: () => pointer.step(0, 1) },
        {
          keys: ["Shift ArrowUp"],
          shown: "Shift Arrows",
          text: "Move the tool",
          run: () => pointer.step(0, -1),
        },
        {
          keys: ["x", "Shift x"],
          text: "Press the tool down, or lift it",
          run: (event) => pointer.pen(event.shiftKey),
        },
      ],
    ],
  ];
}

/** Return whether AltGr or Option only types a sign, such as "[" on many layouts. */
function typesSign(event) {
  const held = event.altKey || event.getModifierState("AltGraph");
  return held && /^[^a-z0-9\s]$/i.test(event.key);
}

/** Return the name of a key with the keys held beside it: "Ctrl Shift z", "?", "ArrowLeft". */
export function name(event) {
  if (typesSign(event)) return event.key;
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1]; // on any layout
  const letter = /^[a-z]$/i.test(event.key);
  const sign = event.shiftKey && !/^\d$/.test(event.key); // such as "=", which is Shift 0 on many
  const key = digit && !event.ctrlKey && !sign ? digit : letter ? event.key.toLowerCase() : event.key;
  const shift = event.shiftKey && (letter || event.key.startsWith("Arrow"));
  return [(event.ctrlKey || event.metaKey) && "Ctrl", shift && "Shift", key]
    .filter(Boolean)
    .join(" ");
}

/** Let the keyboard run commands, except where text is typed or a dialogue is open. */
export function listen(groups, isBlocked) {
  const table = new Map();
  for (const [, list] of groups) {
    for (const command of list) command.keys.forEach((key) => table.set(key, command));
  }
  const held = new Set();
  document.addEventListener("keydown", (event) => {
    const command = table.get(name(event));
    if (!command || (event.altKey && !typesSign(event)) || isBlocked(event)) return;
    event.preventDefault();
    if (event.repeat && command.once) return;
    if (command.release) {
      if (held.has(command)) return;
      held.add(command);
    }
    command.run(event);
  });
  const release = (command) => held.delete(command) && command.release();
  document.addEventListener("keyup", (event) => {
    const key = event.key.toLowerCase();
    for (const command of held) if (command.keys.includes(key)) release(command);
  });
  window.addEventListener("blur", () => held.forEach(release));
}

const SHOWN = { " ": "Space", Escape: "Esc", PageDown: "Page down", PageUp: "Page up" };

/** Return the help: a section a group, a line a command. */
export function help(groups) {
  const key = (text) =>
    element("kbd", {}, SHOWN[text] || text.replace(/\b[a-z]$/, (c) => c.toUpperCase()));
  const line = ({ keys, shown, also, text }) =>
    element(
      "div",
      { className: "command" },
      element(
        "dt",
        {},
        ...(shown ? [key(shown)] : keys.map(key)),
        also ? element("small", {}, also) : "",
      ),
      element("dd", {}, text),
    );
  return groups.map(([title, list]) =>
    element(
      "section",
      {},
      element("h3", {}, title),
      element("dl", {}, ...list.filter((c) => !c.hidden).map(line)),
    ),
  );
}

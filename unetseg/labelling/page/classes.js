/** The list of classes: choose, colour, name, lock, add and remove them. */

import { element, found, iconButton } from "./dom.js";

/** Show the classes with their colours, names, keys and locks. */
export function showClasses(session) {
  const { classes } = session.project;
  found("no-classes").hidden = classes.length > 0;
  found("classes").replaceChildren(...classes.map((c, i) => classRow(session, c, i)));
}

function changed(session, index, change) {
  return session.project.classes.map(({ name, colour }, was) => {
    return { name, colour, was, ...(was === index ? change : {}) };
  });
}

function classRow(session, { name, colour }, index) {
  const locked = session.locked.has(index);
  const swatch = element("input", {
    type: "color",
    value: colour,
    title: `Colour of ${name}`,
    "aria-label": `Colour of ${name}`,
  });
  swatch.addEventListener("change", () =>
    session.putClasses(changed(session, index, { colour: swatch.value })),
  );
  const choose = element(
    "button",
    {
      type: "button",
      className: "choose",
      ariaPressed: String(session.current === index),
      onclick: () => session.chooseClass(index),
      ondblclick: () => editClass(session, index),
    },
    element("span", { className: "name", title: name }, name),
    element("kbd", {}, index < 9 ? `${index + 1}` : ""),
  );
  const edit = iconButton("edit", `Rename or remove ${name}`, {
    onclick: () => editClass(session, index),
  });
  const lock = iconButton(locked ? "locked" : "unlocked", `Lock ${name}`, {
    className: "small lock",
    title: locked ? `Unlock ${name}` : `Lock ${name}: no stroke changes it`,
    ariaPressed: String(locked),
    onclick: () => session.lock(index),
  });
  return element("li", { className: "class" }, swatch, choose, edit, lock);
}

/** Put a form in the place of a class: its name, and a button that removes it. */
export function editClass(session, index = session.current) {
  const { classes } = session.project;
  if (!classes[index]) return;
  const rest = changed(session, index, {}).filter((c) => c.was !== index);
  const remove = iconButton("remove", `Remove ${classes[index].name}`, {
    title: "Remove this class",
    onclick: () => session.putClasses(rest),
  });
  const form = nameForm(session, classes[index].name, (name) =>
    session.putClasses(changed(session, index, { name })),
  );
  if (classes.length > 1) form.append(remove);
  found("classes").children[index].replaceChildren(form);
  form.elements[0].select();
}

/** Ask for the name of a new class below the others. */
export function addClass(session) {
  const add = async (name) => {
    const done = await session.putClasses([
      ...changed(session, -1, {}),
      { name, colour: null, was: null },
    ]);
    if (done) session.chooseClass(session.project.classes.length - 1);
    return done;
  };
  const form = nameForm(session, "", add);
  found("classes").append(element("li", { className: "class" }, form));
  form.elements[0].focus();
}

function nameForm(session, name, store) {
  const input = element("input", {
    type: "text",
    value: name,
    maxLength: 200,
    placeholder: "Name of the class",
    required: true,
    ariaLabel: "Name of the class",
  });
  const save = iconButton("done", "Save", { type: "submit" });
  const form = element("form", { className: "edit" }, input, save);
  const back = () => {
    showClasses(session);
    found("stage").focus();
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (!text || text === name || (await store(text))) back();
  });
  form.addEventListener("keydown", (event) => event.key === "Escape" && back());
  return form;
}

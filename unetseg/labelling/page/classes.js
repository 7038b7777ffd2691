/** The list of classes: choose, colour, name, lock, add and remove them. */

import { element, found, icon, iconButton } from "./dom.js";

const rows = new Map(); // class -> its row; a row stays while its class does, and so does its focus
let form = null; // the field for a name that is open; nothing but its person changes it

/** Show the classes with their colours, names, keys and locks. */
export function showClasses(session) {
  const { classes } = session.project;
  found("no-classes").hidden = classes.length > 0;
  for (const [old, row] of rows) {
    if (classes.includes(old)) continue;
    row.line.remove();
    rows.delete(old);
  }
  classes.forEach((c, index) => {
    if (!rows.has(c)) {
      rows.set(c, makeRow(session, c));
      found("classes").insertBefore(rows.get(c).line, found("classes").children[index] ?? null);
    }
    showRow(session, rows.get(c), c, index);
  });
}

/** Return all classes as they are stored, but for `change` of one of them. */
function changed(classes, one, change) {
  return classes.map((c, was) => {
    return { name: c.name, colour: c.colour, was, ...(c === one ? change : {}) };
  });
}

function makeRow(session, c) {
  const index = () => session.project.classes.indexOf(c);
  const edit = () => editClass(session, index());
  const swatch = element("input", { type: "color" });
  swatch.addEventListener("change", async () => {
    const colour = swatch.value;
    await session.changeClasses((classes) => changed(classes, c, { colour }));
    showClasses(session); // the old colour, where that was refused
  });
  const name = element("span", { className: "name" });
  const key = element("kbd", {});
  const choose = element(
    "button",
    {
      type: "button",
      className: "choose",
      onclick: () => session.chooseClass(index()),
      ondblclick: edit,
    },
    name,
    key,
  );
  const change = iconButton("edit", "", { onclick: edit });
  const lock = iconButton("unlocked", "", {
    className: "small lock",
    onclick: () => session.lock(index()),
  });
  const parts = [swatch, choose, change, lock];
  const line = element("li", { className: "class" }, ...parts);
  return { line, parts, swatch, choose, name, key, change, lock };
}

function showRow(session, row, { name, colour }, index) {
  const locked = session.locked.has(index);
  const { swatch, choose, change, lock } = row;
  if (document.activeElement !== swatch) swatch.value = colour; // its picker may be open
  swatch.title = swatch.ariaLabel = `Colour of ${name}`;
  choose.ariaPressed = String(session.current === index);
  row.name.title = row.name.textContent = name;
  row.key.textContent = index < 9 ? `${index + 1}` : "";
  change.title = change.ariaLabel = `Rename or remove ${name}`;
  lock.replaceChildren(icon(locked ? "locked" : "unlocked"));
  lock.title = locked ? `Unlock ${name}` : `Lock ${name}: no stroke changes it`;
  lock.ariaLabel = `Lock ${name}`;
  lock.ariaPressed = String(locked);
}

/** Put a form in the place of a class: its name, and a button that removes it. */
export function editClass(session, index = session.current) {
  const c = session.project.classes[index];
  if (!c) return;
  const { line, parts } = rows.get(c);
  openForm(
    c.name,
    (name) => session.changeClasses((classes) => changed(classes, c, { name })),
    () => line.replaceChildren(...parts),
  );
  if (session.project.classes.length > 1) {
    const remove = iconButton("remove", `Remove ${c.name}`, {
      title: "Remove this class",
      onclick: () =>
        session.changeClasses((classes) =>
          changed(classes).filter(({ was }) => classes[was] !== c),
        ),
    });
    form.append(remove);
  }
  line.replaceChildren(form);
  form.elements[0].select();
}

/** Ask for the name of a new class below the others. */
export function addClass(session) {
  const add = async (name) => {
    const made = { name, colour: null, was: null };
    const done = await session.changeClasses((classes) => [...changed(classes), made]);
    if (done) session.chooseClass(session.project.classes.findIndex((c) => c.name === name));
    return done;
  };
  const line = element("li", { className: "class" });
  openForm("", add, () => line.remove());
  line.append(form);
  found("classes").append(line);
  form.elements[0].focus();
}

/** Make `form` a field for a name. `store` returns whether it took the name; `remove` ends it. */
function openForm(name, store, remove) {
  form?.close();
  const input = element("input", {
    type: "text",
    value: name,
    maxLength: 200,
    placeholder: "Name of the class",
    required: true,
    ariaLabel: "Name of the class",
  });
  const save = iconButton("done", "Save", { type: "submit" });
  const own = element("form", { className: "edit" }, input, save);
  own.close = () => {
    if (form !== own) return;
    form = null;
    const hadFocus = own.contains(document.activeElement);
    remove();
    if (hadFocus) found("stage").focus();
  };
  own.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (input.readOnly) return; // the name is on its way
    input.readOnly = true;
    const text = input.value.trim();
    if (!text || text === name || (await store(text))) own.close();
    input.readOnly = false;
  });
  own.addEventListener("keydown", (event) => event.key === "Escape" && own.close());
  form = own;
}

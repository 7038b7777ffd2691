/** Elements of the page, made without markup: text stays text. */

const SVG = "http://www.w3.org/2000/svg";

/** Return an element with properties; names with a hyphen, and `role`, are attributes. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** Return an element of SVG with attributes. */
export function drawing(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Return one of the icons that the page declares as symbols. */
export function icon(name) {
  return drawing(
    "svg",
    { class: "icon", "aria-hidden": "true" },
    drawing("use", { href: `#icon-${name}` }),
  );
}

/** Return a button of an icon alone. `label` is its name, and its title unless one is given. */
export function iconButton(name, label, properties = {}) {
  const own = { type: "button", className: "small", title: label, "aria-label": label };
  return element("button", { ...own, ...properties }, icon(name));
}

/** Return a paragraph in small letters. */
export function hint(text) {
  return element("p", { className: "hint" }, text);
}

/** Return the element of the page with an id. */
export function found(id) {
  return document.getElementById(id);
}

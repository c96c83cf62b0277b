// A form for any OpenAPI schema of Kubernetes. It knows no field of ModelDeployments by name.

import { el, fill, prose } from "./dom.js";
import { bounds, isEmpty, kindOf, setAt, titleOf, valueAt, written } from "./schema.js";

let counter = 0;

/**
 * A form that edits `object` in place and calls `changed` after each edit. Returns its element and `showErrors`.
 */
export function form(schema, object, path, changed) {
  const fields = new Map();
  const context = { object, changed, fields };
  const element = el("div", { class: "form" }, properties(context, schema, path));
  return { element, showErrors: (causes) => showErrors(fields, causes) };
}

function properties(context, schema, path) {
  const required = schema.required || [];
  const entries = Object.entries(schema.properties || {});
  const isGroup = ([, of]) => ["group", "items"].includes(kindOf(of));
  // What is required comes first, plain fields before groups.
  const rank = (entry) => (required.includes(entry[0]) ? 0 : 2) + (isGroup(entry) ? 1 : 0);
  entries.sort((a, b) => rank(a) - rank(b));
  // Where one of several groups must be chosen, the first one is open.
  const isChoice = required.length === 0 && isEmpty(valueAt(context.object, path)) && path.length > 1;
  const opened = isChoice ? entries.find(isGroup) : undefined;
  return entries.map((entry) => {
    const [name, of] = entry;
    return field(context, name, of, [...path, name], required.includes(name) || (entry === opened && "open"));
  });
}

function field(context, name, schema, path, isRequired) {
  const kind = kindOf(schema);
  if (isRequired === "open" && kind !== "group") isRequired = false;
  if (kind === "group") return group(context, name, schema, path, isRequired);
  if (kind === "items") return items(context, name, schema, path);
  const id = `field-${counter += 1}`;
  const control = CONTROLS[kind](context, schema, path, { id, "aria-describedby": `${id}-help`, required: isRequired });
  return labelled(context, { id, name, schema, path, isRequired }, control);
}

function labelled(context, { id, name, schema, path, isRequired }, control) {
  const limits = bounds(schema);
  const help = [schema.description, limits && `Range: ${limits}.`].filter(Boolean).join(" ");
  const error = el("p", { class: "error", id: `${id}-error`, role: "alert", hidden: true });
  const element = el("div", { class: "field" },
    el("label", { for: id }, titleOf(name, schema), isRequired && el("span", { class: "required" }, " required")),
    control,
    el("p", { class: "help", id: `${id}-help` }, prose(help)),
    error);
  context.fields.set(written(path), { element, control, error });
  return element;
}

function group(context, name, schema, path, isRequired) {
  const value = valueAt(context.object, path);
  const error = el("p", { class: "error", role: "alert", hidden: true });
  const count = el("span", { class: "count" });
  const body = el("div", { class: "group-body" });
  const element = el("details", { class: "group", open: isRequired || !isEmpty(value) },
    el("summary", {}, titleOf(name, schema), " ", count), el("p", { class: "help" }, prose(schema.description)), error, body);
  // A group is built when it is opened, because schemas such as affinity are deep.
  const build = () => {
    if (element.open && !body.hasChildNodes()) body.append(...properties(context, schema, path));
  };
  element.addEventListener("toggle", build);
  build();
  context.fields.set(written(path), { element, error, open: () => { element.open = true; build(); } });
  return element;
}

function items(context, name, schema, path) {
  const list = el("div", { class: "items" });
  const error = el("p", { class: "error", role: "alert", hidden: true });
  const redraw = () => {
    const values = valueAt(context.object, path) || [];
    fill(list, values.map((_, index) => el("div", { class: "item" },
      el("div", { class: "item-body" }, item(context, schema.items, [...path, index])),
      el("button", { type: "button", class: "small", "aria-label": `Remove ${titleOf(name, schema)} ${index + 1}`, onclick: () => {
        setAt(context.object, path, values.length > 1 ? values.filter((_, other) => other !== index) : undefined);
        redraw();
        context.changed();
      } }, "Remove"))));
  };
  const add = el("button", { type: "button", class: "small", onclick: () => {
    const values = valueAt(context.object, path) || [];
    setAt(context.object, path, [...values, kindOf(schema.items) === "group" ? {} : ""]);
    redraw();
    context.changed();
  } }, `Add to ${titleOf(name, schema).toLowerCase()}`);
  redraw();
  const element = el("details", { class: "group", open: !isEmpty(valueAt(context.object, path)) },
    el("summary", {}, titleOf(name, schema)), el("p", { class: "help" }, prose(schema.description)), error, list, add);
  context.fields.set(written(path), { element, error, open: () => { element.open = true; } });
  return element;
}

function item(context, schema, path) {
  return kindOf(schema) === "group" ? properties(context, schema, path) : field(context, "value", schema, path, true);
}

/** The control of each kind. */
const CONTROLS = {
  line: (context, schema, path, attributes) => input(context, path, { type: "text", maxlength: schema.maxLength, ...attributes }, (text) => text || undefined),
  quantity: (context, schema, path, attributes) => input(context, path, { type: "text", maxlength: 32, placeholder: "as in 4 or 16Gi", ...attributes },
    (text) => (text === "" ? undefined : /^\d+$/.test(text) ? Number(text) : text)),
  number: (context, schema, path, attributes) => input(context, path,
    { type: "number", min: schema.minimum, max: schema.maximum, step: schema.type === "integer" ? 1 : "any", inputmode: "decimal", ...attributes },
    (text) => (text === "" ? undefined : Number(text))),
  text: (context, schema, path, attributes) => {
    const control = el("textarea", { rows: 4, maxlength: schema.maxLength, spellcheck: "false", ...attributes });
    return wired(context, path, control, (text) => text || undefined);
  },
  lines: (context, schema, path, attributes) => {
    const control = el("textarea", { rows: 2, placeholder: "one in a line", spellcheck: "false", ...attributes });
    const value = valueAt(context.object, path);
    control.value = (value || []).join("\n");
    const read = (text) => { const lines = text.split("\n").map((line) => line.trim()).filter(Boolean); return lines.length ? lines : undefined; };
    return wired(context, path, control, read, true);
  },
  choice: (context, schema, path, attributes) => {
    const choices = schema.enum.filter((value) => value !== null);
    const control = el("select", attributes, !attributes.required && el("option", { value: "" }, "Default"),
      attributes.required && valueAt(context.object, path) === undefined && el("option", { value: "" }, "Choose…"),
      choices.map((value) => el("option", { value: String(value) }, String(value))));
    const read = (text) => (text === "" ? undefined : choices.find((value) => String(value) === text));
    return wired(context, path, control, read);
  },
  toggle: (context, schema, path, attributes) => {
    const control = el("select", attributes, el("option", { value: "" }, "Default"), el("option", { value: "true" }, "On"), el("option", { value: "false" }, "Off"));
    return wired(context, path, control, (text) => (text === "" ? undefined : text === "true"));
  },
  pairs: (context, schema, path, attributes) => {
    const control = el("textarea", { rows: 2, placeholder: "key=value, one in a line", spellcheck: "false", ...attributes });
    const value = valueAt(context.object, path) || {};
    control.value = Object.entries(value).map(([key, of]) => `${key}=${of}`).join("\n");
    const pair = (line) => { const at = line.indexOf("="); return at < 0 ? [line.trim(), ""] : [line.slice(0, at).trim(), line.slice(at + 1).trim()]; };
    const read = (text) => { const lines = text.split("\n").filter((line) => line.trim()); return lines.length ? Object.fromEntries(lines.map(pair)) : undefined; };
    return wired(context, path, control, read, true);
  },
  json: (context, schema, path, attributes) => {
    const control = el("textarea", { rows: 3, placeholder: "JSON", spellcheck: "false", ...attributes });
    const value = valueAt(context.object, path);
    control.value = value === undefined ? "" : JSON.stringify(value, null, 2);
    const read = (text) => {
      if (text.trim() === "") return undefined;
      try { const value = JSON.parse(text); control.setCustomValidity(""); return value; }
      catch { control.setCustomValidity("no valid JSON"); control.reportValidity(); return valueAt(context.object, path); }
    };
    return wired(context, path, control, read, true);
  },
};

function input(context, path, attributes, read) {
  return wired(context, path, el("input", { autocomplete: "off", spellcheck: "false", ...attributes }), read);
}

function wired(context, path, control, read, hasValue = false) {
  const value = valueAt(context.object, path);
  if (!hasValue) control.value = value === undefined || value === null ? "" : String(value);
  control.addEventListener("input", () => {
    setAt(context.object, path, read(control.value));
    context.changed();
  });
  return control;
}

/** Shows each cause at its field, or at the nearest group around it. Returns those that have no field. */
function showErrors(fields, causes) {
  for (const { control, error } of fields.values()) {
    error.hidden = true;
    error.textContent = "";
    if (control) control.removeAttribute("aria-invalid");
  }
  return causes.filter(({ field: name, message }) => {
    let key = name || "";
    while (key && !fields.has(key)) key = around(key);
    const found = fields.get(key);
    if (!found) return true;
    found.error.textContent = [found.error.textContent, plain(message)].filter(Boolean).join(" ");
    found.error.hidden = false;
    if (found.control) found.control.setAttribute("aria-invalid", "true");
    if (found.open) found.open();
    for (let outer = found.element.closest("details"); outer; outer = outer.parentElement.closest("details")) outer.open = true;
    return false;
  });
}

/** The path around a path; empty at the top. */
function around(path) {
  const shorter = path.replace(/(\.[^.[\]]+|\[[^\]]*\])$/, "");
  return shorter === path ? "" : shorter;
}

/** A message without the words that the API server puts before a rule's own. */
const plain = (message) => message.replace(/^Invalid value: ("(string|object|array)"|\{\}): /, "");

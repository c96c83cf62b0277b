// Reads an OpenAPI schema of Kubernetes. Pure: knows no page.

/** Words from a name: "maxNumSeqs" is "Max num seqs". */
export function inWords(name) {
  const words = name.replace(/([a-z0-9])([A-Z])/g, "$1 $2").split(" ");
  const isAcronym = (word) => /^[A-Z0-9]+$/.test(word) || ["gpu", "cpu", "url", "ca", "pvc"].includes(word.toLowerCase());
  const text = words.map((word) => (isAcronym(word) ? word.toUpperCase() : word.toLowerCase())).join(" ");
  return text[0].toUpperCase() + text.slice(1);
}

/** The title of a field. */
export const titleOf = (name, schema) => schema.title || inWords(name);

/** How a field is edited. */
export function kindOf(schema) {
  if (schema["x-kubernetes-int-or-string"]) return "quantity";
  if (schema.enum) return "choice";
  switch (schema.type) {
    case "boolean": return "toggle";
    case "integer": case "number": return "number";
    case "string": return (schema.maxLength || 0) >= 4096 ? "text" : "line";
    case "array": return kindOf(schema.items || {}) === "line" ? "lines" : "items";
    case "object": return schema.properties ? "group" : schema.additionalProperties ? "pairs" : "json";
    default: return "json";
  }
}

/** The value at a path, or undefined. */
export function valueAt(object, path) {
  return path.reduce((value, key) => (value === undefined || value === null ? undefined : value[key]), object);
}

/** Puts a value at a path, and makes what is missing on the way. Undefined removes it, and what is empty after that. */
export function setAt(object, path, value) {
  const [key, ...rest] = path;
  if (rest.length === 0) {
    if (value === undefined) remove(object, key);
    else object[key] = value;
    return;
  }
  if (object[key] === undefined || object[key] === null) {
    if (value === undefined) return;
    object[key] = typeof rest[0] === "number" ? [] : {};
  }
  setAt(object[key], rest, value);
  if (value === undefined && isEmpty(object[key]) && typeof key === "string") remove(object, key);
}

function remove(object, key) {
  if (Array.isArray(object)) object.splice(key, 1);
  else delete object[key];
}

/** Whether nothing is inside. */
export const isEmpty = (value) =>
  value === undefined || value === null || (typeof value === "object" && Object.keys(value).length === 0);

/** The path of a field as the API server writes it, "spec.env[0].name". */
export const written = (path) =>
  path.map((key) => (typeof key === "number" ? `[${key}]` : `.${key}`)).join("").replace(/^\./, "");

/** What a number or text must be, in words; empty if anything will do. */
export function bounds(schema) {
  const parts = [];
  if (schema.minimum !== undefined && schema.maximum !== undefined) parts.push(`${schema.minimum} to ${schema.maximum}`);
  else if (schema.minimum !== undefined) parts.push(`at least ${schema.minimum}`);
  else if (schema.maximum !== undefined) parts.push(`at most ${schema.maximum}`);
  return parts.join(", ");
}

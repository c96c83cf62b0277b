// The page that makes or changes a ModelDeployment: a form and its YAML, which follow each other, both checked by the API
// server itself before anything is saved.

import { announce, copyButton, debounced, el, fill } from "./dom.js";
import { form } from "./form.js";
import { Refused, fromYaml, model, save, schema, toYaml } from "./kubernetes.js";

const EMPTY = { apiVersion: "slipway.dev/v1alpha1", kind: "ModelDeployment", metadata: { name: "", namespace: "default" }, spec: { model: {} } };
const DOMAIN_NAME = /^[a-z]([-a-z0-9]*[a-z0-9])?$/;

/** The page. `source` is the ModelDeployment that is changed, or copied if `isNew`. */
export async function editor({ source, isNew, namespace }) {
  const root = await schema();
  let object = structuredClone(EMPTY);
  if (namespace) object.metadata.namespace = namespace;
  if (source) object = kept(await model(source.namespace, source.name), isNew);
  return new Editor(root, object, isNew).element;
}

/** What a person edits of an object; the rest is the cluster's. */
function kept({ apiVersion, kind, metadata, spec }, isCopy) {
  const { name, namespace, labels, annotations, resourceVersion } = metadata;
  const own = { name: isCopy ? `${name}-copy` : name, namespace };
  if (labels) own.labels = labels;
  if (annotations && !isCopy) own.annotations = annotations;
  if (!isCopy) own.resourceVersion = resourceVersion;
  return { apiVersion, kind, metadata: own, spec };
}

class Editor {
  constructor(root, object, isNew) {
    Object.assign(this, { root, object, isNew, checked: 0 });
    this.notice = el("p", { class: "error", role: "alert", hidden: true });
    this.verdict = el("p", { class: "verdict", role: "status" });
    this.yaml = el("textarea", { class: "yaml", spellcheck: "false", "aria-label": "YAML of the ModelDeployment", rows: 24 });
    this.yamlError = el("p", { class: "error", role: "alert", hidden: true });
    this.saveButton = el("button", { type: "submit", class: "primary" }, isNew ? "Create" : "Save");
    this.formPlace = el("div");
    this.nameField = this.text("Name", "name", "At most 40 of a-z, 0-9 and '-', a letter first. The Service has the same name.", !isNew);
    this.namespaceField = this.text("Namespace", "namespace", "The Service is NAME.NAMESPACE.svc.", !isNew);
    this.yaml.addEventListener("input", debounced(300, () => this.readYaml()));
    this.check = debounced(400, () => this.dryRun());
    this.write = debounced(120, () => this.writeYaml());
    this.element = this.layout();
    this.draw();
    this.writeYaml();
  }

  layout() {
    const title = this.isNew ? "New model" : `Change ${this.object.metadata.name}`;
    const submit = (event) => { event.preventDefault(); this.save(); };
    return el("form", { class: "editor", novalidate: true, onsubmit: submit },
      el("h1", {}, title),
      el("div", { class: "columns" },
        el("section", { "aria-label": "Form" }, el("div", { class: "pair" }, this.nameField, this.namespaceField), this.formPlace),
        el("section", { class: "side", "aria-label": "YAML" },
          el("div", { class: "row" }, el("h2", {}, "YAML"), copyButton("Copy kubectl command", () => this.command())),
          this.yaml, this.yamlError)),
      el("div", { class: "footer" }, this.notice, this.verdict,
        el("div", { class: "row" }, this.saveButton, el("a", { class: "button", href: this.back() }, "Cancel"))));
  }

  back() {
    const { namespace, name } = this.object.metadata;
    return this.isNew ? "#/" : `#/${namespace}/${name}`;
  }

  text(label, key, help, isFixed) {
    const id = `metadata-${key}`;
    const input = el("input", { id, type: "text", required: true, autocomplete: "off", readonly: isFixed, "aria-describedby": `${id}-help`, value: this.object.metadata[key] });
    input.addEventListener("input", () => { this.object.metadata[key] = input.value.trim(); this.changed(); });
    this[`${key}Input`] = input;
    return el("div", { class: "field" }, el("label", { for: id }, label), input, el("p", { class: "help", id: `${id}-help` }, help));
  }

  draw() {
    this.form = form(this.root.properties.spec, this.object, ["spec"], () => this.changed());
    fill(this.formPlace, this.form.element);
    this.nameInput.value = this.object.metadata.name;
    this.namespaceInput.value = this.object.metadata.namespace;
  }

  changed() {
    this.write();
    this.check();
  }

  async writeYaml() {
    this.yaml.value = await toYaml(this.shown());
    this.yamlError.hidden = true;
  }

  /** The object without the version that only a save needs. */
  shown() {
    const object = structuredClone(this.object);
    delete object.metadata.resourceVersion;
    return object;
  }

  command() {
    return `kubectl apply -f - <<'EOF'\n${this.yaml.value.trimEnd()}\nEOF\n`;
  }

  async readYaml() {
    try {
      const object = await fromYaml(this.yaml.value);
      if (!object || object.kind !== "ModelDeployment" || !object.metadata || !object.spec) throw new Error("not a ModelDeployment with metadata and spec");
      const { resourceVersion, name, namespace } = this.object.metadata;
      if (!this.isNew) Object.assign(object.metadata, { resourceVersion, name, namespace });
      this.object = object;
      this.yamlError.hidden = true;
      this.draw();
      this.check();
    } catch (error) {
      this.yamlError.textContent = error.message;
      this.yamlError.hidden = false;
    }
  }

  /** Whether the API server would take the object. A later check makes an earlier one void. */
  async dryRun() {
    const check = this.checked += 1;
    if (!DOMAIN_NAME.test(this.object.metadata.name)) {
      this.show("Enter a name: a-z, 0-9 and '-', a letter first.", []);
      return;
    }
    try {
      await save(this.object, this.isNew, true);
      if (check === this.checked) this.show("", []);
    } catch (error) {
      if (check === this.checked) this.refused(error);
    }
  }

  refused(error) {
    if (!(error instanceof Refused)) { this.show(error.message, []); return; }
    const conflict = error.code === 409 && !this.isNew ? " Somebody changed it meanwhile: reload the page." : "";
    this.show(error.causes.length ? "" : error.message + conflict, error.causes);
  }

  show(notice, causes) {
    const left = this.form.showErrors(causes);
    const text = [notice, ...left.map((cause) => `${cause.field}: ${cause.message}`)].filter(Boolean).join(" ");
    this.notice.textContent = text;
    this.notice.hidden = !text;
    const isValid = !text && causes.length === 0;
    this.verdict.textContent = isValid ? "The API server accepts it." : causes.length ? "The API server does not accept it: see the marked fields." : "";
    this.element.dataset.valid = String(isValid);
  }

  async save() {
    this.saveButton.disabled = true;
    try {
      const { metadata } = await save(this.object, this.isNew, false);
      announce(`${metadata.name} is saved`);
      location.hash = `#/${metadata.namespace}/${metadata.name}`;
    } catch (error) {
      this.refused(error);
      const first = this.element.querySelector("[aria-invalid]");
      if (first) first.focus();
    } finally {
      this.saveButton.disabled = false;
    }
  }
}

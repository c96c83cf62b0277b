// One ModelDeployment: what it is doing, why, and what to do about it.

import { age, announce, bytes, copyButton, el, fill } from "./dom.js";
import { Chart } from "./charts.js";
import { get, may, model, remove } from "./kubernetes.js";
import { repeat, replicaButtons, state } from "./list.js";

/** Conditions in the order in which a model starts. */
const CHAIN = ["Accepted", "ModelReady", "Scheduled", "EngineReady", "Available", "Progressing", "Ready"];

/** The page. It renews itself until `signal` is aborted. */
export async function detail(namespace, name, signal) {
  const page = new Detail(namespace, name);
  await page.renew();
  repeat(signal, () => page.renew(), (error) => page.fail(error));
  return page.element;
}

class Detail {
  constructor(namespace, name) {
    Object.assign(this, { namespace, name, places: {} });
    for (const place of ["head", "progress", "conditions", "failure", "facts", "events", "settings"]) this.places[place] = el("div");
    this.error = el("p", { class: "error", role: "alert", hidden: true });
    this.charts = {
      requests: new Chart("Requests in progress", (value) => `${value}`),
      waiting: new Chart("Requests that wait", (value) => `${value}`),
      kv: new Chart("KV cache in use", (value) => `${(value * 100).toFixed(0)} %`),
    };
    this.chartsNote = el("p", { class: "quiet" });
    const { head, progress, conditions, failure, facts, events, settings } = this.places;
    this.element = el("section", {}, head, this.error, progress, failure,
      el("div", { class: "columns" },
        el("div", {}, el("h2", {}, "Conditions"), conditions, el("h2", {}, "Events"), events),
        el("div", { class: "side" },
          el("h2", {}, "Load"), el("div", { class: "charts" }, Object.values(this.charts).map((chart) => chart.element)), this.chartsNote,
          el("h2", {}, "Facts"), facts, el("h2", {}, "Effective settings"), settings)));
  }

  fail(error) {
    this.error.textContent = error.code === 404 ? "It does not exist (any more)." : error.message;
    this.error.hidden = false;
  }

  async renew() {
    const object = await model(this.namespace, this.name);
    this.error.hidden = true;
    this.may ??= { update: await may("update", this.namespace), delete: await may("delete", this.namespace) };
    this.head(object);
    this.progress(object.status || {});
    this.failure(object.status || {});
    this.conditions(object.status || {});
    this.facts(object);
    await Promise.all([this.load(), this.events(object.metadata.uid), this.settings(object)].map((part) => part.catch(() => {})));
  }

  head(object) {
    const status = object.status || {};
    const ready = (status.conditions || []).find(({ type }) => type === "Ready") || {};
    if (this.reason && this.reason !== ready.reason) announce(`${this.name}: ${ready.reason}`);
    this.reason = ready.reason;
    const here = `#/${this.namespace}/${this.name}`;
    fill(this.places.head,
      el("div", { class: "row spread" },
        el("h1", {}, this.name, " ", state(ready.status, ready.reason)),
        el("div", { class: "row" },
          el("a", { class: "button primary", href: `${here}/play` }, "Playground"),
          this.may.update && el("a", { class: "button", href: `${here}/edit` }, "Edit"),
          el("a", { class: "button", href: `${here}/clone` }, "Clone"),
          this.may.delete && el("button", { type: "button", class: "danger", onclick: () => this.confirm() }, "Delete"))),
      el("p", { class: "quiet" }, `${this.namespace} · ${status.modelName || "no name yet"} · `, status.summary || "0/0", " replicas ",
        this.may.update && replicaButtons(this.namespace, this.name, object.spec.replicas ?? 1, () => this.renew(), (error) => this.fail(error))),
      status.url && el("p", { class: "url" }, el("code", {}, status.url), copyButton("Copy", () => status.url)));
  }

  /** Deleting takes a second look. */
  confirm() {
    const dialog = el("dialog", { "aria-labelledby": "delete-title" },
      el("h2", { id: "delete-title" }, `Delete ${this.name}?`),
      el("p", {}, "Its pods, its Service and its own cache are deleted. Requests in progress end first."),
      el("div", { class: "row" },
        el("button", { type: "button", class: "danger", onclick: async () => {
          dialog.close();
          try { await remove(this.namespace, this.name); location.hash = "#/"; } catch (error) { this.fail(error); }
        } }, "Delete"),
        el("button", { type: "button", onclick: () => dialog.close() }, "Keep")));
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  }

  progress(status) {
    const bar = (title, transfer) => transfer && el("div", { class: "transfer" },
      el("label", {}, title, " ", el("progress", { max: 100, value: transfer.percent })), " ",
      `${transfer.percent} % of ${bytes(transfer.bytesTotal)}`,
      transfer.ratePerSecond ? `, ${bytes(transfer.ratePerSecond)}/s` : "", transfer.etaSeconds ? `, ${transfer.etaSeconds} s left` : "");
    fill(this.places.progress, bar("Download", status.download), bar("Load", status.load));
  }

  failure({ lastFailure: failure }) {
    fill(this.places.failure, failure && el("div", { class: "failure" },
      el("h2", {}, `Last failure: ${failure.reason}`), el("p", {}, failure.message), failure.remedy && el("p", {}, el("strong", {}, "Remedy: "), failure.remedy),
      el("p", { class: "quiet" }, [failure.pod, failure.container, failure.exitCode !== undefined && `exit code ${failure.exitCode}`, failure.time && `${age(failure.time)} ago`].filter(Boolean).join(" · "))));
  }

  conditions({ conditions = [] }) {
    const rank = ({ type }) => (CHAIN.includes(type) ? CHAIN.indexOf(type) : CHAIN.length);
    const known = [...conditions].sort((a, b) => rank(a) - rank(b));
    // A cause is written once, at the first condition that it is about.
    const told = new Set();
    const once = (message) => (told.has(message) ? "as above" : (told.add(message), message));
    fill(this.places.conditions, el("ol", { class: "chain" }, known.map(({ type, status, reason, message, lastTransitionTime }) =>
      el("li", { class: mark(type, status) },
        el("div", { class: "row spread" }, el("strong", {}, type), el("span", { class: "quiet" }, `${status} · ${reason} · ${age(lastTransitionTime)}`)),
        message && el("p", {}, once(message))))));
  }

  facts({ spec, status = {}, metadata }) {
    const { model: of = {}, coldStart } = status;
    const gpu = spec.resources && spec.resources.gpu;
    const rows = [
      ["Architecture", of.architecture], ["Weights", of.bytes && bytes(of.bytes)], ["Longest context", of.maxModelLen && `${of.maxModelLen} tokens`],
      ["Revision", of.revision && of.revision.slice(0, 12)], ["GPUs per replica", gpu && String(gpu.count)], ["Image", status.runtimeImage],
      ["Cold start", coldStart && `${coldStart.totalSeconds} s: scheduled ${coldStart.scheduledSeconds}, images ${coldStart.imageSeconds}, download ${coldStart.downloadSeconds}, load ${coldStart.loadSeconds}${coldStart.p50 ? `; median ${coldStart.p50.totalSeconds} s` : ""}`],
      ["Created", `${age(metadata.creationTimestamp)} ago`],
    ];
    fill(this.places.facts, el("dl", {}, rows.filter(([, value]) => value).map(([term, value]) => [el("dt", {}, term), el("dd", {}, value)])));
  }

  /** The load of all ready pods, which the person may read through the API server. */
  async load() {
    const base = `/api/v1/namespaces/${this.namespace}/pods`;
    let pods;
    try {
      pods = (await get(`${base}?labelSelector=${encodeURIComponent(`slipway.dev/model-deployment=${this.name}`)}`)).items;
    } catch { this.chartsNote.textContent = "You may not list pods of this namespace."; return; }
    const isReady = ({ status }) => (status.conditions || []).some(({ type, status: of }) => type === "Ready" && of === "True");
    const ready = pods.filter(isReady).slice(0, 32);
    const answers = await Promise.allSettled(ready.map(({ metadata }) => get(`${base}/${metadata.name}:8001/proxy/internal/load`)));
    const loads = answers.filter(({ status }) => status === "fulfilled").map(({ value }) => value);
    this.chartsNote.textContent = ready.length === 0 ? "No replica is ready." : loads.length === 0 ? "You may not read the load of pods (pods/proxy)." : "";
    if (loads.length === 0) return;
    const sum = (key) => loads.reduce((total, load) => total + load[key], 0);
    this.charts.requests.add(sum("running"));
    this.charts.waiting.add(sum("waiting"));
    this.charts.kv.add(sum("kvUsage") / loads.length);
  }

  async events(uid) {
    const query = encodeURIComponent(`involvedObject.uid=${uid}`);
    const { items } = await get(`/api/v1/namespaces/${this.namespace}/events?limit=50&fieldSelector=${query}`);
    const at = (event) => event.lastTimestamp || event.eventTime || event.metadata.creationTimestamp;
    items.sort((a, b) => new Date(at(b)) - new Date(at(a)));
    fill(this.places.events, items.length === 0 ? el("p", { class: "quiet" }, "None in the last hour.") :
      el("ul", { class: "events" }, items.slice(0, 12).map((event) => el("li", {}, el("span", { class: "quiet" }, `${age(at(event))} `), el("strong", {}, event.reason), " ", event.message || event.note || ""))));
  }

  /** The configuration file of the current pods. */
  async settings({ status = {} }) {
    if (!this.configuration) {
      const selector = encodeURIComponent(`slipway.dev/model-deployment=${this.name}`);
      const { items } = await get(`/api/v1/namespaces/${this.namespace}/configmaps?labelSelector=${selector}`);
      const files = items.filter(({ data }) => data && data["config.yaml"]).sort((a, b) => new Date(b.metadata.creationTimestamp) - new Date(a.metadata.creationTimestamp));
      this.configuration = files.length ? files[0].data["config.yaml"] : undefined;
    }
    const { accepted = [], unknown = [] } = status.settings || {};
    const note = (title, names) => names.length > 0 && el("p", {}, el("strong", {}, title), names.join(", "));
    fill(this.places.settings, note("Without effect here: ", accepted), note("Unknown, passed on: ", unknown),
      this.configuration ? el("pre", { tabindex: 0 }, this.configuration) : el("p", { class: "quiet" }, "None yet."));
  }
}

function mark(type, status) {
  const isGood = ["Progressing", "Reconciling", "Stalled", "Drifted"].includes(type) ? status === "False" : status === "True";
  return isGood ? "good" : type === "Progressing" || status === "Unknown" ? "busy" : "bad";
}



// The page with all ModelDeployments: the same table as `kubectl get mdep`.

import { age, announce, el, fill } from "./dom.js";
import { scale, table } from "./kubernetes.js";

const PAGE = 100;
const PERIOD_MS = 3000;

/** The page. It renews itself until `signal` is aborted, one page of the table for each period. */
export async function list(signal) {
  const namespace = el("input", { type: "search", placeholder: "all namespaces", "aria-label": "Namespace", value: sessionStorage.getItem("namespace") || "" });
  const body = el("tbody");
  const more = el("button", { type: "button", hidden: true }, "Show more");
  const note = el("p", { class: "quiet" });
  const view = { pages: 1 };
  const renew = async () => {
    const rows = [];
    let from = "";
    let columns = [];
    for (let page = 0; page < view.pages; page += 1) {
      const part = await table(namespace.value.trim(), PAGE, from);
      columns = part.columnDefinitions.length ? part.columnDefinitions : columns;
      rows.push(...(part.rows || []));
      from = part.metadata.continue;
      if (!from) break;
    }
    more.hidden = !from;
    draw(body, columns, rows);
    note.textContent = rows.length ? "" : "No models here yet.";
  };
  namespace.addEventListener("change", () => {
    sessionStorage.setItem("namespace", namespace.value.trim());
    view.pages = 1;
    renew().catch((error) => { note.textContent = error.message; });
  });
  more.addEventListener("click", () => { view.pages += 1; renew().catch((error) => { note.textContent = error.message; }); });
  await renew();
  let ticks = 0;
  const renewInTurn = async () => { ticks += 1; if (ticks % view.pages === 0) await renew(); };
  repeat(signal, renewInTurn, (error) => { note.textContent = error.message; });
  const head = ["Name", "Namespace", "State", "Model", "Replicas", "GPUs", "Age"].map((title) => el("th", { scope: "col" }, title));
  return el("section", {},
    el("div", { class: "row spread" }, el("h1", {}, "Models"), el("div", { class: "row" }, namespace, el("a", { class: "button primary", href: "#/new" }, "New model"))),
    el("div", { class: "scroll" }, el("table", {}, el("caption", { class: "hidden" }, "ModelDeployments"), el("thead", {}, el("tr", {}, head)), body)), note, more);
}

function draw(body, columns, rows) {
  const at = (name) => columns.findIndex((column) => column.name === name);
  const [ready, reason, model, replicas, gpu] = ["Ready", "Reason", "Model", "Replicas", "GPU"].map(at);
  fill(body, rows.map(({ cells, object: { metadata } }) => el("tr", {},
    el("th", { scope: "row" }, el("a", { href: `#/${metadata.namespace}/${metadata.name}` }, metadata.name)),
    el("td", {}, metadata.namespace),
    el("td", {}, state(cells[ready], cells[reason])),
    el("td", {}, cells[model] || "–"),
    el("td", {}, cells[replicas] || "–"),
    el("td", {}, cells[gpu] ? String(cells[gpu]) : "–"),
    el("td", {}, age(metadata.creationTimestamp)))));
}

/** A state as a word with a colour; the word alone says all. */
export function state(ready, reason) {
  const kind = ready === "True" ? "good" : !reason || WAITING.includes(reason) ? "busy" : "bad";
  return el("span", { class: `state ${kind}` }, reason || "Pending");
}

const WAITING = ["Pending", "Progressing", "Downloading", "Loading", "Starting", "Updating", "Scheduling", "PodsStarting", "RollingOut", "ScaledToZero"];

/** Runs `work` again and again until `signal` is aborted, but not while nobody looks. */
export function repeat(signal, work, failed) {
  const timer = setInterval(() => { if (!document.hidden) work().catch(failed); }, PERIOD_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
}

/** Buttons that change the number of replicas. */
export function replicaButtons(namespace, name, current, done, failed) {
  const change = (replicas) => async () => {
    try {
      await scale(namespace, name, replicas);
      announce(`${replicas} replicas requested`);
      await done();
    } catch (error) { failed(error); }
  };
  return el("span", { class: "stepper" },
    el("button", { type: "button", class: "small", "aria-label": "One replica fewer", disabled: current < 1, onclick: change(current - 1) }, "−"),
    el("button", { type: "button", class: "small", "aria-label": "One replica more", onclick: change(current + 1) }, "+"));
}

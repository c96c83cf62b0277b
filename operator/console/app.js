// Chooses the page by the address, and asks for a token where one is needed.

import { detail } from "./detail.js";
import { el, fill } from "./dom.js";
import { editor } from "./editor.js";
import { hasToken, signIn, whoAmI } from "./kubernetes.js";
import { list } from "./list.js";
import { playground } from "./playground.js";

const main = document.getElementById("main");
const who = document.getElementById("who");
let current = new AbortController();

/** The page of an address such as "#/team/chat/edit". */
function pageOf(hash, signal) {
  const [first, second, third] = hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  if (!first) return ["Models", list(signal)];
  if (first === "new" && !second) return ["New model", editor({ isNew: true, namespace: sessionStorage.getItem("namespace") })];
  const source = { namespace: first, name: second };
  switch (third) {
    case "edit": return [`Change ${second}`, editor({ source, isNew: false })];
    case "clone": return [`Clone ${second}`, editor({ source, isNew: true })];
    case "play": return [`Playground: ${second}`, playground(first, second, signal)];
    default: return [second, detail(first, second, signal)];
  }
}

async function show() {
  current.abort();
  current = new AbortController();
  const { signal } = current;
  const [title, page] = pageOf(location.hash, signal);
  document.title = `${title} – Slipway`;
  for (const link of document.querySelectorAll("nav a")) {
    const isHere = link.dataset.route === (location.hash === "#/new" ? "new" : location.hash.length < 3 ? "list" : "");
    link.toggleAttribute("aria-current", isHere);
  }
  try {
    const element = await page;
    if (!signal.aborted) { fill(main, element); main.focus({ preventScroll: true }); scrollTo(0, 0); }
  } catch (error) {
    if (signal.aborted) return;
    if (error.code === 401) signInPage(hasToken() ? "The cluster does not accept the token." : "");
    else fill(main, el("h1", {}, error.code === 403 ? "You may not do this" : "That did not work"), el("p", { class: "error", role: "alert" }, error.message), el("p", {}, el("a", { href: "#/" }, "All models")));
  }
}

function signInPage(problem) {
  const input = el("input", { id: "token", type: "password", required: true, autocomplete: "off", "aria-describedby": "token-help" });
  const submit = (event) => { event.preventDefault(); signIn(input.value.trim()); start(); };
  fill(main, el("form", { class: "sign-in", onsubmit: submit },
    el("h1", {}, "Sign in"), problem && el("p", { class: "error", role: "alert" }, problem),
    el("div", { class: "field" }, el("label", { for: "token" }, "Token of your cluster"), input,
      el("p", { class: "help", id: "token-help" }, "You get one with ", el("code", {}, "kubectl create token NAME"), ". The console has your rights and no others. The token stays in this tab.")),
    el("button", { type: "submit", class: "primary" }, "Sign in")));
  input.focus();
}

async function start() {
  try {
    const name = await whoAmI();
    fill(who, el("span", {}, name), hasToken() && el("button", { type: "button", class: "small", onclick: () => { signIn(""); fill(who); start(); } }, "Sign out"));
  } catch (error) {
    fill(who);
    if (error.code === 401) { signInPage(hasToken() ? "The cluster does not accept the token." : ""); return; }
  }
  await show();
}

addEventListener("hashchange", show);
start();

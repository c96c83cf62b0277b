// A chat with a model, through the API server: streamed, with parameters, tools and forms, and with the probability of
// each token as its shade.

import { copyButton, el, fill } from "./dom.js";
import { model, send, servicePath } from "./kubernetes.js";
import { snippets } from "./snippets.js";

/** Parameters of the form: name, label, attributes of the input. */
const NUMBERS = [
  ["temperature", "Temperature", { min: 0, max: 2, step: 0.1 }],
  ["top_p", "Top p", { min: 0, max: 1, step: 0.05 }],
  ["max_tokens", "Most tokens", { min: 1, step: 1 }],
  ["seed", "Seed", { step: 1 }],
];

/** The page. */
export async function playground(namespace, name, signal) {
  const object = await model(namespace, name);
  return new Playground(object, namespace, name, signal).element;
}

class Playground {
  constructor(object, namespace, name, signal) {
    const status = object.status || {};
    Object.assign(this, { namespace, name, signal, messages: [], url: status.url || "", model: status.modelName || name });
    this.needsKey = Boolean(object.spec.auth && object.spec.auth.apiKeysSecretRef);
    this.log = el("div", { class: "log", role: "log", "aria-label": "Conversation", tabindex: 0 });
    this.question = el("textarea", { rows: 3, "aria-label": "Message", placeholder: "Ask the model. Ctrl-Enter sends." });
    this.error = el("p", { class: "error", role: "alert", hidden: true });
    this.figures = el("p", { class: "quiet", role: "status" });
    this.sendButton = el("button", { type: "submit", class: "primary" }, "Send");
    this.stopButton = el("button", { type: "button", disabled: true, onclick: () => this.abort && this.abort.abort() }, "Stop");
    this.code = el("div", { class: "code" });
    this.inputs = {};
    this.element = this.layout();
    this.drawCode();
  }

  layout() {
    const submit = (event) => { event.preventDefault(); this.ask(); };
    this.question.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.ask(); });
    const clear = () => { this.messages = []; fill(this.log); this.drawCode(); };
    return el("section", {},
      el("h1", {}, "Playground: ", el("a", { href: `#/${this.namespace}/${this.name}` }, this.name)),
      el("div", { class: "columns" },
        el("form", { class: "chat", onsubmit: submit }, this.log, this.error, this.question,
          el("div", { class: "row" }, this.sendButton, this.stopButton, el("button", { type: "button", onclick: clear }, "Clear"), this.figures)),
        el("section", { class: "side", "aria-label": "Parameters and code" }, this.parameters(), this.code)));
  }

  parameters() {
    const labelled = (key, label, control) => {
      control.id = `play-${key}`;
      control.addEventListener("input", () => this.drawCode());
      this.inputs[key] = control;
      return el("div", { class: "field" }, el("label", { for: control.id }, label), control);
    };
    const numbers = NUMBERS.map(([key, label, attributes]) => labelled(key, label, el("input", { type: "number", ...attributes })));
    const toggle = (key, label, isOn) => {
      const control = el("input", { type: "checkbox", checked: isOn });
      const field = labelled(key, label, control);
      field.classList.add("check");
      return field;
    };
    const text = (key, label, placeholder) => labelled(key, label, el("textarea", { rows: 2, spellcheck: "false", placeholder }));
    return el("div", { class: "form" },
      text("system", "System message", ""),
      el("div", { class: "grid" }, numbers),
      toggle("stream", "Stream", true), toggle("logprobs", "Shade tokens by probability", false),
      el("details", { class: "group" }, el("summary", {}, "Form and tools"),
        text("schema", "JSON schema of the answer", '{"type": "object", …}'), text("tools", "Tools", '[{"type": "function", …}]')),
      this.needsKey && labelled("key", "API key of the model", el("input", { type: "password", autocomplete: "off" })));
  }

  /** The body of the next request. Throws if a text is no JSON. */
  body(question) {
    const { inputs } = this;
    const messages = inputs.system.value ? [{ role: "system", content: inputs.system.value }] : [];
    messages.push(...this.messages);
    if (question) messages.push({ role: "user", content: question });
    const body = { model: this.model, messages };
    for (const [key] of NUMBERS) if (inputs[key].value !== "") body[key] = Number(inputs[key].value);
    if (inputs.stream.checked) body.stream = true;
    if (inputs.logprobs.checked) Object.assign(body, { logprobs: true, top_logprobs: 5 });
    if (inputs.schema.value.trim()) body.response_format = { type: "json_schema", json_schema: { name: "answer", schema: parsed("The schema", inputs.schema.value) } };
    if (inputs.tools.value.trim()) body.tools = parsed("The tools", inputs.tools.value);
    return body;
  }

  drawCode() {
    let body;
    try { body = this.body(this.question.value || "Hello"); } catch (error) { fill(this.code, el("p", { class: "error" }, error.message)); return; }
    const all = snippets(this.url, body, this.needsKey);
    const note = el("p", { class: "help" }, "Inside the cluster. From elsewhere: ", el("code", {}, `kubectl port-forward -n ${this.namespace} svc/${this.name} 8080:80`));
    fill(this.code, el("h2", {}, "Code"), note, Object.entries(all).map(([language, text]) =>
      el("details", { class: "group", open: language === "curl" }, el("summary", {}, language), copyButton("Copy", () => text), el("pre", { tabindex: 0 }, text))));
  }

  async ask() {
    const question = this.question.value.trim();
    if (!question || this.abort) return;
    this.error.hidden = true;
    let body;
    try { body = this.body(question); } catch (error) { this.fail(error); return; }
    this.question.value = "";
    this.log.append(el("div", { class: "message user" }, el("strong", { class: "speaker" }, "You"), el("p", {}, question)));
    const answer = new Answer();
    this.log.append(answer.element);
    this.abort = new AbortController();
    const leave = () => this.abort && this.abort.abort();
    this.signal.addEventListener("abort", leave);
    this.busy(true);
    try {
      await this.read(body, answer);
      this.messages.push({ role: "user", content: question });
      if (answer.text) this.messages.push({ role: "assistant", content: answer.text });
    } catch (error) {
      if (error.name !== "AbortError") this.fail(error);
    } finally {
      this.signal.removeEventListener("abort", leave);
      this.abort = undefined;
      this.busy(false);
      this.figures.textContent = answer.figures();
      this.drawCode();
    }
  }

  busy(isBusy) {
    this.sendButton.disabled = isBusy;
    this.stopButton.disabled = !isBusy;
  }

  fail(error) {
    this.error.textContent = error.message;
    this.error.hidden = false;
  }

  async read(body, answer) {
    const headers = { "content-type": "application/json" };
    if (this.needsKey && this.inputs.key.value) headers["x-api-key"] = this.inputs.key.value;
    const path = `${servicePath(this.namespace, this.name)}/v1/chat/completions`;
    const response = await send("POST", path, { body: JSON.stringify(body), headers, signal: this.abort.signal });
    if (!body.stream) { answer.whole(await response.json()); return; }
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
        const chunk = JSON.parse(line.slice(6));
        if (chunk.error) throw new Error(chunk.error.message);
        answer.add(chunk);
      }
      this.log.scrollTop = this.log.scrollHeight;
    }
  }
}

/** An answer as it comes. */
class Answer {
  constructor() {
    Object.assign(this, { text: "", tokens: 0, startedAt: performance.now() });
    this.thoughts = el("p", { class: "thoughts" });
    this.content = el("p", { class: "content" });
    this.calls = el("pre", { class: "calls", hidden: true, tabindex: 0 });
    this.callTexts = [];
    this.element = el("div", { class: "message model" }, el("strong", { class: "speaker" }, "Model"), this.thoughts, this.content, this.calls);
  }

  whole(answer) {
    this.firstAt = performance.now();
    for (const { message, logprobs } of answer.choices) this.piece(message, logprobs);
    this.tokens = answer.usage ? answer.usage.completion_tokens : this.tokens;
  }

  add(chunk) {
    for (const { delta, logprobs } of chunk.choices) this.piece(delta, logprobs);
  }

  piece({ content, reasoning_content: thought, tool_calls: calls }, logprobs) {
    if (!content && !thought && !calls) return;
    this.firstAt ||= performance.now();
    this.tokens += 1;
    if (thought) this.thoughts.append(thought);
    if (content) {
      this.text += content;
      const scored = (logprobs && logprobs.content) || [];
      this.content.append(...(scored.length ? scored.map(shaded) : [content]));
    }
    for (const call of calls || []) {
      const at = call.index || 0;
      this.callTexts[at] = (this.callTexts[at] || "") + ((call.function && call.function.name ? `${call.function.name} ` : "") + ((call.function && call.function.arguments) || ""));
      this.calls.hidden = false;
      this.calls.textContent = this.callTexts.join("\n");
    }
  }

  figures() {
    if (!this.firstAt) return "";
    const seconds = (performance.now() - this.firstAt) / 1000;
    const rate = seconds > 0.05 && this.tokens > 1 ? `, ${((this.tokens - 1) / seconds).toFixed(1)} tokens/s` : "";
    return `first token after ${Math.round(this.firstAt - this.startedAt)} ms${rate}`;
  }
}

/** A token with its probability as a shade, and with its rivals as a text. */
function shaded({ token, logprob, top_logprobs: rivals }) {
  const percent = (of) => `${(Math.exp(of) * 100).toFixed(1)} %`;
  const title = [`${JSON.stringify(token)} ${percent(logprob)}`, ...(rivals || []).map((rival) => `  ${JSON.stringify(rival.token)} ${percent(rival.logprob)}`)].join("\n");
  const level = Math.min(4, Math.floor((1 - Math.exp(logprob)) * 5));
  return el("span", { class: `token p${level}`, title }, token);
}

function parsed(what, text) {
  try { return JSON.parse(text); } catch { throw new Error(`${what} is no valid JSON.`); }
}

// Requests to the API server, through the console, with the rights of the person.

const GROUP = "/apis/slipway.dev/v1alpha1";
let token = sessionStorage.getItem("token");

/** Keeps the token until the tab is closed. */
export function signIn(value) {
  token = value;
  if (value) sessionStorage.setItem("token", value);
  else sessionStorage.removeItem("token");
}

/** Whether a token is kept. */
export const hasToken = () => Boolean(token);

/** A refusal, with the causes for each field. */
export class Refused extends Error {
  constructor(status) {
    super(status.message || `the answer is ${status.code}`);
    this.code = status.code;
    this.causes = (status.details && status.details.causes) || [];
  }
}

/** Sends a request to the console; the answer is not read. */
export async function send(method, path, { body, headers = {}, signal } = {}) {
  const all = { "x-slipway-console": "1", ...headers };
  if (token) all.authorization = `Bearer ${token}`;
  const response = await fetch(path, { method, headers: all, body, signal, cache: "no-store" });
  if (response.ok) return response;
  const text = await response.text();
  let status;
  try { status = JSON.parse(text); } catch { status = { message: text.trim() }; }
  // A model answers with OpenAI's errors.
  if (status.error && status.error.message) status = { message: status.error.message };
  throw new Refused({ code: response.status, ...status });
}

/** JSON of the API server. */
export async function get(path, headers) {
  return (await send("GET", `/k8s${path}`, { headers })).json();
}

async function write(method, path, object, type = "application/json") {
  const response = await send(method, `/k8s${path}`, { body: JSON.stringify(object), headers: { "content-type": type } });
  return response.json();
}

/** Path of a ModelDeployment. */
export const modelPath = (namespace, name) => `${GROUP}/namespaces/${namespace}/modeldeployments/${name}`;

/** A page of the table that kubectl shows, too. */
export function table(namespace, limit, from) {
  const scope = namespace ? `/namespaces/${namespace}` : "";
  const query = `limit=${limit}${from ? `&continue=${encodeURIComponent(from)}` : ""}`;
  return get(`${GROUP}${scope}/modeldeployments?${query}`, { accept: "application/json;as=Table;v=v1;g=meta.k8s.io" });
}

/** One ModelDeployment. */
export const model = (namespace, name) => get(modelPath(namespace, name));

/** Creates or replaces; `isDry` only checks. */
export function save(object, isNew, isDry) {
  const query = `?fieldManager=slipway-console&fieldValidation=Strict${isDry ? "&dryRun=All" : ""}`;
  const { namespace, name } = object.metadata;
  return isNew
    ? write("POST", `${GROUP}/namespaces/${namespace}/modeldeployments${query}`, object)
    : write("PUT", `${modelPath(namespace, name)}${query}`, object);
}

/** Changes the number of replicas. */
export const scale = (namespace, name, replicas) =>
  write("PATCH", `${modelPath(namespace, name)}/scale`, { spec: { replicas } }, "application/merge-patch+json");

/** Deletes a ModelDeployment and all that the operator made for it. */
export const remove = (namespace, name) => write("DELETE", modelPath(namespace, name), { propagationPolicy: "Foreground" });

/** The name of the person. */
export async function whoAmI() {
  const review = { apiVersion: "authentication.k8s.io/v1", kind: "SelfSubjectReview" };
  return (await write("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)).status.userInfo.username;
}

/** Whether the person may do something with ModelDeployments of a namespace. */
export async function may(verb, namespace) {
  const resourceAttributes = { group: "slipway.dev", resource: "modeldeployments", verb, namespace };
  const review = { apiVersion: "authorization.k8s.io/v1", kind: "SelfSubjectAccessReview", spec: { resourceAttributes } };
  return (await write("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)).status.allowed;
}

/** The schema of ModelDeployments, as the API server publishes it now. */
export async function schema() {
  const { components } = await get(`/openapi/v3${GROUP}`);
  const isModel = (of) => (of["x-kubernetes-group-version-kind"] || []).some(({ kind }) => kind === "ModelDeployment");
  return Object.values(components.schemas).find(isModel);
}

/** YAML of an object, and back. */
export const toYaml = async (object) =>
  (await send("POST", "/yaml/write", { body: JSON.stringify(object), headers: { "content-type": "application/json" } })).text();
export const fromYaml = async (text) =>
  (await send("POST", "/yaml/read", { body: text, headers: { "content-type": "text/plain" } })).json();

/** Path of a model's own server, through the API server. */
export const servicePath = (namespace, name) => `/k8s/api/v1/namespaces/${namespace}/services/http:${name}:80/proxy`;

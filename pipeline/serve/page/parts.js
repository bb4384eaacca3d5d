// What the modules of the dashboard share: elements, icons, words, and calls of the API.

// With the sub-path below which a proxy may serve all this.
export const ROOT = new URL("..", import.meta.url).pathname;
export const API = `${ROOT}api/v1`;
export const $ = (id) => document.getElementById(id);
export const streamPath = (id) => `${API}/streams/${encodeURIComponent(id)}`;

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

export function glyph(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "glyph");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

export const ICONS = {
  pause: "M8 5v14M16 5v14", resume: "M7 4l12 8-12 8z", restart: "M4 12a8 8 0 1 0 3-6.2M4 4v5h5",
  picture: "M4 7h3l2-3h6l2 3h3v12H4zM12 16a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7", large: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  clip: "M5 4h14v16l-7-5-7 5z", remove: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13", details: "M4 18V9M10 18V5M16 18v-6M21 18H3",
};

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export const spoken = (state) => state.replace("_", " ").replace(/^./, (c) => c.toUpperCase());
export const lasting = (ms) => (ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${ms.toFixed(0)} ms`);
export const short = (n) => (n >= 10000 ? `${(n / 1000).toFixed(n >= 100000 ? 0 : 1)}k` : String(n));
export const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);

let toastTimer = 0;
export function toast(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { $("toast").hidden = true; }, 6000);
}

export class Refused extends Error {
  constructor(status, detail) {
    super(typeof detail === "string" ? detail : detail.map((d) => d.msg).join(" "));
    this.status = status;
    this.faults = typeof detail === "string" ? [] : detail;
  }
}

export async function call(method, path, body) {
  const options = { method, headers: {}, cache: "no-store" };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["content-type"] = "application/json";
  }
  const answer = await fetch(path, options);
  if (answer.status === 401) location.assign(`${ROOT}login`);
  if (answer.status === 204) return null;
  const value = await answer.json();
  if (!answer.ok) throw new Refused(answer.status, value.detail ?? "the server refused");
  return value;
}

export const act = async (work) => { try { await work(); } catch (error) { toast(error.message); } };

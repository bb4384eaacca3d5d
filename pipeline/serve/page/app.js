import { AreaChart } from "./chart.js";
import { $, API, ICONS, ROOT, Refused, act, call, element, glyph, lasting, setText, short, spoken, streamPath, sum, toast } from "./parts.js";
import { Past } from "./past.js";
import { Screen, VideoScreen } from "./screens.js";

const cards = new Map();
const chart = new AreaChart($("chart"), $("chart-table"));
const past = new Past();
let chosen = null;
let classes = [];
let areas = { id: null, number: 0, points: [] };
let styled = 0; // until when the server's overlay settings may not be shown: ours are on their way

// Cards ---------------------------------------------------------------------------------------------------------------
function makeCard(id) {
  const canvas = element("canvas", { width: 640, height: 360, role: "img", "aria-label": `Live view of ${id}` });
  const video = element("video", { muted: true, playsInline: true, hidden: true, "aria-label": `Live view of ${id}` });
  const badge = element("span", { className: "badge" });
  const away = element("p", { className: "away", hidden: true });
  const title = element("h3", { textContent: id, id: `title-${id}` });
  const source = element("p");
  const figures = element("dl", { className: "figures" });
  const values = {};
  for (const [key, name, hint] of [["fps", "Frames/s", "Frames analysed a second"], ["age", "Frame age", "From leaving the decoder to the outputs"], ["frames", "Frames", "Frames given to the outputs"], ["drops", "Dropped", "Frames left out, by stage and reason"]]) {
    values[key] = element("dd");
    figures.append(element("div", {}, element("dt", { textContent: name, title: hint }), values[key]));
  }
  const button = (key, text, work, className = "plain icon") => {
    const made = element("button", { type: "button", className, title: text, "aria-label": `${text}: ${id}` }, glyph(ICONS[key]));
    made.addEventListener("click", () => act(work));
    return made;
  };
  const path = streamPath(id);
  const pause = button("pause", "Pause", () => call("POST", `${path}/${pause.dataset.does}`).then(refresh));
  const clip = button("clip", "Save what led up to now", () => call("POST", `${path}/clip`).then(({ file }) => toast(`${file} is being saved.`)));
  const card = element("article", { className: "card", "aria-labelledby": `title-${id}` },
    element("div", { className: "screen" }, canvas, video, badge, away),
    element("div", { className: "about" }, title, source),
    figures,
    element("div", { className: "actions" },
      button("details", "Details", async () => choose(id)),
      pause,
      button("restart", "Begin anew", () => call("POST", `${path}/restart`).then(refresh)),
      button("picture", "Save a picture", () => savePicture(id, path)),
      clip,
      button("large", "Full screen", () => canvas.parentElement.requestFullscreen()),
      element("span", { className: "space" }),
      button("remove", "Remove", () => askToRemove(id, path), "plain icon danger")));
  $("cards").append(card);
  const made = { card, clip, badge, away, source, values, pause, canvas, video, screen: new Screen(id, canvas) };
  cards.set(id, made);
  return made;
}

function useVideo(id, made, wanted) {
  const able = wanted && !made.failed && "MediaSource" in window;
  if (able === made.screen instanceof VideoScreen) return;
  made.screen.close();
  const fail = () => { made.failed = true; useVideo(id, made, false); made.screen.open(); };
  made.screen = able ? new VideoScreen(id, made.video, fail) : new Screen(id, made.canvas);
  made.video.hidden = !able;
  made.canvas.hidden = able;
}

function showCard(stream) {
  const made = cards.get(stream.id) ?? makeCard(stream.id);
  const { badge, away, values, pause } = made;
  if (badge.dataset.state !== stream.state) {
    badge.dataset.state = stream.state;
    badge.textContent = spoken(stream.state);
  }
  const retry = stream.retry_in ? ` Next attempt in ${Math.max(0, stream.since + stream.retry_in - Date.now() / 1000).toFixed(0)} s.` : "";
  const reason = stream.state === "streaming" || !stream.reason ? "" : stream.reason + retry;
  away.hidden = !reason;
  setText(away, reason);
  setText(made.source, `${stream.width ? `${stream.width}×${stream.height} · ` : ""}${stream.mode ? `${stream.mode} · ` : ""}${stream.source}`);
  made.source.title = stream.source;
  setText(values.fps, stream.pace.fps ? stream.pace.fps.toFixed(1) : "–");
  setText(values.age, stream.pace.age_p50_ms === null ? "–" : lasting(stream.pace.age_p50_ms));
  values.age.title = stream.pace.age_p99_ms === null ? "" : `99 of 100 are younger than ${lasting(stream.pace.age_p99_ms)}`;
  setText(values.frames, short(stream.frames_out));
  setText(values.drops, short(sum(stream.dropped)));
  values.drops.title = Object.entries(stream.dropped).map(([where, n]) => `${where}: ${n}`).join("\n");
  const over = stream.state === "ended" || stream.state === "failed";
  const does = stream.paused ? "resume" : "pause";
  pause.disabled = over;
  made.clip.hidden = !stream.clips;
  if (pause.dataset.does !== does) {
    pause.dataset.does = does;
    const text = stream.paused ? "Go on" : "Pause";
    pause.title = text;
    pause.setAttribute("aria-label", `${text}: ${stream.id}`);
    pause.replaceChildren(glyph(ICONS[does]));
  }
  made.card.classList.toggle("chosen", stream.id === chosen);
  useVideo(stream.id, made, stream.video && !over);
  if (!over) {
    made.lastOf = null;
    made.screen.open();
  } else showLast(stream, made);
}

// What there was to be seen at last of a stream that is over.
async function showLast(stream, made) {
  if (made.lastOf === stream.since) return;
  made.lastOf = stream.since;
  made.screen.close();
  const answer = await fetch(`${streamPath(stream.id)}/snapshot`);
  if (!answer.ok || made.lastOf !== stream.since) return;
  const picture = await createImageBitmap(await answer.blob());
  Object.assign(made.canvas, { width: picture.width, height: picture.height });
  made.canvas.getContext("2d").drawImage(picture, 0, 0);
  made.canvas.setAttribute("aria-label", `Last picture of ${stream.id}`);
  made.canvas.dataset.shown = "last";
}

async function savePicture(id, path) {
  const answer = await fetch(`${path}/snapshot`);
  if (!answer.ok) throw new Refused(answer.status, (await answer.json()).detail);
  const link = element("a", { href: URL.createObjectURL(await answer.blob()), download: `${id}-${new Date().toISOString().replace(/[:.]/g, "-")}.jpg` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function askToRemove(id, path) {
  const dialog = $("remove-dialog");
  $("remove-title").textContent = `Remove ${id}?`;
  $("remove-text").textContent = "What has been read is finished first; files that were written stay.";
  dialog.returnValue = "";
  dialog.onclose = () => {
    if (dialog.returnValue === "remove") act(async () => { await call("DELETE", path); await refresh(); $("streams").focus(); });
  };
  dialog.showModal();
}

// The chosen stream ---------------------------------------------------------------------------------------------------
function choose(id) {
  chosen = id;
  for (const [name, made] of cards) made.card.classList.toggle("chosen", name === id);
  refresh().then(() => $("detail").scrollIntoView({ block: "nearest" }));
}

function showDetail(stream) {
  $("detail").hidden = !stream;
  if (!stream) return;
  setText($("detail-title"), stream.id);
  $("opacity").disabled = !stream.overlay;
  if (stream.overlay && Date.now() > styled) {
    const percent = Math.round(stream.overlay.opacity * 100);
    $("opacity").value = percent;
    $("opacity-value").textContent = `${percent} %`;
    showLegend(stream);
    for (const button of $("drawn").children) button.setAttribute("aria-pressed", String(stream.overlay[button.dataset.key]));
  }
  for (const button of $("drawn").children) button.disabled = !stream.overlay;
  const rows = [["In", stream.frames_in], ["Out", stream.frames_out],
    ...Object.entries(stream.dropped).map(([where, n]) => [`Dropped: ${where.replace("/", ", ")}`, n]),
    ["Did not decode", stream.decode_errors]];
  if (stream.reconnects) rows.push(["Reconnects", stream.reconnects]);
  const text = JSON.stringify(rows);
  if ($("frames").dataset.rows === text) return;
  $("frames").dataset.rows = text;
  $("frames").replaceChildren(...rows.map(([name, n]) =>
    element("tr", {}, element("th", { scope: "row", textContent: name }), element("td", { className: "number", textContent: n.toLocaleString("en") }))));
}

function showLegend(stream) {
  const legend = $("legend");
  const now = areas.id === stream.id ? areas.points.at(-1)?.area ?? {} : {};
  if (legend.childElementCount !== classes.length) {
    legend.replaceChildren(...classes.map(({ name, color }) => {
      const swatch = element("span", { className: "swatch" });
      swatch.style.backgroundColor = `rgb(${color.join(" ")})`;
      const made = element("button", { type: "button", "aria-pressed": "true", title: `Colour, outline and box ${name}` }, swatch, name, element("span", { className: "share" }));
      made.dataset.name = name;
      made.addEventListener("click", () => {
        const shown = made.getAttribute("aria-pressed") === "true";
        made.setAttribute("aria-pressed", String(!shown));
        const hide = [...legend.children].filter((b) => b.getAttribute("aria-pressed") === "false").map((b) => b.dataset.name);
        restyle({ hide });
      });
      return made;
    }));
  }
  for (const made of legend.children) {
    made.setAttribute("aria-pressed", String(!stream.overlay.hide.includes(made.dataset.name)));
    setText(made.lastChild, now[made.dataset.name] ? `${(now[made.dataset.name] * 100).toFixed(0)} %` : "");
  }
}

let restyling = Promise.resolve();
function restyle(change) {
  const id = chosen;
  styled = Date.now() + 1500;
  restyling = restyling.then(() => act(() => call("PATCH", `${streamPath(id)}/overlay`, change)));
}

async function showAreas(id) {
  if (areas.id !== id) areas = { id, number: 0, points: [] };
  const { points } = await call("GET", `${streamPath(id)}/area?after=${areas.number}`);
  if (areas.id !== id) return;
  if (points.length) {
    areas.number = points.at(-1).number;
    areas.points = [...areas.points, ...points].slice(-300);
  }
  chart.show(areas.points, new Map(classes.map(({ name, color }) => [name, `rgb(${color.join(" ")})`])));
}

// The whole page, once a second ---------------------------------------------------------------------------------------
let refreshing = null;
function refresh() {
  refreshing ??= doRefresh().finally(() => { refreshing = null; });
  return refreshing;
}

async function doRefresh() {
  let streams;
  try {
    ({ streams } = await call("GET", `${API}/streams`));
  } catch (error) {
    showReady(error instanceof Refused && error.status === 503 ? "waiting" : "lost", error instanceof Refused ? error.message : "Server not reached");
    return;
  }
  if (!classes.length) {
    const { models } = await call("GET", `${API}/models`);
    classes = models.find((m) => m.task === "segmentation")?.classes ?? [];
  }
  showReady("ready", streams.length === 1 ? "1 stream" : `${streams.length} streams`);
  const there = new Set(streams.map((s) => s.id));
  for (const [id, made] of cards) {
    if (!there.has(id)) {
      made.screen.close();
      made.card.remove();
      cards.delete(id);
    }
  }
  streams.forEach(showCard);
  $("empty").hidden = streams.length > 0;
  if (!there.has(chosen)) chosen = streams[0]?.id ?? null;
  const stream = streams.find((s) => s.id === chosen);
  if (stream) await showAreas(stream.id).catch(() => {});
  showDetail(stream);
  past.show(stream, new Map(classes.map(({ name, color }) => [name, `rgb(${color.join(" ")})`]))).catch(() => {});
  if (stream) cards.get(stream.id).card.classList.add("chosen");
}

function showReady(state, text) {
  $("ready").dataset.state = state;
  setText($("ready"), text);
}

// Events --------------------------------------------------------------------------------------------------------------
const TONES = { streaming: "good", added: "idle", failed: "bad", stalled: "warn", blind: "warn", backing_off: "warn", connecting: "idle" };

async function playEvent({ stream, at }) {
  if (!cards.has(stream)) { toast(`The stream ${stream} is gone.`); return; }
  choose(stream);
  await refresh();
  await past.show({ id: stream }, past.colors);
  await past.playAt(at);
}

function showEvent(event) {
  const at = new Date(event.at * 1000);
  const tone = `tone-${TONES[event.kind] ?? "idle"}`;
  const time = element("button", { type: "button", className: "plain small", title: "Play this moment" },
    element("time", { dateTime: at.toISOString(), textContent: at.toLocaleTimeString("en-GB") }));
  time.addEventListener("click", () => act(() => playEvent(event)));
  const item = element("li", {}, time,
    element("span", {}, element("strong", { textContent: event.stream }), " ", element("span", { className: tone, textContent: spoken(event.kind) })));
  if (event.text) item.append(element("p", { textContent: event.text }));
  $("log").prepend(item);
  while ($("log").childElementCount > 200) $("log").lastChild.remove();
}

function listen() {
  const source = new EventSource(`${API}/events/stream`);
  source.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    showEvent(event);
    refresh().then(() => { if (event.stream === chosen) return past.refresh(true); }).catch(() => {});
  };
}

// The form ------------------------------------------------------------------------------------------------------------
// Settings of a stream beside source and name come from the server's own schema.
async function makeMoreFields() {
  const schema = (await call("GET", `${API}/openapi.json`)).components.schemas.StreamConfig;
  const hints = described(schema.description ?? "");
  const fields = [];
  for (const [name, type] of Object.entries(schema.properties)) {
    if (["source", "id"].includes(name)) continue;
    const numeric = ["integer", "number"].includes(type.type);
    if (!numeric && !type.enum && type.type !== "boolean") continue;
    const kind = type.enum || type.type === "boolean" ? "select" : "input";
    const input = element(kind, { id: `f-${name}`, name, "aria-describedby": `e-${name} h-${name}`, title: hints[name] ?? "" });
    if (kind === "input") {
      input.inputMode = type.type === "integer" ? "numeric" : "decimal";
      input.placeholder = type.default ?? "";
    } else {
      const options = type.enum ?? ["true", "false"];
      input.append(element("option", { value: "", textContent: `${type.default} (default)` }), ...options.map((o) => element("option", { value: String(o), textContent: String(o) })));
    }
    input.dataset.type = type.type ?? "string";
    fields.push(element("div", { className: "field" },
      element("label", { htmlFor: `f-${name}`, textContent: spoken(name) }), input,
      element("p", { className: "fault", id: `e-${name}`, hidden: true }),
      element("p", { className: "hint", id: `h-${name}`, textContent: hints[name] ?? "" })));
  }
  $("more-fields").replaceChildren(...fields);
  $("more").hidden = !fields.length;
}

// What a schema's description says of each attribute: lines of `name: text`, further lines of it deeper.
function described(text) {
  const said = {};
  for (const [, , name, words] of text.matchAll(/^((?: {4}){1,2})(\w+): (.*(?:\n\1 {4}.*)*)/gm)) {
    said[name] = words.replace(/\s+/g, " ").replaceAll("`", "").replace(/^./, (c) => c.toUpperCase()).replace(/\.$/, "");
  }
  return said;
}

function clearFaults(form) {
  for (const fault of form.querySelectorAll(".fault")) fault.hidden = true;
  for (const input of form.elements) input.removeAttribute("aria-invalid");
}

function showFaults(form, error) {
  let first = null;
  const others = [];
  for (const { loc, msg } of error.faults.length ? error.faults : [{ loc: [], msg: error.message }]) {
    const input = form.elements[loc[1]];
    const place = input && $(`e-${loc[1]}`);
    if (!place) { others.push(msg); continue; }
    input.setAttribute("aria-invalid", "true");
    place.textContent = msg;
    place.hidden = false;
    if (input.closest("details")) input.closest("details").open = true;
    first ??= input;
  }
  $("e-form").textContent = others.join(" ");
  $("e-form").hidden = !others.length;
  first?.focus();
}

function bodyOf(form) {
  const body = {};
  for (const input of form.elements) {
    const value = input.value?.trim();
    if (!input.name || (!value && input.name !== "source")) continue;
    const { type } = input.dataset;
    if (type === "integer" || type === "number") body[input.name] = Number.isNaN(Number(value)) ? value : Number(value);
    else if (type === "boolean") body[input.name] = value === "true";
    else body[input.name] = value;
  }
  return body;
}

async function add(body) {
  const stream = await call("POST", `${API}/streams`, body);
  chosen = stream.id;
  await refresh();
}

$("add").addEventListener("click", () => {
  clearFaults($("add-form"));
  $("add-dialog").showModal();
  $("f-source").focus();
});
$("try").addEventListener("click", () => act(() => add({ source: "synthetic:?seconds=600" })));
for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
$("add-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target, submit = form.querySelector("[type=submit]");
  clearFaults(form);
  submit.disabled = true;
  try {
    await add(bodyOf(form));
    form.reset();
    $("add-dialog").close();
  } catch (error) {
    if (error instanceof Refused) showFaults(form, error);
    else toast("The server is not reached.");
  } finally {
    submit.disabled = false;
  }
});

$("opacity").addEventListener("input", () => { $("opacity-value").textContent = `${$("opacity").value} %`; styled = Date.now() + 1500; });
$("opacity").addEventListener("change", () => restyle({ opacity: Number($("opacity").value) / 100 }));
for (const button of $("drawn").children) {
  button.addEventListener("click", () => {
    const wanted = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(wanted));
    restyle({ [button.dataset.key]: wanted });
  });
}
$("as-table").addEventListener("click", () => {
  const table = $("chart-table").hidden;
  $("as-table").setAttribute("aria-pressed", String(table));
  $("chart-table").hidden = !table;
  $("chart").hidden = table;
  chart.draw();
});
document.addEventListener("visibilitychange", () => {
  for (const { screen } of cards.values()) if (document.hidden) screen.close();
  if (!document.hidden) refresh();
});

refresh();
setInterval(() => { if (!document.hidden) refresh(); }, 1000);
makeMoreFields().catch(() => {});
listen();
fetch(`${API}/session`).then((a) => a.ok && a.json()).then((s) => { $("logout").hidden = !s?.token; }).catch(() => {});

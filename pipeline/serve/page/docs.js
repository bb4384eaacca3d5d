// The OpenAPI document as a page to read: every call, what it takes and gives, and how to make it with curl.
const $ = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const nameOf = (reference) => reference.split("/").at(-1);

function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return nameOf(schema.$ref);
  if (schema.enum) return schema.enum.map((v) => JSON.stringify(v)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.type === "array") return schema.prefixItems ? `[${schema.prefixItems.map(typeOf).join(", ")}]` : `${typeOf(schema.items) || "any"}[]`;
  const bounds = [["minimum", "≥"], ["exclusiveMinimum", ">"], ["maximum", "≤"], ["exclusiveMaximum", "<"]]
    .filter(([key]) => key in schema).map(([key, sign]) => `${sign} ${schema[key]}`);
  return [schema.type ?? "any", ...bounds].join(" ");
}

function table(head, rows) {
  const made = element("table");
  const top = made.createTHead().insertRow();
  for (const text of head) top.append(element("th", { scope: "col", textContent: text }));
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    row.forEach((text) => line.insertCell().append(text));
  }
  const scroll = element("div", { className: "scroll", tabIndex: 0 }, made);
  scroll.setAttribute("role", "group");
  scroll.setAttribute("aria-label", head.join(", "));
  return scroll;
}

function fieldsOf(schema) {
  const required = new Set(schema.required ?? []);
  return Object.entries(schema.properties ?? {}).map(([name, type]) => [
    element("code", { textContent: name }), typeOf(type),
    required.has(name) ? "required" : type.default === undefined ? "" : JSON.stringify(type.default),
  ]);
}

function callOf(method, path, operation) {
  const body = operation.requestBody?.content["application/json"]?.schema;
  const gives = Object.entries(operation.responses ?? {}).map(([status, answer]) => [
    status, typeOf(answer.content?.["application/json"]?.schema) || Object.keys(answer.content ?? {}).join(", "), answer.description ?? "",
  ]);
  const inside = element("div");
  if (operation.description) inside.append(element("p", { textContent: operation.description.replace(/\s+/g, " ") }));
  const parameters = (operation.parameters ?? []).map((p) => [element("code", { textContent: p.name }), p.in, typeOf(p.schema)]);
  if (parameters.length) inside.append(element("h3", { textContent: "Parameters" }), table(["Name", "In", "Type"], parameters));
  if (body) inside.append(element("p", {}, "Takes ", element("a", { href: `#${nameOf(body.$ref)}`, textContent: nameOf(body.$ref) })));
  inside.append(element("h3", { textContent: "Answers" }), table(["Status", "Type", "Meaning"], gives));
  const example = body ? ` \\\n  -H 'content-type: application/json' -d '${nameOf(body.$ref).startsWith("Stream") ? '{"source": "synthetic:"}' : '{"opacity": 0.6}'}'` : "";
  const pre = element("pre", { tabIndex: 0 }, element("code", { textContent: `curl${method === "GET" ? "" : ` -X ${method}`} ${location.origin}${root}${path}${example}` }));
  pre.setAttribute("aria-label", "Example");
  pre.setAttribute("role", "group");
  inside.append(pre);
  return element("details", { className: "panel call" },
    element("summary", {}, element("span", { className: "method", textContent: method }), element("code", { textContent: path }), element("span", { textContent: operation.summary ?? "" })),
    inside);
}

const made = await (await fetch(new URL("../api/v1/openapi.json", import.meta.url))).json();
const root = made.servers?.[0]?.url ?? "";
$("description").textContent = made.info.description.replace(/`/g, "");
const tags = new Map();
for (const [path, methods] of Object.entries(made.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    const tag = operation.tags?.[0] ?? "other";
    if (!tags.has(tag)) tags.set(tag, []);
    tags.get(tag).push(callOf(method.toUpperCase(), path, operation));
  }
}
for (const [tag, calls] of tags) $("calls").append(element("h2", { textContent: tag }), ...calls);
$("calls").append(element("h2", { textContent: "WebSocket" }),
  element("p", { textContent: "GET /api/v1/streams/{stream}/view, upgraded: send any text for a picture; each is answered with a JSON text (index, captured_at, age_ms, width, height) and the JPEG." }),
  element("p", { textContent: "GET /api/v1/streams/{stream}/view.mp4, upgraded, where a stream is encoded for an output: a JSON text (mime, width, height), then fragmented MP4 for Media Source Extensions, a message a picture." }),
  element("h2", { textContent: "Types" }));
for (const [name, schema] of Object.entries(made.components.schemas).sort()) {
  const fields = fieldsOf(schema);
  $("calls").append(element("details", { className: "panel call", id: name },
    element("summary", {}, element("code", { textContent: name }), element("span", { textContent: (schema.description ?? "").split("\n")[0] })),
    element("div", {}, ...(fields.length ? [table(["Field", "Type", "Default"], fields)] : [element("p", { textContent: typeOf(schema) })]))));
}
addEventListener("hashchange", () => { const target = $(location.hash.slice(1)); if (target) target.open = true; });

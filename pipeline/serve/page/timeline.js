// A stream over time on a canvas: its states, its recordings and clips, what was seen of each label, the classes' areas.

const TONES = { streaming: "--good", connecting: "--warn", stalled: "--warn", backing_off: "--warn", failed: "--bad" };
const LANE = 20, TOP = 4, AXIS = 20, AREA = 96, RIGHT = 8;
const MOST_LANES = 8;
const STEPS = [10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 10800, 21600];

export const clock = (at, seconds = true) =>
  new Date(at * 1000).toLocaleTimeString("en-GB", seconds ? {} : { hour: "2-digit", minute: "2-digit" });

export class Timeline {
  // `pick` is told the time that somebody has chosen.
  constructor(canvas, tip, pick, { areas = true } = {}) {
    Object.assign(this, { canvas, tip, areas, data: null, colors: new Map(), cursor: null, playing: null });
    canvas.addEventListener("pointermove", (event) => this.point(this.timeAt(event)));
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("click", (event) => { const at = this.timeAt(event); if (at !== null) pick(at); });
    canvas.addEventListener("keydown", (event) => this.key(event, pick));
    canvas.addEventListener("blur", () => this.point(null));
    new ResizeObserver(() => this.draw()).observe(canvas);
    document.addEventListener("themechange", () => this.draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  // What is shown: { since, until, period, points, states, files }.
  show(data, colors) {
    this.data = data;
    this.colors = colors;
    this.draw();
  }

  // Labels of boxes that have a lane, the most frequent first; `more` is how many have none.
  labels() {
    const sums = new Map();
    for (const { boxes } of this.data.points) {
      for (const [label, n] of Object.entries(boxes)) sums.set(label, (sums.get(label) ?? 0) + n);
    }
    this.more = Math.max(sums.size - MOST_LANES, 0);
    return [...sums].sort((a, b) => b[1] - a[1]).slice(0, MOST_LANES).map(([label]) => label);
  }

  // Where a time stands; what lies outside of what is shown, at its edge.
  x(at) {
    const { since, until } = this.data, share = (at - since) / (until - since);
    return this.left + Math.min(Math.max(share, 0), 1) * (this.width - this.left - RIGHT);
  }

  timeAt({ offsetX }) {
    if (!this.data || offsetX < this.left || offsetX > this.width - RIGHT) return null;
    const { since, until } = this.data;
    return since + ((offsetX - this.left) / (this.width - this.left - RIGHT)) * (until - since);
  }

  key(event, pick) {
    if (!this.data) return;
    const { since, until, period } = this.data;
    const step = { ArrowLeft: -period, ArrowRight: period, PageDown: -10 * period, PageUp: 10 * period }[event.key];
    const at = this.cursor ?? until;
    if (step) this.point(Math.min(Math.max(at + step, since), until));
    else if (event.key === "Home") this.point(since);
    else if (event.key === "End") this.point(until);
    else if (event.key === "Enter" || event.key === " ") pick(at);
    else return;
    event.preventDefault();
  }

  point(at) {
    this.cursor = at;
    this.draw();
    if (!this.tip) return;
    this.tip.hidden = at === null;
    if (at === null) return;
    this.tip.replaceChildren(...this.said(at).map((line, i) => Object.assign(document.createElement(i ? "span" : "strong"), { textContent: line })));
    const x = this.x(at), width = this.tip.offsetWidth;
    this.tip.style.left = `${x + 12 + width > this.width ? Math.max(x - width - 12, 0) : x + 12}px`;
  }

  pointAt(at) {
    const { points, period } = this.data;
    return points.find((p) => at >= p.at && at < p.at + period);
  }

  stateAt(at) {
    return this.data.states.findLast((s) => s.at <= at);
  }

  // What was there at a time, in lines.
  said(at) {
    const lines = [clock(at)], point = this.pointAt(at), state = this.stateAt(at) ?? (point && this.stateAt(at + this.data.period));
    if (state) lines.push(state.state.replace("_", " ") + (state.reason ? `: ${state.reason}` : ""));
    const file = this.data.files.find((f) => at >= f.begins && at <= f.ends);
    if (file) lines.push(file.kind === "clip" ? `clip: ${file.reason}` : "recorded");
    if (point) {
      const boxes = Object.entries(point.boxes).sort((a, b) => b[1] - a[1]).slice(0, 5);
      if (boxes.length) lines.push(boxes.map(([label, n]) => `${n} ${label}`).join(", "));
      const areas = Object.entries(point.area).sort((a, b) => b[1] - a[1]).slice(0, 4);
      if (areas.length) lines.push(areas.map(([name, share]) => `${name} ${(share * 100).toFixed(0)} %`).join(", "));
    } else lines.push("no frames");
    return lines;
  }

  draw() {
    if (!this.data) return;
    const { canvas } = this, labels = this.labels(), scale = window.devicePixelRatio || 1;
    const lanes = 1 + (this.data.files.length ? 1 : 0) + labels.length;
    const height = TOP + lanes * LANE + (this.areas ? AREA + 8 : 0) + AXIS;
    canvas.style.height = `${height}px`;
    this.width = canvas.clientWidth;
    if (!this.width) return;
    this.left = this.width < 480 ? 66 : 92;
    canvas.width = Math.round(this.width * scale);
    canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    Object.assign(this, { context, color });
    context.scale(scale, scale);
    context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    context.textBaseline = "middle";
    let top = TOP;
    top = this.drawStates(top);
    if (this.data.files.length) top = this.drawFiles(top);
    for (const label of labels) top = this.drawLabel(label, top);
    if (this.areas) top = this.drawAreas(top + 4);
    this.drawAxis(top, height);
    this.drawCursor(height);
    this.describe(labels);
  }

  lane(name, top) {
    this.context.fillStyle = this.color("--soft");
    this.context.fillText(name, 0, top + LANE / 2, this.left - 8);
    this.context.fillStyle = this.color("--sunken");
    this.context.fillRect(this.left, top + 3, this.width - this.left - RIGHT, LANE - 6);
  }

  drawStates(top) {
    this.lane("State", top);
    const { states, until, since } = this.data;
    states.forEach((state, i) => {
      const from = this.x(Math.max(state.at, since)), to = this.x(Math.min(states[i + 1]?.at ?? until, until));
      this.context.fillStyle = this.color(TONES[state.state] ?? "--line-strong");
      this.context.fillRect(from, top + 3, Math.max(to - from, 1), LANE - 6);
    });
    return top + LANE;
  }

  drawFiles(top) {
    this.lane("Video", top);
    const { files, since, until } = this.data;
    for (const kind of ["recording", "clip"]) {
      this.context.fillStyle = this.color(kind === "clip" ? "--text" : "--accent");
      for (const file of files.filter((f) => f.kind === kind)) {
        const from = Math.max(file.begins, since), to = Math.min(file.ends, until);
        if (to < from) continue;
        const inset = kind === "clip" ? 7 : 3;
        this.context.fillRect(this.x(from), top + inset, Math.max(this.x(to) - this.x(from) - 1, 2), LANE - 2 * inset);
      }
    }
    return top + LANE;
  }

  drawLabel(label, top) {
    this.lane(label, top);
    const most = Math.max(...this.data.points.map((p) => p.boxes[label] ?? 0));
    this.context.fillStyle = this.color("--accent");
    for (const { at, boxes } of this.data.points) {
      if (!boxes[label]) continue;
      const high = Math.max((boxes[label] / most) * (LANE - 6), 3);
      this.context.fillRect(this.x(at), top + LANE - 3 - high, Math.max(this.x(at + this.data.period) - this.x(at), 1.5), high);
    }
    return top + LANE;
  }

  drawAreas(top) {
    const { points, period } = this.data, sums = new Map();
    this.context.fillStyle = this.color("--soft");
    this.context.fillText("Areas", 0, top + 8);
    this.context.fillStyle = this.color("--sunken");
    this.context.fillRect(this.left, top, this.width - this.left - RIGHT, AREA);
    for (const { area } of points) for (const [name, share] of Object.entries(area)) sums.set(name, (sums.get(name) ?? 0) + share);
    const names = [...sums].sort((a, b) => b[1] - a[1]).map(([name]) => name);
    for (const { at, area } of points) {
      const x = this.x(at), width = Math.max(this.x(at + period) - x, 1) + 0.4;
      let below = top + AREA;
      for (const name of names) {
        const high = (area[name] ?? 0) * AREA;
        if (!high) continue;
        this.context.fillStyle = this.colors.get(name) ?? "#888";
        this.context.fillRect(x, below - high, width, high);
        below -= high;
      }
    }
    return top + AREA + 4;
  }

  drawAxis(top, height) {
    const { since, until } = this.data, wide = this.width - this.left - RIGHT;
    const step = STEPS.find((s) => (s / (until - since)) * wide >= 72) ?? 43200;
    const offset = new Date(since * 1000).getTimezoneOffset() * 60;
    this.context.textAlign = "center";
    for (let at = Math.ceil((since - offset) / step) * step + offset; at <= until; at += step) {
      const x = this.x(at);
      this.context.fillStyle = this.color("--line-strong");
      this.context.fillRect(x, height - AXIS, 1, 4);
      this.context.fillStyle = this.color("--soft");
      if (x > this.left + 16 && x < this.width - 20) this.context.fillText(clock(at, step < 60), x, height - AXIS / 2 + 2);
    }
    this.context.textAlign = "left";
  }

  drawCursor(height) {
    for (const [at, name, width] of [[this.playing, "--bad", 2], [this.cursor, "--text", 1]]) {
      if (at === null || at < this.data.since || at > this.data.until) continue;
      this.context.fillStyle = this.color(name);
      this.context.fillRect(this.x(at) - width / 2, 0, width, height - AXIS + 4);
    }
  }

  describe(labels) {
    const { since, until, points } = this.data, at = this.cursor ?? this.playing ?? until;
    this.canvas.setAttribute("aria-valuemin", String(Math.round(since)));
    this.canvas.setAttribute("aria-valuemax", String(Math.round(until)));
    this.canvas.setAttribute("aria-valuenow", String(Math.round(Math.min(Math.max(at, since), until))));
    const whole = `${clock(since)} to ${clock(until)}, ${points.length} points, seen: ${labels.join(", ") || "no boxes"}`;
    this.canvas.setAttribute("aria-valuetext", this.cursor === null ? whole : this.said(at).join("; "));
  }
}

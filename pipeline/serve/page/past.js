// The past of the chosen stream: its timeline, the list of its recordings and clips, and their player.

import { $, call, element, setText, spoken, streamPath } from "./parts.js";
import { Timeline, clock } from "./timeline.js";

const AGAIN = 10_000; // milliseconds after which the past is asked for again
const MOST_LISTED = 60;
const size = (bytes) => (bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${(bytes / 1e6).toFixed(1)} MB`);
const long = (seconds) => (seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`);
const called = (file) => (file.kind === "clip" ? `Clip: ${file.reason || "event"}` : "Recording");

export class Past {
  constructor() {
    Object.assign(this, { id: null, span: 3600, asked: 0, data: null, colors: new Map(), file: null, marks: [] });
    this.timeline = new Timeline($("timeline"), $("timeline-tip"), (at) => this.playAt(at));
    this.strip = new Timeline($("play-strip"), $("play-tip"), (at) => this.seek(at), { areas: false });
    this.video = $("play-video");
    for (const button of $("spans").children) button.addEventListener("click", () => this.goBack(Number(button.dataset.seconds)));
    $("past-table-button").addEventListener("click", () => {
      const wanted = $("past-table").hidden;
      $("past-table-button").setAttribute("aria-pressed", String(wanted));
      $("past-table").hidden = !wanted;
      $("timeline").parentElement.hidden = wanted;
      this.showTable();
      this.timeline.draw();
    });
    $("play-close").addEventListener("click", () => this.stop());
    $("play-before").addEventListener("click", () => this.turn(-1));
    $("play-after").addEventListener("click", () => this.turn(1));
    $("play-speed").addEventListener("change", () => { this.video.playbackRate = Number($("play-speed").value); });
    this.video.addEventListener("timeupdate", () => this.follow());
    this.video.addEventListener("ended", () => { if (this.file?.kind === "recording") this.turn(1); });
    this.video.addEventListener("error", () => { if (this.file) this.say("This browser cannot play the file; it can be downloaded."); });
    this.video.addEventListener("loadedmetadata", () => {
      this.video.playbackRate = Number($("play-speed").value);
      if (this.wanted) this.video.currentTime = this.wanted / this.pace();
      this.wanted = 0;
    });
  }

  // Show another stream, or the same a little later.
  async show(stream, colors) {
    this.colors = colors;
    $("past").hidden = !stream;
    if (!stream) { this.stop(); this.id = null; return; }
    if (this.id !== stream.id) {
      this.stop();
      this.id = stream.id;
      this.data = null;
      setText($("past-title"), `Timeline of ${stream.id}`);
      await this.refresh(true);
    } else await this.refresh(false);
  }

  goBack(seconds) {
    this.span = seconds;
    for (const button of $("spans").children) button.setAttribute("aria-pressed", String(Number(button.dataset.seconds) === seconds));
    return this.refresh(true);
  }

  async refresh(now) {
    if (!this.id || (!now && Date.now() - this.asked < AGAIN)) return;
    this.asked = Date.now();
    const { id, span } = this, path = streamPath(id), since = Date.now() / 1000 - span;
    const timeline = await call("GET", `${path}/timeline?since=${since.toFixed(0)}`);
    const { files } = await call("GET", `${path}/files?since=${(timeline.now - span).toFixed(0)}`);
    if (this.id !== id || this.span !== span) return;
    this.data = { ...timeline, since: timeline.now - span, until: timeline.now, files };
    this.timeline.show(this.data, this.colors);
    setText($("timeline-more"), `${this.timeline.more} rarer labels stand in the table.`);
    $("timeline-more").hidden = !this.timeline.more;
    this.showFiles();
    this.showTable();
  }

  showFiles() {
    const { files } = this.data, listed = files.slice(-MOST_LISTED).reverse();
    $("files-part").hidden = !files.length;
    setText($("files-title"), files.length > MOST_LISTED ? `Recordings and clips: the newest ${MOST_LISTED} of ${files.length}` : "Recordings and clips");
    const text = JSON.stringify([this.file?.name, listed]);
    if ($("files").dataset.shown === text) return;
    $("files").dataset.shown = text;
    const focused = document.activeElement?.dataset?.file;
    $("files").replaceChildren(...listed.map((file) => {
      const button = element("button", { type: "button", className: "plain", title: `Play ${file.name}`, "aria-pressed": String(this.file?.name === file.name) },
        element("time", { dateTime: new Date(file.begins * 1000).toISOString(), textContent: clock(file.begins) }),
        element("span", { className: "what", textContent: called(file) }),
        element("span", { className: "much", textContent: file.complete ? `${long(file.ends - file.begins)}, ${size(file.bytes)}` : "being written" }));
      button.dataset.file = file.name;
      button.addEventListener("click", () => this.play(file, 0));
      return element("li", {}, button);
    }));
    if (focused) [...$("files").querySelectorAll("button")].find((b) => b.dataset.file === focused)?.focus();
  }

  showTable() {
    const table = $("past-table");
    if (table.hidden || !this.data) return;
    const rows = [...this.data.points].reverse().map((point) => {
      const most = (values, form) => Object.entries(values).sort((a, b) => b[1] - a[1]).slice(0, 4).map(form).join(", ");
      return element("tr", {},
        element("th", { scope: "row", textContent: clock(point.at) }),
        element("td", { textContent: spoken(this.timeline.stateAt(point.at + this.data.period)?.state ?? "–") }),
        element("td", { className: "number", textContent: String(point.frames) }),
        element("td", { textContent: most(point.boxes, ([name, n]) => `${n} ${name}`) }),
        element("td", { textContent: most(point.area, ([name, share]) => `${name} ${(share * 100).toFixed(0)} %`) }));
    });
    const head = element("tr", {}, ...["Time", "State", "Frames", "Most at once", "Areas"].map((text) => element("th", { scope: "col", textContent: text })));
    table.replaceChildren(element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
  }

  // Playing -----------------------------------------------------------------------------------------------------------
  async playAt(at) {
    if (!this.data) await this.refresh(true);
    if (!this.data) return;
    if (at < this.data.since) {
      const spans = [...$("spans").children].map((button) => Number(button.dataset.seconds));
      await this.goBack(spans.find((span) => Date.now() / 1000 - at < span) ?? spans.at(-1));
    }
    const { files } = this.data, inside = (f) => at >= f.begins && at <= f.ends;
    const file = files.find((f) => f.kind === "recording" && inside(f)) ?? files.find(inside)
      ?? files.filter((f) => Math.abs(f.begins - at) < (this.data.until - this.data.since) / 100)[0];
    if (file) this.play(file, Math.max(at - file.begins, 0));
    else if (files.length) this.say("Nothing is recorded of this moment.");
    else this.say("Nothing is recorded. `outputs: {record: {folder: …}}` records, `event_clips` keeps events.");
  }

  async play(file, from) {
    const same = this.file?.name === file.name;
    this.file = file;
    $("player").hidden = false;
    if (same && this.video.readyState > 0) this.video.currentTime = from / this.pace();
    else {
      this.wanted = from;
      this.video.src = `${streamPath(this.id)}/files/${encodeURIComponent(file.name)}`;
    }
    $("play-download").href = `${streamPath(this.id)}/files/${encodeURIComponent(file.name)}`;
    $("play-download").download = file.name;
    this.say("");
    setText($("play-title"), `${called(file)}, ${clock(file.begins)} to ${file.complete ? clock(file.ends) : "now"}`);
    this.showFiles();
    $("player").scrollIntoView({ block: "nearest" });
    this.video.play().catch(() => {});
    await this.showMarks(file);
  }

  async showMarks(file) {
    const id = this.id, until = Math.max(file.ends, file.begins + 1);
    const marks = await call("GET", `${streamPath(id)}/timeline?since=${file.begins.toFixed(0)}&until=${Math.ceil(until)}`).catch(() => null);
    if (this.file?.name !== file.name || this.id !== id) return;
    $("play-seen").hidden = !marks?.points.length;
    if (!marks?.points.length) return;
    this.strip.show({ ...marks, since: file.begins, until, files: [] }, this.colors);
    const came = [], there = new Set();
    for (const point of marks.points) {
      for (const [label, count] of Object.entries(point.boxes)) if (!there.has(label)) came.push({ at: Math.max(point.at, file.begins), label, count });
      there.clear();
      for (const label of Object.keys(point.boxes)) there.add(label);
    }
    $("play-marks").replaceChildren(...came.map(({ at, label, count }) => {
      const button = element("button", { type: "button", className: "small", title: `Go to ${clock(at)}` }, `${clock(at)} ${count > 1 ? `${count} ` : ""}${label}`);
      button.addEventListener("click", () => this.seek(at));
      return element("li", {}, button);
    }));
  }

  seek(at) {
    if (this.file) this.video.currentTime = Math.max(at - this.file.begins, 0) / this.pace();
  }

  // Seconds that a second of the file took: a file that is analysed faster or slower than it plays is no clock.
  pace() {
    const { begins, ends, kind, complete } = this.file, pace = (ends - begins) / this.video.duration;
    return kind === "recording" && complete && Number.isFinite(pace) && (pace < 0.8 || pace > 1.25) ? pace : 1;
  }

  follow() {
    if (!this.file) return;
    const at = this.file.begins + this.video.currentTime * this.pace();
    for (const line of [this.timeline, this.strip]) {
      line.playing = at;
      line.draw();
    }
  }

  // The file before or after, of the same kind.
  turn(by) {
    const files = (this.data?.files ?? []).filter((f) => f.kind === this.file?.kind);
    const next = files[files.findIndex((f) => f.name === this.file?.name) + by];
    if (next) this.play(next, 0);
    else this.say(by > 0 ? "There is no later one." : "There is no earlier one.");
  }

  say(text) {
    setText($("play-said"), text);
    $("play-said").hidden = !text;
  }

  stop() {
    this.file = null;
    $("player").hidden = true;
    this.timeline.playing = this.strip.playing = null;
    this.say("");
    if (this.video.src) {
      this.video.removeAttribute("src");
      this.video.load();
    }
    if (this.data) { this.showFiles(); this.timeline.draw(); }
  }
}

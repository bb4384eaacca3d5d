import { API } from "./parts.js";

// Live view: a picture is asked for when the one before has been shown, so none is ever old ---------------------------
export class Screen {
  constructor(id, canvas) {
    this.id = id;
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.socket = null;
    this.shown = 0;
  }

  open() {
    if (this.socket || document.hidden) return;
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}${API}/streams/${encodeURIComponent(this.id)}/view`);
    socket.binaryType = "blob";
    this.socket = socket;
    socket.onopen = () => { socket.send("next"); socket.send("next"); };
    socket.onmessage = async ({ data }) => {
      if (typeof data === "string") return;
      try {
        const picture = await createImageBitmap(data);
        if (this.canvas.width !== picture.width) this.canvas.width = picture.width;
        if (this.canvas.height !== picture.height) this.canvas.height = picture.height;
        this.context.drawImage(picture, 0, 0);
        picture.close();
        this.shown += 1;
        this.canvas.dataset.shown = String(this.shown);
      } finally {
        if (socket.readyState === WebSocket.OPEN) socket.send("next");
      }
    };
    socket.onclose = () => { if (this.socket === socket) this.socket = null; };
  }

  close() {
    this.socket?.close();
    this.socket = null;
  }
}

// The same as video, where the stream is encoded for an output anyway: H.264 in fragments of MP4 ------------------------
const BEHIND = 0.7; // seconds behind the newest picture from which the player jumps to it
const KEPT = 10; // seconds of the past that the browser keeps

export class VideoScreen {
  constructor(id, video, fail) {
    this.id = id;
    this.video = video;
    this.fail = fail;
    this.socket = null;
    this.shown = 0;
    const count = () => {
      this.shown += 1;
      video.dataset.shown = String(this.shown);
      video.requestVideoFrameCallback(count);
    };
    video.requestVideoFrameCallback?.(count);
    video.addEventListener("error", () => { if (this.socket) this.fail(); });
  }

  open() {
    if (this.socket || document.hidden) return;
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}${API}/streams/${encodeURIComponent(this.id)}/view.mp4`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.waiting = [];
    this.buffer = null;
    this.media = new MediaSource();
    const opened = new Promise((resolve) => { this.media.addEventListener("sourceopen", resolve, { once: true }); });
    this.video.src = URL.createObjectURL(this.media);
    socket.onmessage = async ({ data }) => {
      if (typeof data !== "string") {
        this.waiting.push(data);
        this.pump();
        return;
      }
      const { mime } = JSON.parse(data);
      if (this.buffer || !MediaSource.isTypeSupported(mime)) { this.fail(); return; }
      await opened;
      if (this.socket !== socket) return;
      this.buffer = this.media.addSourceBuffer(mime);
      this.buffer.addEventListener("updateend", () => { this.follow(); this.pump(); });
      this.pump();
    };
    socket.onclose = ({ code }) => {
      if (this.socket !== socket) return;
      this.close();
      if (code === 4404) this.fail();
    };
  }

  pump() {
    const { buffer, video } = this;
    if (!buffer || buffer.updating || !this.waiting.length) return;
    try {
      const begin = buffer.buffered.length ? buffer.buffered.start(0) : 0;
      if (video.currentTime - begin > 2 * KEPT) buffer.remove(begin, video.currentTime - KEPT);
      else buffer.appendBuffer(this.waiting.shift());
    } catch {
      this.fail();
    }
  }

  follow() {
    const { buffered } = this.buffer ?? {};
    if (!buffered?.length) return;
    const newest = buffered.end(buffered.length - 1), begin = buffered.start(buffered.length - 1);
    const { video } = this;
    if (video.currentTime < begin || newest - video.currentTime > BEHIND) video.currentTime = Math.max(begin, newest - 0.1);
    if (video.paused) video.play().catch(() => {});
  }

  close() {
    const socket = this.socket;
    this.socket = null;
    this.buffer = null;
    socket?.close();
    if (this.video.src) {
      URL.revokeObjectURL(this.video.src);
      this.video.removeAttribute("src");
      this.video.load();
    }
  }
}

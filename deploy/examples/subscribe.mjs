// Reads roadlens in Node: npm install zeromq @msgpack/msgpack pngjs && node subscribe.mjs tcp://127.0.0.1:5555
import { decode } from "@msgpack/msgpack";
import { PNG } from "pngjs";
import { Subscriber } from "zeromq"; // Pull, and no subscription, for a publisher that is `push`

const socket = new Subscriber({ receiveHighWaterMark: 16 });
socket.connect(process.argv[2]); // made anew by itself after a loss or a restart
socket.subscribe("roadlens/v1/");
const expected = new Map();

/** Shares of the picture by class name: `pngjs` expands the palette, and `labels` turn colours back into classes. */
function shares(payload, { labels }) {
  const { data, width, height } = PNG.sync.read(payload);
  const names = new Map(labels.map(({ name, color: [r, g, b] }) => [(r << 16) | (g << 8) | b, name]));
  const found = {};
  for (let i = 0; i < data.length; i += 4) {
    const name = data[i + 3] ? names.get((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]) : "unknown";
    found[name] = (found[name] ?? 0) + 1 / (width * height);
  }
  return found;
}

for await (const [, header, payload] of socket) {
  const message = header[0] === 0x7b ? JSON.parse(header) : decode(header);
  const { kind, stream, sequence, run, run_start } = message;
  if (kind !== "analysis" && kind !== "end") continue; // states and signs of life are numbered apart
  const before = expected.get(stream) ?? { run, next: sequence };
  const missed = sequence - (before.run === run ? before.next : run_start);
  expected.set(stream, { run, next: sequence + 1 });
  const labels = (message.boxes ?? []).map((box) => box.label);
  const area = message.mask?.encoding === "png" ? shares(payload, message.mask) : {};
  console.log(JSON.stringify({ kind, stream, sequence, missed, restarted: before.run !== run, labels, area }));
}

// Sockets of the `ws` package for the lab, which tells over standard input what to do with them, a JSON line each:
// {"do":"open","id":1,"url":…} | {"do":"send","id":1,"text":…} | {"do":"close","id":1} | {"do":"cut","id":1}
// and is told {"id":1,"ev":"open"} | {"id":1,"ev":"text","text":…} | {"id":1,"ev":"end","code":…,"reason":…}.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

// The module is installed for the strangers' tests.
const { WebSocket } = createRequire(new URL("../../strangers/package.json", import.meta.url))("ws");
const ca = readFileSync(process.argv[2]);
const sockets = new Map();

const tell = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);

function open(id, url) {
  const socket = new WebSocket(url, { ca });
  sockets.set(id, socket);
  socket.on("open", () => tell({ id, ev: "open" }));
  socket.on("message", (data) => tell({ id, ev: "text", text: data.toString() }));
  // A failure is followed by `close`, which says what there is to say.
  socket.on("error", () => {});
  socket.on("close", (code, reason) => {
    sockets.delete(id);
    tell({ id, ev: "end", code, reason: reason.toString() });
  });
}

for await (const line of createInterface({ input: process.stdin })) {
  const { do: what, id, url, text } = JSON.parse(line);
  if (what === "open") open(id, url);
  else if (what === "send") sockets.get(id)?.send(text, () => {});
  else if (what === "close") sockets.get(id)?.close();
  else if (what === "cut") sockets.get(id)?.terminate();
}
process.exit();

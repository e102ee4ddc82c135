// The application's side of hooks, as ops/hooks.md has it, word for word, with the libraries that it names.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Webhook } from "standardwebhooks";
import WebSocket from "ws";
import { connect } from "../../../src/web/conclave.js";
import { Client } from "./client.mjs";
import { freePort } from "./redis.mjs";
import { Running, Server, token } from "./server.mjs";

const PAGE = fileURLToPath(new URL("../../../ops/hooks.md", import.meta.url));
const MODULES = fileURLToPath(new URL("../node_modules", import.meta.url));
const SECRET = `whsec_${randomBytes(32).toString("base64")}`;
const OLD_SECRET = `whsec_${randomBytes(24).toString("base64")}`;

let folder;
let server;
let application;

/** The block of the page that contains `word`. */
async function block(word) {
  const blocks = [...(await readFile(PAGE, "utf8")).matchAll(/^```js\n(.*?)^```$/gms)].map(([, text]) => text);
  return blocks.find((text) => text.includes(word)) ?? assert.fail(`ops/hooks.md has no block with ${word}`);
}

function hooks(url) {
  return {
    hooks: { secret: SECRET },
    "[hooks.ask]": { name: "app", url, events: ["open", "join", "chat", "call"], calls: ["orders.*", "app.*"] },
  };
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "conclave-hooks-"));
  const port = await freePort();
  await symlink(MODULES, join(folder, "node_modules"));
  await writeFile(join(folder, "app.mjs"), (await block("express()")).replace("3000", String(port)));
  application = new Running(["app.mjs"], { command: process.execPath, cwd: folder, env: { HOOK_SECRET: SECRET } });
  await application.line((line) => line.includes("listening"));
  server = await Server.start({ config: hooks(`http://localhost:${port}/conclave`) });
});

after(async () => {
  await server?.close();
  await application?.signal("SIGTERM");
  await rm(folder, { recursive: true, force: true });
});

test("the example decides who enters and what is said, and answers calls", async () => {
  const ann = await Client.joined(server, "ann", "lobby");
  const bob = await Client.joined(server, "bob", "lobby");
  assert.equal((await ann.ask({ type: "join", room: "staff/plans" })).code, "forbidden");
  await ann.ask({ type: "chat", room: "lobby", content: "well darn it" });
  assert.equal((await bob.next({ type: "chat" })).content, "well **** it");
  const reply = await ann.ask({ type: "call", name: "orders.create", data: { item: 7 } });
  assert.equal(reply.type, "reply");
  assert.deepEqual(reply.data, { order: 1, item: 7, by: "ann" });
  await Promise.all([ann.close(), bob.close()]);
});

test("the JavaScript client calls", async () => {
  class Trusting extends WebSocket {
    constructor(url, protocols) {
      super(url, protocols, { ca: server.ca });
    }
  }
  const client = connect(server.origin, { token: token("cid"), WebSocketClass: Trusting });
  await new Promise((resolve) => client.on("connected", resolve));
  assert.deepEqual(await client.call("orders.create", { item: 9 }), { order: 2, item: 9, by: "cid" });
  await assert.rejects(client.call("orders.nonsense"), { code: "forbidden", reason: "no such call" });
  await assert.rejects(client.call("elsewhere"), { code: "unknown_type" });
  client.close();
});

test("a stranger's library verifies every request, also while secrets change, and finds a forged one", async () => {
  const requests = [];
  const backend = createServer((request, response) => {
    const pieces = [];
    request.on("data", (piece) => pieces.push(piece));
    request.on("end", () => {
      requests.push({ headers: request.headers, body: Buffer.concat(pieces).toString() });
      response.writeHead(204).end();
    });
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => backend.once("listening", resolve));
  const previous = join(folder, "previous-secret");
  await writeFile(previous, `${OLD_SECRET}\n`, { mode: 0o600 });
  const config = hooks(`http://127.0.0.1:${backend.address().port}/`);
  config.hooks.previous_secret_file = previous;
  const other = await Server.start({ config });
  try {
    const ann = await Client.joined(other, "ann", "lobby");
    for (const content of ["hi", { text: "grüß 👋\u2028" }, [1.5, null]]) await ann.ask({ type: "chat", room: "lobby", content });
    await ann.ask({ type: "call", name: "orders.x", data: "y" });
    assert.equal(requests.length, 6);
    for (const { headers, body } of requests) {
      for (const secret of [SECRET, OLD_SECRET]) assert.deepEqual(new Webhook(secret).verify(body, headers), JSON.parse(body));
      assert.throws(() => new Webhook(SECRET).verify(body.replace("ann", "bob"), headers));
      assert.throws(() => new Webhook(`whsec_${randomBytes(24).toString("base64")}`).verify(body, headers));
    }
    assert.equal(new Set(requests.map(({ headers }) => headers["webhook-id"])).size, 6);
    assert.ok(![...other.process.lines].some((line) => line.includes(SECRET) || line.includes(OLD_SECRET)));
    await ann.close();
  } finally {
    await other.close();
    backend.close();
    backend.closeAllConnections();
  }
});

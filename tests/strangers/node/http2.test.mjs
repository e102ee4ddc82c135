// Sockets over HTTP/2 (RFC 8441): several share one connection, and each ends for itself.
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:http2";
import { after, before, test } from "node:test";
import { Receiver, Sender } from "ws";
import { Client } from "./client.mjs";
import { Server, token } from "./server.mjs";

const WAIT_MS = 20_000;

let server;
let session;

before(async () => {
  server = await Server.start();
  session = connect(server.origin, { ca: server.ca });
  const [settings] = await once(session, "remoteSettings");
  assert.equal(settings.enableConnectProtocol, true);
});
after(async () => {
  session.close();
  await once(session, "close");
  await server.close();
});

/** One stream that speaks WebSocket, with the frames of the `ws` package. */
class Stream {
  frames = [];

  constructor(query, headers = {}) {
    this.stream = session.request({
      ":method": "CONNECT", ":protocol": "websocket", ":scheme": "https", ":authority": server.authority,
      ":path": `/ws${query}`, "sec-websocket-version": "13", ...headers,
    }, { endStream: false });
    this.answer = once(this.stream, "response").then(([head]) => head);
    this.receiver = new Receiver({ isServer: false });
    this.sender = new Sender(this.stream, {});
    this.receiver.on("message", (data) => {
      this.frames.push(JSON.parse(data));
      this.receiver.emit("frame");
    });
    this.closed = once(this.receiver, "conclude").then(([code, reason]) => {
      this.sender.close(code, "", true, () => this.stream.end());
      return { code, reason: reason.toString() };
    });
    this.ended = once(this.stream, "close");
    // A refusal has a body for people.
    this.answer.then((head) => (head[":status"] === 200 ? this.stream.pipe(this.receiver) : this.stream.resume()));
  }

  async next(type) {
    for (;;) {
      const frame = this.frames.find((candidate) => candidate.type === type);
      if (frame) return frame;
      await once(this.receiver, "frame", { signal: AbortSignal.timeout(WAIT_MS) });
    }
  }

  send(data) {
    this.sender.send(typeof data === "string" ? data : JSON.stringify(data), { fin: true, mask: true, binary: false, compress: false });
  }

  join(room) {
    this.send({ type: "join", room });
    return this.next("list");
  }
}

test("two sockets share a connection; one is closed for its fault, the other goes on", async () => {
  const ann = new Stream(`?token=${token("ann")}`, { "sec-websocket-protocol": "conclave.v1" });
  const bob = new Stream(`?token=${token("bob")}`);
  const head = await ann.answer;
  assert.equal(head[":status"], 200);
  assert.equal(head["sec-websocket-protocol"], "conclave.v1");
  assert.deepEqual((await ann.next("connected")).user, { id: "ann" });
  await ann.join("h2");
  await bob.join("h2");
  const cem = await Client.joined(server, "cem", "h2");
  bob.send({ type: "chat", room: "h2", content: "over HTTP/2" });
  for (const chat of [await ann.next("chat"), await bob.next("chat"), await cem.next({ type: "chat" })]) {
    assert.deepEqual([chat.seq, chat.from.id, chat.content], [1, "bob", "over HTTP/2"]);
  }

  ann.sender.send(Buffer.from([1]), { fin: true, mask: true, binary: true, compress: false });
  assert.deepEqual(await ann.closed, { code: 1003, reason: "binary" });
  await ann.ended;
  assert.equal((await cem.next({ type: "left" })).user.id, "ann");
  bob.send({ type: "ping" });
  await bob.next("pong");
  assert.equal(session.closed, false);

  bob.stream.close();
  assert.equal((await cem.next({ type: "left" })).user.id, "bob");
  await cem.close();
});

test("a bad token is upgraded and closed, a foreign origin refused", async () => {
  const bad = new Stream("?token=hello");
  assert.equal((await bad.answer)[":status"], 200);
  assert.deepEqual(await bad.closed, { code: 1008, reason: "token_malformed" });
  assert.deepEqual(bad.frames, []);
  await bad.ended;
  const foreign = new Stream(`?token=${token("ann")}`, { origin: "https://evil.example" });
  assert.equal((await foreign.answer)[":status"], 403);
  await foreign.ended;
  assert.equal(session.closed, false);
});

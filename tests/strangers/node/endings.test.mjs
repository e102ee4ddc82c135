import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Client } from "./client.mjs";
import { now, Server, token } from "./server.mjs";

/** A frame as no library would send it. */
const raw = (client, ...bytes) => client.socket._socket.write(Buffer.from(bytes));

describe("a violation is closed with", () => {
  let server;
  before(async () => (server = await Server.start()));
  after(() => server.close());

  const MASK = [1, 2, 3, 4];
  const masked = (...bytes) => bytes.map((byte, index) => byte ^ MASK[index % 4]);
  const violations = [
    ["1003 binary", "a binary frame", (client) => client.socket.send(Buffer.from([1, 2, 3]))],
    ["1007 utf8", "a text that is not UTF-8", (client) => client.socket.send(Buffer.from([0x22, 0xff, 0x22]), { binary: false })],
    ["1007 utf8", "a surrogate cut across fragments", (client) => {
      client.socket.send(Buffer.from([0x22, 0xed]), { binary: false, fin: false });
      client.socket.send(Buffer.from([0xa0, 0x80, 0x22]), { fin: true });
    }],
    ["1009 too_large", "a message over four times the limit", (client) => client.send(JSON.stringify({ type: "chat", room: "r", content: "x".repeat(262_144) }))],
    ["1009 too_large", "such a message in fragments", (client) => {
      for (let piece = 0; piece < 5; piece += 1) client.socket.send("x".repeat(60_000), { fin: false });
    }],
    ["1002 protocol", "an unmasked frame", (client) => raw(client, 0x81, 0x02, 0x7b, 0x7d)],
    ["1002 protocol", "a reserved bit", (client) => raw(client, 0xc1, 0x82, ...MASK, ...masked(0x7b, 0x7d))],
    ["1002 protocol", "an opcode that does not exist", (client) => raw(client, 0x83, 0x80, ...MASK)],
    ["1002 protocol", "a continuation of nothing", (client) => raw(client, 0x80, 0x80, ...MASK)],
    ["1002 protocol", "a ping in fragments", (client) => raw(client, 0x09, 0x80, ...MASK)],
  ];
  for (const [expected, name, act] of violations) {
    test(`${expected}: ${name}`, async () => {
      const client = await Client.joined(server, "ann", "r");
      act(client);
      const { code, reason } = await client.closed;
      assert.equal(`${code} ${reason}`, expected);
    });
  }

  test("and others in the room go on", async () => {
    const [ann, bob] = [await Client.joined(server, "ann", "on"), await Client.joined(server, "bob", "on")];
    ann.socket.send(Buffer.from([1]));
    await ann.closed;
    assert.equal((await bob.next({ type: "left" })).user.id, "ann");
    assert.equal((await bob.say("on", "still here")).type, "ok");
    await bob.close();
  });
});

test("a token that runs out while connected closes with 1008 token_expired", async () => {
  const server = await Server.start({ config: { auth: { leeway: "0s" } } });
  try {
    const [ann, bob] = await Promise.all(["ann", "bob"].map((sub) => Client.signedIn(server, sub, { claims: { exp: now() + 3 } })));
    assert.equal((await bob.ask({ type: "auth", token: token("bob") })).type, "ok");
    assert.deepEqual(await ann.closed, { code: 1008, reason: "token_expired" });
    assert.ok(Date.now() >= ann.welcome.expires * 1000, "not before its time");
    assert.equal((await bob.ask({ type: "ping" })).type, "pong", "who refreshed stays");
    await bob.close();
  } finally {
    await server.close();
  }
});

test("over its rate a message is not processed; who goes on is closed with 1008 abuse", async () => {
  const server = await Server.start({ config: { limits: { messages_per_second: 2, messages_burst: 5 } } });
  try {
    const ann = await Client.joined(server, "ann", "rate");
    const bob = await Client.joined(server, "bob", "rate");
    assert.equal(ann.welcome.limits.messages_per_second, 2);
    for (let number = 0; number < 12; number += 1) ann.send({ type: "chat", room: "rate", content: number, ref: number });
    const answers = await Promise.all(Array.from({ length: 12 }, (_, ref) => ann.next({ ref })));
    const refused = answers.filter(({ type }) => type === "error");
    assert.ok(refused.length > 0);
    for (const { code, retry_after_ms: retry } of refused) {
      assert.equal(code, "rate_limited");
      assert.ok(Number.isInteger(retry) && retry > 0, `${retry}`);
    }
    const said = answers.filter(({ type }) => type === "ok").map(({ ref }) => ref);
    for (const content of said) await bob.next({ type: "chat", content });
    await bob.sync();
    assert.deepEqual(bob.of("chat").map(({ content }) => content), said, "the refused were not said");
    for (let number = 0; number < 40; number += 1) ann.send({ type: "ping" });
    assert.deepEqual(await ann.closed, { code: 1008, reason: "abuse" });
    await bob.close();
  } finally {
    await server.close();
  }
});

test("a drain says closing, then closes with 1012 restart, and ends with 0", async () => {
  const server = await Server.start({ config: { drain: { grace: "100ms", time: "1s" } } });
  try {
    const clients = await Promise.all(Array.from({ length: 20 }, (_, number) => Client.joined(server, `u${number}`, "drain")));
    const stopped = server.stop();
    const delays = [];
    for (const client of clients) {
      assert.deepEqual(await client.closed, { code: 1012, reason: "restart" });
      const last = client.frames.at(-1);
      assert.equal(last.type, "closing");
      assert.equal(typeof last.reason, "string");
      delays.push(last.reconnect_after_ms);
    }
    await stopped;
    assert.ok(delays.every((delay) => Number.isInteger(delay) && delay >= 0), `${delays}`);
    assert.ok(new Set(delays).size > 1, `all at once: ${delays}`);
  } finally {
    await server.close();
  }
});

test("who answers no ping is cut off; who does, stays", async () => {
  const server = await Server.start({ config: { heartbeat: { interval: "1s" } } });
  try {
    const silent = await Client.joined(server, "silent", "beat", { options: { autoPong: false } });
    const lively = await Client.joined(server, "lively", "beat");
    assert.equal(lively.welcome.heartbeat, 1);
    let pings = 0;
    lively.socket.on("ping", () => (pings += 1));
    assert.equal((await silent.closed).code, 1006);
    assert.equal((await lively.next({ type: "left" })).user.id, "silent");
    assert.ok(pings > 0);
    assert.equal((await lively.ask({ type: "ping" })).type, "pong");
    await lively.close();
  } finally {
    await server.close();
  }
});

test("a reader that stops is ended, harms nobody, and gets all of it when it is back", async () => {
  const server = await Server.start({
    config: { limits: { message_bytes: "16KiB", outbox_bytes: "64KiB", outbox_frames: 64 }, history: { messages: 10_000, bytes: "256MiB" } },
  });
  try {
    const slow = await Client.joined(server, "slow", "flood");
    const quick = await Client.joined(server, "quick", "flood");
    slow.socket.pause();
    let gone = false;
    quick.next({ type: "left" }).then(() => (gone = true), () => {});
    const filler = "x".repeat(15_000);
    let last = { seq: 0 };
    // The kernels on the way may hold tens of megabytes before the server feels it.
    for (let number = 1; number <= 8000 && !gone; number += 1) last = await quick.say("flood", filler);
    assert.ok(gone, "it was not ended");
    for (let seq = 1; seq <= last.seq; seq += 1) await quick.next({ type: "chat", seq });

    slow.socket.resume();
    const { code, reason } = await slow.closed;
    assert.ok((code === 1013 && reason === "slow_reader") || code === 1006, `${code} ${reason}`);
    const got = slow.of("chat").map(({ seq }) => seq);
    assert.deepEqual(got, got.map((_, index) => index + 1), "what came was in order, without a hole");

    const back = await Client.signedIn(server, "slow");
    const list = await back.join("flood", { epoch: last.epoch, seq: got.length });
    assert.equal(list.recovered, true);
    assert.equal(list.seq, last.seq);
    for (let seq = got.length + 1; seq <= last.seq; seq += 1) await back.next({ type: "chat", seq });
    assert.equal(back.of("chat").length, last.seq - got.length);
    await Promise.all([back.close(), quick.close()]);
  } finally {
    await server.close();
  }
});

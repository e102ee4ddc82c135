// Coming back: how long it waits, when it stops, which token it brings.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { backoffMs } from "../../src/web/conclave.js";
import { back, inLobby, pass, settle, started, stopTime } from "./harness.mjs";

beforeEach(stopTime);

test("the backoff is full jitter between nothing and a doubled wait of at most 30 s", () => {
  assert.equal(backoffMs(0, () => 0), 0);
  assert.equal(backoffMs(0, () => 1), 500);
  assert.equal(backoffMs(3, () => 1), 4000);
  assert.equal(backoffMs(6, () => 1), 30_000);
  assert.equal(backoffMs(5000, () => 1), 30_000);
});

test("each failed attempt doubles the wait, and only a stable connection starts anew", async () => {
  const { server, states } = await started({ random: () => 1 });
  const waits = () => states.filter(({ state }) => state === "reconnecting").map(({ inMs }) => inMs);
  for (let attempt = 0; attempt < 3; attempt += 1) {
    server.socket.end();
    await back(server);
  }
  assert.deepEqual(waits(), [500, 1000, 2000]);
  server.socket.welcome();
  server.socket.end();
  assert.equal(waits().at(-1), 4000);
  await back(server);
  server.socket.welcome();
  await pass(5000);
  server.socket.end();
  assert.equal(waits().at(-1), 500);
});

test("an attempt that gets no answer is given up", async () => {
  const { server, states } = await started();
  await pass(15_000);
  assert.equal(states.at(-1).reason, "timeout");
  assert.ok(server.socket.closedByClient);
});

test("it says that it returns once it has a position to come back to, and not before", async () => {
  const { server } = await started();
  const resumes = () => server.sockets.map(({ url }) => url.searchParams.get("resume"));
  server.socket.end();
  await back(server);
  assert.deepEqual(resumes(), [null, null]);
  const member = await inLobby();
  member.server.socket.end();
  await back(member.server);
  assert.equal(member.server.socket.url.searchParams.get("resume"), "1");
});

test("1008 and closes that blame the client end it", async () => {
  for (const [code, reason] of [[1008, "token_revoked"], [1008, "kicked"], [1008, "abuse"], [1009, "too_large"], [1002, "protocol"]]) {
    const { server, states } = await started();
    server.socket.welcome();
    server.socket.end(code, reason);
    await pass(600_000);
    assert.deepEqual(states.at(-1), { state: "stopped", code, reason });
    assert.equal(server.sockets.length, 1);
  }
});

test("the wait that the server names is kept, to the millisecond", async () => {
  const { server, states } = await inLobby();
  server.socket.frame({ type: "closing", reason: "restart", reconnect_after_ms: 7000 });
  server.socket.end(1012, "restart");
  assert.equal(states.at(-1).inMs, 7000);
  await pass(6999);
  assert.equal(server.sockets.length, 1);
  await pass(1);
  assert.equal(server.sockets.length, 2);
});

test("the address: /ws, the subprotocol, and the token in the query", async () => {
  const { server } = await started({ token: "a.b+c" });
  assert.equal(server.socket.url.protocol, "wss:");
  assert.equal(server.socket.url.pathname, "/ws");
  assert.equal(server.socket.url.searchParams.get("token"), "a.b+c");
  assert.deepEqual(server.socket.protocols, ["conclave.v1"]);
});

test("an expired token is renewed once", async () => {
  const asked = [];
  const getToken = async ({ reason }) => { asked.push(reason); return `t${asked.length}`; };
  const { server, states } = await started({ getToken });
  server.socket.end(1008, "token_expired");
  await back(server);
  assert.equal(server.socket.url.searchParams.get("token"), "t2");
  server.socket.end(1008, "token_expired");
  await pass(60_000);
  assert.deepEqual(asked, ["connect", "expired"]);
  assert.equal(states.at(-1).state, "stopped");
});

test("a renewal that was accepted allows the next one", async () => {
  const { server } = await started({ getToken: () => "t" });
  for (let round = 0; round < 3; round += 1) {
    server.socket.welcome();
    server.socket.end(1008, "token_expired");
    await back(server);
  }
  assert.equal(server.sockets.length, 4);
});

test("a cookie gets one more try after token_expired, a fixed token none", async () => {
  const cookie = await started();
  cookie.server.socket.end(1008, "token_expired");
  await back(cookie.server);
  cookie.server.socket.end(1008, "token_expired");
  await pass(60_000);
  assert.equal(cookie.server.sockets.length, 2);
  const fixed = await started({ token: "t" });
  fixed.server.socket.end(1008, "token_expired");
  assert.equal(fixed.states.at(-1).state, "stopped");
});

test("a getToken that fails is asked again with backoff", async () => {
  let calls = 0;
  const getToken = async () => { calls += 1; if (calls === 1) throw new Error("down"); return "t"; };
  const { server, states } = await started({ getToken });
  assert.equal(states.at(-1).reason, "no_token");
  await pass(30_000);
  assert.equal(server.sockets.length, 1);
});

test("the token is replaced before it expires", async () => {
  const { server } = await started({ getToken: ({ reason }) => reason });
  const expires = Date.now() / 1000 + 600;
  server.socket.welcome({ expires });
  await pass(539_000 - 30_000);
  server.socket.frame({ type: "pong", time: Date.now() });
  await pass(30_000);
  assert.equal(server.socket.last("auth"), undefined);
  server.socket.frame({ type: "pong", time: Date.now() });
  await pass(1000);
  assert.equal(server.socket.last("auth").token, "refresh");
  server.socket.answer("auth", { type: "ok", expires: expires + 600 });
  await settle();
});

test("silence is asked about, and then taken for a lost connection", async () => {
  const { server, states } = await inLobby();
  const pings = () => server.socket.all("ping").filter(({ ref }) => ref === undefined).length;
  await pass(29_999);
  assert.equal(pings(), 0);
  await pass(1);
  assert.equal(pings(), 1);
  server.socket.frame({ type: "pong", time: 1 });
  await pass(10_000);
  assert.equal(states.at(-1).state, "online");
  await pass(20_000);
  assert.equal(pings(), 2);
  await pass(10_000);
  assert.equal(states.at(-1).reason, "silent");
});

test("close ends it before and after the first attempt, and reconnect brings it back", async () => {
  const { client, server, states } = await inLobby();
  client.close();
  assert.deepEqual(states.at(-1), { state: "stopped", code: 1000, reason: "closed" });
  server.socket.end();
  await pass(60_000);
  assert.equal(server.sockets.length, 1);
  client.reconnect();
  await settle();
  assert.equal(server.sockets.length, 2);
});

test("nothing of a replaced socket is heard any more", async () => {
  const { server, chats } = await inLobby();
  const old = server.socket;
  old.frame({ type: "closing", reason: "restart", reconnect_after_ms: 10 });
  old.end(1012, "restart");
  await pass(10);
  server.socket.welcome();
  old.chat(11);
  old.end(1008, "kicked");
  assert.equal(chats.length, 0);
  assert.equal(server.sockets.length, 2);
});

// Calls: the application's reply, its refusal, and neither of them.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { inLobby, pass, settle, started, stopTime } from "./harness.mjs";

beforeEach(stopTime);

test("a call gives back what the application replies", async () => {
  const { server, client } = await inLobby();
  const created = client.call("orders.create", { id: 7 });
  const { ref, ...frame } = server.socket.last("call");
  assert.deepEqual(frame, { type: "call", name: "orders.create", data: { id: 7 } });
  server.socket.frame({ type: "reply", ref, data: { created: true } });
  assert.deepEqual(await created, { created: true });
  const none = client.call("now");
  assert.equal(server.socket.last("call").data, null);
  server.socket.answer("call", { type: "reply", data: null });
  assert.equal(await none, null);
});

test("several at once, answered in any order", async () => {
  const { server, client } = await inLobby();
  const both = [client.call("a"), client.call("b")];
  for (const { ref, name } of server.socket.all("call").reverse()) server.socket.frame({ type: "reply", ref, data: name });
  assert.deepEqual(await Promise.all(both), ["a", "b"]);
});

test("a refusal rejects it, with the application's reason", async () => {
  const { server, client } = await inLobby();
  const denied = assert.rejects(client.call("x"), { code: "forbidden", reason: "not yours" });
  server.socket.answer("call", { type: "error", code: "forbidden", message: "", reason: "not yours" });
  await denied;
  const down = assert.rejects(client.call("x"), { code: "unavailable", retryAfterMs: 1000 });
  server.socket.answer("call", { type: "error", code: "unavailable", message: "", retry_after_ms: 1000 });
  await down;
});

test("no reply in time rejects it, and a late one is nobody's", async () => {
  const { server, client } = await inLobby();
  const errors = [];
  client.on("error", (error) => errors.push(error));
  const late = assert.rejects(client.call("x", 1, { timeout: 100 }), { code: "timeout" });
  await pass(100);
  await late;
  server.socket.answer("call", { type: "reply", data: 1 });
  await settle();
  assert.deepEqual(errors, []);
});

test("a call is never made again by itself", async () => {
  const { server, client } = await inLobby();
  const lost = assert.rejects(client.call("x"), { code: "disconnected" });
  server.socket.end();
  await lost;
  await pass(60_000);
  server.socket.welcome();
  await settle();
  assert.equal(server.socket.all("call").length, 0);
  const early = await started();
  await assert.rejects(early.client.call("x"), { code: "disconnected" });
});

// Rooms: where one stands, what is said again, who is here.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { back, inLobby, pass, settle, started, stopTime } from "./harness.mjs";

beforeEach(stopTime);

const since = (server) => server.socket.last("join").since;

async function again(server) {
  server.socket.end();
  await back(server);
  server.socket.welcome();
}

test("the first join has no position, later ones that of the last chat", async () => {
  const { server, chats } = await inLobby();
  assert.equal(since(server), undefined);
  server.socket.chat(11);
  server.socket.chat(12, { epoch: "e2" });
  server.socket.chat(13);
  await again(server);
  assert.deepEqual(since(server), { epoch: "e2", seq: 13 });
  assert.deepEqual(chats.map(({ epoch, seq }) => `${epoch}/${seq}`), ["e1/11", "e2/12", "e2/13"]);
});

test("a list without replay is a position", async () => {
  const { server } = await inLobby();
  await again(server);
  assert.deepEqual(since(server), { epoch: "e1", seq: 10 });
});

test("a list in front of a replay is none: whoever is cut in the middle stands at the last chat", async () => {
  const { server, chats } = await inLobby();
  await again(server);
  server.socket.enter({ recovered: true, epoch: "e2", seq: 20 });
  await again(server);
  assert.deepEqual(since(server), { epoch: "e1", seq: 10 });
  server.socket.enter({ recovered: true, epoch: "e2", seq: 20 });
  server.socket.chat(11);
  server.socket.chat(12);
  await again(server);
  assert.deepEqual(since(server), { epoch: "e1", seq: 12 });
  assert.deepEqual(chats.map(({ seq }) => seq), [11, 12]);
});

test("once the replay has ended, the epoch is that of its list", async () => {
  const { server, chats } = await inLobby();
  await again(server);
  server.socket.enter({ recovered: true, epoch: "e2", seq: 12 });
  server.socket.chat(11);
  server.socket.chat(12);
  server.socket.chat(13);
  assert.deepEqual(chats.map(({ epoch, seq }) => `${epoch}/${seq}`), ["e1/11", "e2/12", "e2/13"]);
});

test("a list that was asked for meanwhile does not jump over the replay", async () => {
  const { server, room } = await inLobby();
  await again(server);
  server.socket.enter({ recovered: true, seq: 20 });
  room.list();
  server.socket.answer("list", { type: "list", room: "lobby", users: [], count: 0, epoch: "e1", seq: 20, as_of: 2 });
  server.socket.chat(11);
  assert.deepEqual(room.position, { epoch: "e1", seq: 11 });
});

test("what cannot be replayed is told, and the new head is where one stands", async () => {
  const { server, room } = await inLobby();
  const reloads = [];
  room.on("reload", (reload) => reloads.push(reload));
  await again(server);
  server.socket.enter({ recovered: false, epoch: "e9", seq: 3 });
  assert.deepEqual(reloads, [{ room: "lobby", position: { epoch: "e9", seq: 3 } }]);
  server.socket.chat(4);
  assert.deepEqual(room.position, { epoch: "e9", seq: 4 });
});

test("a reset moves the position back, and what follows is new again", async () => {
  const { server, room, chats } = await inLobby();
  server.socket.chat(11);
  server.socket.frame({ type: "reset", room: "lobby", epoch: "e2", seq: 10, reason: "rewound" });
  assert.deepEqual(room.position, { epoch: "e2", seq: 10 });
  server.socket.chat(11);
  assert.deepEqual(chats.map(({ epoch, seq }) => `${epoch}/${seq}`), ["e1/11", "e2/11"]);
});

test("no chat is emitted twice", async () => {
  const { server, chats } = await inLobby();
  for (const seq of [10, 11, 11, 12, 11, 12]) server.socket.chat(seq);
  assert.deepEqual(chats.map(({ seq }) => seq), [11, 12]);
});

test("one's own chats are marked", async () => {
  const { server, chats } = await inLobby();
  server.socket.chat(11, { from: { id: "u1", name: "Ann" } });
  server.socket.chat(12);
  assert.deepEqual(chats.map(({ mine }) => mine), [true, false]);
});

test("what was said waits for the acknowledgement, and is said again with the same key", async () => {
  const { server, room } = await inLobby();
  const said = room.say("hello");
  const first = server.socket.last("chat");
  await again(server);
  assert.equal(server.socket.last("chat"), undefined, "not before the room is entered again");
  server.socket.enter({ recovered: true });
  const second = server.socket.last("chat");
  assert.equal(second.key, first.key);
  assert.ok(first.key.length <= 64);
  server.socket.answer("chat", { type: "ok", room: "lobby", epoch: "e1", seq: 11 });
  assert.deepEqual(await said, { epoch: "e1", seq: 11 });
  await again(server);
  server.socket.enter({ recovered: true });
  assert.equal(server.socket.last("chat"), undefined);
});

test("what is said while away is kept in order, at most a hundred of it", async () => {
  const { server, room } = await inLobby();
  server.socket.end();
  for (let n = 0; n < 100; n += 1) room.say(n);
  await assert.rejects(room.say("one too many"), { code: "queue_full" });
  await back(server);
  server.socket.welcome();
  server.socket.enter({ recovered: true });
  assert.deepEqual(server.socket.all("chat").map(({ content }) => content), [...Array(100).keys()]);
});

test("unavailable and rate_limited are retried with the same key, forbidden is not", async () => {
  const { server, room } = await inLobby();
  const said = room.say("x");
  server.socket.answer("chat", { type: "error", code: "rate_limited", message: "", retry_after_ms: 400 });
  await pass(399);
  assert.equal(server.socket.all("chat").length, 1);
  await pass(1);
  server.socket.answer("chat", { type: "error", code: "unavailable", message: "" });
  await pass(1000);
  const keys = server.socket.all("chat").map(({ key }) => key);
  assert.equal(keys.length, 3);
  assert.equal(new Set(keys).size, 1);
  server.socket.answer("chat", { type: "error", code: "forbidden", message: "no" });
  await assert.rejects(said, { code: "forbidden" });
});

test("a key that the server may have forgotten is not used again", async () => {
  const { server, room } = await inLobby();
  const said = room.say("x");
  const outcome = assert.rejects(said, { code: "unconfirmed" });
  server.socket.end();
  await pass(90_000);
  await outcome;
});

test("what is too large stays here", async () => {
  const { server, room } = await inLobby();
  await assert.rejects(room.say("x".repeat(1000)), { code: "too_large" });
  await assert.rejects(room.say(undefined), TypeError);
  assert.equal(server.socket.last("chat"), undefined);
});

test("what waits is rejected when the client stops or the room is left", async () => {
  const { server, room, client } = await inLobby();
  const other = client.join("other");
  const left = other.say(1);
  const stopped = room.say(2);
  other.leave();
  await assert.rejects(left, { code: "left" });
  server.socket.end(1008, "kicked");
  await assert.rejects(stopped, { code: "stopped", reason: "kicked" });
  await assert.rejects(room.say(3), { code: "stopped" });
});

test("join and left keep the list, twice the same counts once", async () => {
  const { server, room } = await inLobby();
  const seen = [];
  room.on("join", ({ user }) => seen.push(`+${user.id}`));
  room.on("left", ({ user }) => seen.push(`-${user.id}`));
  const bob = { room: "lobby", user: { id: "u2", name: "Bob" }, time: 1 };
  for (const type of ["join", "join", "left", "left"]) {
    server.socket.frame({ type, ...bob });
  }
  assert.deepEqual(seen, ["+u2", "-u2"]);
  assert.equal(room.count, 1);
  assert.deepEqual([...room.users.keys()], ["u1"]);
});

test("a room that becomes small enough to be shown is listed again", async () => {
  const { server, room } = await inLobby();
  server.socket.frame({ type: "count", room: "lobby", count: 9 });
  assert.equal(room.count, 9);
  assert.equal(server.socket.last("list"), undefined);
  server.socket.frame({ type: "count", room: "lobby", count: 2 });
  server.socket.answer("list", { type: "list", room: "lobby", users: [{ id: "u1" }, { id: "u3" }], count: 2, epoch: "e1", seq: 10, as_of: 2 });
  await settle();
  assert.deepEqual([...room.users.keys()], ["u1", "u3"]);
});

test("history asks for the newest, and for what is before", async () => {
  const { server, room } = await inLobby();
  const newest = room.history({ limit: 2 });
  await settle();
  assert.equal(server.socket.last("history").before, 11);
  server.socket.answer("history", { type: "history", room: "lobby", epoch: "e1", messages: [{ seq: 9, from: { id: "u1" }, content: "a", time: 1 }], first: 1, more: true });
  const page = await newest;
  assert.equal(page.messages[0].mine, true);
  assert.equal(page.more, true);
  const older = room.history({ before: 9 });
  await settle();
  assert.equal(server.socket.last("history").before, 9);
  server.socket.end();
  await assert.rejects(older, { code: "disconnected" });
});

test("a room that is refused or taken away is gone, and is not entered again", async () => {
  const { server, room, client } = await inLobby();
  const removed = [];
  room.on("removed", ({ reason }) => removed.push(reason));
  const secret = client.join("secret", { removed: ({ reason }) => removed.push(reason) });
  server.socket.answer("join", { type: "error", code: "forbidden", message: "no" });
  await assert.rejects(secret.ready, { code: "forbidden" });
  server.socket.frame({ type: "removed", room: "lobby", reason: "kicked" });
  await assert.rejects(room.say(1), { code: "left" });
  assert.deepEqual(removed, ["forbidden", "kicked"]);
  await again(server);
  assert.equal(server.socket.last("join"), undefined);
});

test("a join that finds the room unavailable is tried again", async () => {
  const { server, client } = await started();
  const room = client.join("lobby");
  server.socket.welcome();
  server.socket.answer("join", { type: "error", code: "unavailable", message: "", retry_after_ms: 300 });
  await pass(300);
  assert.equal(server.socket.all("join").length, 2);
  server.socket.enter();
  assert.equal(await room.ready, room);
});

test("leaving and entering at once hears nothing of the earlier stay", async () => {
  const { server, room, client } = await inLobby();
  room.leave();
  const chats = [];
  const second = client.join("lobby", { chat: (chat) => chats.push(chat.seq) });
  assert.notEqual(second, room);
  server.socket.chat(11);
  server.socket.enter({ seq: 11 });
  server.socket.chat(12);
  assert.deepEqual(chats, [12]);
});

test("what a listener joins on connected is entered once", async () => {
  const { server, client } = await started();
  client.on("connected", () => client.join("lobby"));
  server.socket.welcome();
  assert.equal(server.socket.all("join").length, 1);
});

test("messages outside rooms, errors without a ref, and nonsense", async () => {
  const { server, client, room } = await inLobby();
  const heard = [];
  client.on("message", ({ content }) => heard.push(content));
  client.on("error", ({ code }) => heard.push(code));
  server.socket.frame({ type: "message", content: "hi", time: 1 });
  server.socket.frame({ type: "error", code: "bad_json", message: "" });
  server.socket.frame({ type: "something new", room: "lobby" });
  server.socket.frame(null);
  server.socket.frame([1]);
  assert.deepEqual(heard, ["hi", "bad_json"]);
  assert.equal(room.joined, true);
});

test("ping measures", async () => {
  const { server, client } = await inLobby();
  const measured = client.ping();
  await pass(40);
  server.socket.answer("ping", { type: "pong", time: Date.now() });
  assert.equal(await measured, 40);
  assert.equal(client.latencyMs, 40);
});

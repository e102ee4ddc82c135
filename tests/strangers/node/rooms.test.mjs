import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Client } from "./client.mjs";
import { now, Server, sign, token } from "./server.mjs";

let server;

before(async () => {
  server = await Server.start({ config: { limits: { room_members: 3, rooms_per_connection: 2 }, rooms: { users_shown: 3 } } });
});
after(() => server.close());

const ids = (list) => list.users.map(({ id }) => id).sort();

describe("presence", () => {
  test("is of users, not of tabs", async () => {
    const ann = await Client.signedIn(server, "ann", { claims: { name: "Ann", info: { team: "red" } } });
    const alone = await ann.join("tabs");
    assert.deepEqual(alone.users, [{ id: "ann", name: "Ann", info: { team: "red" } }]);
    assert.equal(alone.count, 1);
    assert.equal(alone.recovered, undefined, "only for a join with since");
    assert.equal(typeof alone.epoch, "string");
    assert.equal(alone.seq, 0);
    assert.ok(Math.abs(alone.as_of - Date.now()) < 60_000);

    const first = await Client.signedIn(server, "bob", { claims: { name: "Bob" } });
    const both = await first.join("tabs");
    assert.deepEqual(ids(both), ["ann", "bob"]);
    assert.deepEqual((await ann.next({ type: "join", room: "tabs" })).user, { id: "bob", name: "Bob" });

    const second = await Client.joined(server, "bob", "tabs", { claims: { name: "Bob" } });
    assert.equal((await ann.ask({ type: "list", room: "tabs" })).count, 2, "nobody is listed twice");
    await first.close();
    await second.ask({ type: "leave", room: "tabs" });
    assert.equal((await ann.next({ type: "left", room: "tabs" })).user.id, "bob");
    await ann.sync();
    assert.equal(ann.of("join", "tabs").length, 1, "one joined for two tabs");
    assert.equal(ann.of("left", "tabs").length, 1, "one left for two tabs");
    for (const tab of [first, second]) assert.deepEqual([...tab.of("join"), ...tab.of("left")], [], "never for oneself");
    assert.deepEqual(ids(await ann.ask({ type: "list", room: "tabs" })), ["ann"]);
    await Promise.all([ann.close(), second.close()]);
  });

  test("notices a tab that was cut off", async () => {
    const ann = await Client.joined(server, "ann", "cut");
    const bob = await Client.joined(server, "bob", "cut");
    await ann.next({ type: "join" });
    await bob.cut();
    assert.equal((await ann.next({ type: "left" })).user.id, "bob");
    await ann.close();
  });

  test("joined already: the list again, and no event", async () => {
    const ann = await Client.joined(server, "ann", "again");
    const bob = await Client.joined(server, "bob", "again");
    await ann.next({ type: "join" });
    assert.equal((await bob.join("again")).type, "list");
    await ann.say("again", "a fence");
    await bob.next({ type: "chat" });
    assert.equal(ann.of("join").length, 1);
    await Promise.all([ann.close(), bob.close()]);
  });

  test("in a big room is a count", async () => {
    const big = await Server.start({ config: { rooms: { users_shown: 2 } } });
    try {
      const ann = await Client.joined(big, "ann", "big");
      const others = [];
      for (const sub of ["bob", "cem", "dot", "eve"]) others.push(await Client.joined(big, sub, "big"));
      await ann.next({ type: "count", room: "big", count: 5 });
      const list = await ann.ask({ type: "list", room: "big" });
      assert.equal(list.count, 5);
      assert.equal(list.users.length, 2);
      assert.ok(ids(list).includes("ann"), "oneself among them");
      await others.pop().close();
      await ann.next({ type: "count", room: "big", count: 4 });
      await Promise.all([ann, ...others].map((client) => client.close()));
    } finally {
      await big.close();
    }
  });
});

describe("chat", () => {
  test("reaches everyone in the room, oneself included, and nobody else", async () => {
    const ann = await Client.joined(server, "ann", "talk", { claims: { name: "Ann" } });
    const bob = await Client.joined(server, "bob", "talk");
    const cem = await Client.joined(server, "cem", "elsewhere");
    const content = { text: "hé 👋", list: [1, 2.5, null, true], "": { deep: [] } };
    const ok = await ann.say("talk", content);
    assert.equal(ok.type, "ok");
    assert.equal(ok.room, "talk");
    for (const client of [ann, bob]) {
      const chat = await client.next({ type: "chat" });
      assert.deepEqual(chat.content, content);
      assert.deepEqual(chat.from, { id: "ann", name: "Ann" });
      assert.equal(chat.room, "talk");
      assert.equal(chat.seq, ok.seq);
      assert.ok(Math.abs(chat.time - Date.now()) < 60_000);
      assert.equal(chat.ref, undefined);
    }
    await cem.sync();
    assert.deepEqual(cem.of("chat"), []);
    await Promise.all([ann.close(), bob.close(), cem.close()]);
  });

  test("without a ref is not answered", async () => {
    const ann = await Client.joined(server, "ann", "quiet");
    ann.send({ type: "chat", room: "quiet", content: 1 });
    await ann.next({ type: "chat" });
    await ann.sync();
    assert.deepEqual(ann.of("ok"), []);
    await ann.close();
  });

  test("a ref may be an integer", async () => {
    const ann = await Client.joined(server, "ann", "integers");
    ann.send({ type: "chat", room: "integers", content: 1, ref: 7 });
    assert.equal((await ann.next({ ref: 7 })).type, "ok");
    await ann.close();
  });

  test("a retry with the same key is harmless", async () => {
    const ann = await Client.joined(server, "ann", "keys");
    const bob = await Client.joined(server, "bob", "keys");
    const first = await ann.say("keys", "one", { key: "k1" });
    const retry = await ann.say("keys", "one, again", { key: "k1" });
    assert.deepEqual([retry.seq, retry.epoch], [first.seq, first.epoch]);
    const hers = await bob.say("keys", "of another user", { key: "k1" });
    assert.equal(hers.seq, first.seq + 1, "a key is remembered per user");
    const again = await Client.joined(server, "ann", "keys");
    assert.equal((await again.say("keys", "from another tab", { key: "k1" })).seq, first.seq);
    await ann.say("keys", "end");
    await bob.next({ type: "chat", content: "end" });
    assert.deepEqual(bob.of("chat").map(({ seq, content }) => [seq, content]), [
      [first.seq, "one"], [first.seq + 1, "of another user"], [first.seq + 2, "end"],
    ]);
    await Promise.all([ann.close(), bob.close(), again.close()]);
  });

  test("everyone sees one order, and a sender's own", async () => {
    const members = await Promise.all(["ann", "bob", "cem"].map((sub) => Client.joined(server, sub, "order")));
    for (let round = 0; round < 50; round += 1) {
      for (const [index, member] of members.entries()) member.send({ type: "chat", room: "order", content: [index, round] });
    }
    for (const member of members) {
      for (let seq = 1; seq <= 150; seq += 1) await member.next({ type: "chat", seq });
      const chats = member.of("chat");
      assert.deepEqual(chats.map(({ seq }) => seq), Array.from({ length: 150 }, (_, index) => index + 1));
      assert.deepEqual(chats.map(({ content }) => content), members[0].of("chat").map(({ content }) => content));
    }
    for (const [index] of members.entries()) {
      const own = members[0].of("chat").filter(({ content }) => content[0] === index);
      assert.deepEqual(own.map(({ content }) => content[1]), Array.from({ length: 50 }, (_, round) => round));
    }
    await Promise.all(members.map((member) => member.close()));
  });
});

test("history comes in pages, both ways", async () => {
  const ann = await Client.joined(server, "ann", "pages");
  for (let number = 1; number <= 25; number += 1) await ann.say("pages", number);
  const page = (more) => ann.ask({ type: "history", room: "pages", ...more });
  const seqs = ({ messages }) => messages.map(({ seq }) => seq);
  const range = (from, to) => Array.from({ length: to - from + 1 }, (_, index) => from + index);

  const newest = await page({ before: 26, limit: 10 });
  assert.equal(newest.type, "history");
  assert.equal(newest.first, 1);
  assert.equal(newest.more, true);
  assert.deepEqual(seqs(newest), range(16, 25));
  assert.deepEqual(newest.messages.map(({ content }) => content), range(16, 25));
  assert.equal(newest.messages[0].from.id, "ann");
  const middle = await page({ before: newest.messages[0].seq, limit: 10 });
  assert.deepEqual(seqs(middle), range(6, 15));
  const oldest = await page({ before: middle.messages[0].seq, limit: 10 });
  assert.deepEqual(seqs(oldest), range(1, 5));
  assert.equal(oldest.more, false);

  const forward = await page({ after: 0, limit: 20 });
  assert.deepEqual([seqs(forward), forward.more], [range(1, 20), true]);
  const rest = await page({ after: 20 });
  assert.deepEqual([seqs(rest), rest.more], [range(21, 25), false]);
  assert.deepEqual(seqs(await page({ after: 25 })), []);
  assert.equal(rest.epoch, newest.epoch);
  await ann.close();
});

test("ping is answered with pong", async () => {
  const ann = await Client.signedIn(server, "ann");
  const pong = await ann.ask({ type: "ping" });
  assert.equal(pong.type, "pong");
  assert.ok(Math.abs(pong.time - Date.now()) < 60_000);
  ann.send({ type: "ping" });
  assert.equal((await ann.next({ type: "pong" })).ref, undefined);
  await ann.close();
});

describe("auth", () => {
  test("takes a newer token", async () => {
    const ann = await Client.signedIn(server, "ann", { claims: { exp: now() + 60 } });
    const later = now() + 7200;
    const ok = await ann.ask({ type: "auth", token: token("ann", { exp: later }) });
    assert.equal(ok.type, "ok");
    assert.equal(ok.expires, later);
    await ann.close();
  });

  test("refuses another user and bad tokens, and the old one stays", async () => {
    const ann = await Client.joined(server, "ann", "stays");
    const bad = [
      [token("bob"), "token_malformed"],
      [sign({ sub: "ann", exp: now() - 3600 }), "token_expired"],
      [sign({ sub: "ann", exp: now() + 60 }, { secret: "somebody else's secret, long enough" }), "token_signature"],
      ["hello", "token_malformed"],
    ];
    for (const [given, reason] of bad) {
      const answer = await ann.ask({ type: "auth", token: given });
      assert.equal(answer.code, "forbidden");
      assert.equal(answer.reason, reason);
    }
    assert.equal((await ann.say("stays", "still here")).type, "ok");
    await ann.close();
  });

  test("leaves the rooms that the new one does not grant", async () => {
    const ann = await Client.signedIn(server, "ann", { claims: { rooms: { "a/*": ["*"], b: ["join", "chat"] } } });
    await ann.join("a/1");
    await ann.join("b");
    assert.equal((await ann.ask({ type: "auth", token: token("ann", { rooms: { b: ["join"] } }) })).type, "ok");
    const removed = await ann.next({ type: "removed" });
    assert.deepEqual([removed.room, removed.reason], ["a/1", "grant"]);
    assert.equal((await ann.say("b", "no longer")).code, "forbidden");
    assert.equal((await ann.say("a/1", "no longer")).type, "error");
    await ann.close();
  });
});

describe("an error that closes nothing:", () => {
  let ann;
  before(async () => {
    ann = await Client.joined(server, "ann", "errors", {
      claims: { rooms: { errors: ["*"], full: ["*"], "r/*": ["*"], "r/quiet": ["join", "list"] } },
    });
  });
  after(() => ann.close());

  const nested = (depth) => `{"type":"chat","room":"errors","ref":"n","content":${"[".repeat(depth)}${"]".repeat(depth)}}`;
  const texts = [
    ["bad_json", "{"], ["bad_json", "hello"], ["bad_json", '{"type":"ping",}'],
    ["bad_message", "[]"], ["bad_message", "1"], ["bad_message", "{}"], ["bad_message", '{"type":1}'],
    ["bad_message", '{"type":"join"}'], ["bad_message", '{"type":"join","room":5}'], ["bad_message", '{"type":"chat","room":"errors"}'],
    ["bad_message", '{"type":"join","room":"r/1","since":{"epoch":"e"}}'],
    ["bad_message", `{"type":"ping","ref":"${"r".repeat(65)}"}`],
    ["bad_message", `{"type":"chat","room":"errors","content":1,"key":"${"k".repeat(65)}"}`],
    ["bad_message", nested(40)],
    ["unknown_type", '{"type":"shout"}'],
    ["bad_room", '{"type":"join","room":""}'], ["bad_room", '{"type":"join","room":" r"}'], ["bad_room", '{"type":"join","room":"r*"}'],
    ["bad_room", '{"type":"join","room":"r\\u202e"}'], ["bad_room", '{"type":"join","room":"e\\u0301"}'],
    ["bad_room", JSON.stringify({ type: "join", room: "r".repeat(129) })],
    ["forbidden", '{"type":"join","room":"secret"}'],
    ["not_joined", '{"type":"chat","room":"r/1","content":1}'], ["not_joined", '{"type":"leave","room":"r/1"}'],
    ["not_joined", '{"type":"list","room":"r/1"}'], ["not_joined", '{"type":"history","room":"r/1","before":1}'],
    ["too_large", JSON.stringify({ type: "chat", room: "errors", content: "x".repeat(65536) })],
  ];
  for (const [code, text] of texts) {
    test(`${code}: ${text.length > 90 ? `${text.slice(0, 90)} …` : text}`, async () => {
      ann.send(text);
      const error = await ann.next({ type: "error" });
      assert.equal(error.code, code, JSON.stringify(error));
      assert.equal(typeof error.message, "string");
    });
  }

  test("an error carries the ref", async () => {
    assert.equal((await ann.ask({ type: "shout" })).code, "unknown_type");
    assert.equal((await ann.ask({ type: "join", room: 5 })).code, "bad_message");
  });

  test("unknown fields are ignored", async () => {
    assert.equal((await ann.ask({ type: "ping", colour: "red" })).type, "pong");
  });

  test("forbidden: a verb that the token does not grant", async () => {
    assert.equal((await ann.join("r/quiet")).type, "list");
    assert.equal((await ann.say("r/quiet", 1)).code, "forbidden");
    assert.equal((await ann.ask({ type: "history", room: "r/quiet", after: 0 })).code, "forbidden");
    assert.equal((await ann.ask({ type: "list", room: "r/quiet" })).type, "list");
  });

  test("too_many_rooms, until one is left", async () => {
    assert.equal((await ann.join("r/2")).code, "too_many_rooms");
    assert.equal((await ann.ask({ type: "leave", room: "r/quiet" })).type, "ok");
    assert.equal((await ann.join("r/2")).type, "list");
    assert.equal((await ann.ask({ type: "leave", room: "r/2" })).type, "ok");
  });

  test("room_full", async () => {
    const others = [];
    for (const sub of ["bob", "cem", "dot"]) others.push(await Client.joined(server, sub, "full"));
    assert.equal((await ann.join("full")).code, "room_full");
    await Promise.all(others.map((other) => other.close()));
  });
});

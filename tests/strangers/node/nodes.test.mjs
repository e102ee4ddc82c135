// Two nodes and one Redis, seen from clients that know the protocol only.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import { Client } from "./client.mjs";
import { Redis } from "./redis.mjs";
import { now, Running, Server, token } from "./server.mjs";

let redis, one, two;

const start = ({ url = redis.url } = {}) => Server.start({
  config: {
    backplane: { kind: "redis", url, kept: "disk", lease: "2s", call_timeout: "400ms", leave_grace: "200ms" },
    rooms: { users_shown: 10 },
  },
});

before(async () => {
  redis = await Redis.start({ appendonly: "yes", appendfsync: "always" });
  [one, two] = await Promise.all([start(), start()]);
});
after(async () => {
  await one?.close();
  await two?.close();
  await redis?.close();
});

const texts = (chats) => chats.map(({ content }) => content);
const position = ({ epoch, seq }) => ({ epoch, seq });

describe("one room on two nodes", () => {
  test("what is said on one is heard on both, in one order", async () => {
    const ann = await Client.joined(one, "ann", "order");
    const bob = await Client.joined(two, "bob", "order");
    assert.equal(ann.welcome.kept, "disk");
    const said = [];
    for (let n = 0; n < 50; n += 1) said.push(ann.say("order", `a${n}`), bob.say("order", `b${n}`));
    const places = (await Promise.all(said)).map(({ seq }) => seq).sort((a, b) => a - b);
    assert.deepEqual(places, Array.from({ length: 100 }, (_, n) => n + 1));
    for (const client of [ann, bob]) await client.next({ type: "chat", seq: 100 });
    assert.deepEqual(texts(ann.of("chat")), texts(bob.of("chat")));
    for (const [name, client] of [["a", ann], ["b", bob]]) {
      const own = texts(client.of("chat")).filter((text) => text.startsWith(name));
      assert.deepEqual(own, Array.from({ length: 50 }, (_, n) => `${name}${n}`), "as its sender said it");
    }
    await Promise.all([ann.close(), bob.close()]);
  });

  test("a key holds on all nodes", async () => {
    const ann = await Client.joined(one, "ann", "keys");
    const again = await Client.joined(two, "ann", "keys");
    const first = await ann.say("keys", "once", { key: "k1" });
    const second = await again.say("keys", "twice", { key: "k1" });
    assert.deepEqual(position(second), position(first));
    const bob = await Client.joined(two, "bob", "keys");
    assert.notEqual((await bob.say("keys", "another's", { key: "k1" })).seq, first.seq);
    await ann.next({ type: "chat", content: "another's" });
    assert.deepEqual(texts(ann.of("chat")), ["once", "another's"]);
    await Promise.all([ann, again, bob].map((client) => client.close()));
  });

  test("who was cut off on one comes back on the other without a hole", async () => {
    const bob = await Client.joined(two, "bob", "back");
    const ann = await Client.joined(one, "ann", "back");
    await bob.say("back", "before");
    const last = await ann.next({ type: "chat" });
    const { epoch } = await ann.ask({ type: "list", room: "back" });
    await ann.cut();
    for (const text of ["one", "two", "three"]) await bob.say("back", text);
    const back = await Client.signedIn(two, "ann");
    const list = await back.join("back", { epoch, seq: last.seq });
    assert.equal(list.recovered, true);
    await bob.say("back", "live");
    await back.next({ type: "chat", content: "live" });
    assert.deepEqual(texts(back.of("chat")), ["one", "two", "three", "live"]);
    assert.deepEqual(back.of("reset"), []);
    await Promise.all([bob.close(), back.close()]);
  });

  test("a user on both is one user, who came once and goes once", async () => {
    const bob = await Client.joined(one, "bob", "tabs");
    const here = await Client.joined(one, "ann", "tabs");
    await bob.next({ type: "join", room: "tabs" });
    const there = await Client.joined(two, "ann", "tabs");
    const list = await there.ask({ type: "list", room: "tabs" });
    assert.deepEqual(list.users.map(({ id }) => id).sort(), ["ann", "bob"]);
    await here.close();
    await there.close();
    assert.equal((await bob.next({ type: "left", room: "tabs" })).user.id, "ann");
    await bob.sync();
    assert.equal(bob.of("join", "tabs").length, 1);
    assert.equal(bob.of("left", "tabs").length, 1);
    await bob.close();
  });

  test("users of a node that was killed leave once", async () => {
    const third = await start();
    const bob = await Client.joined(one, "bob", "ghosts");
    const ghosts = [await Client.joined(third, "ann", "ghosts"), await Client.joined(third, "cem", "ghosts")];
    for (const id of ["ann", "cem"]) assert.ok((await bob.next({ type: "join", room: "ghosts" })).user.id, id);
    await third.process.signal("SIGKILL");
    await Promise.all(ghosts.map(({ closed }) => closed));
    const gone = [await bob.next({ type: "left", room: "ghosts" }), await bob.next({ type: "left", room: "ghosts" })];
    assert.deepEqual(gone.map(({ user }) => user.id).sort(), ["ann", "cem"]);
    assert.equal((await bob.ask({ type: "list", room: "ghosts" })).count, 1);
    await bob.close();
    await third.close();
  });
});

test("README's account of Redis may do everything that a node does", async () => {
  const readme = await readFile(new URL("../../../README.md", import.meta.url), "utf8");
  const [, words] = /^(ACL SETUSER .*)$/m.exec(readme);
  const { stdout } = await promisify(execFile)("redis-cli", ["-p", redis.port, ...words.replace("PASSWORD", "pw").split(" ")]);
  assert.equal(stdout.trim(), "OK");
  const third = await start({ url: redis.url.replace("//", "//conclave:pw@") });
  const ann = await Client.joined(third, "ann", "account");
  const bob = await Client.joined(one, "bob", "account");
  await ann.next({ type: "join", room: "account" });
  await ann.say("account", "hello", { key: "k" });
  await bob.next({ type: "chat", content: "hello" });
  await bob.close();
  await ann.next({ type: "left", room: "account" });
  const { code } = await new Running(["revoke", "--user", "ann", "--config", third.config]).ended;
  assert.equal(code, 0);
  assert.deepEqual(await ann.closed, { code: 1008, reason: "token_revoked" });
  await third.close();
});

/** A verb for whoever runs the servers, to its end. */
async function verb(...args) {
  const running = new Running([...args, "--config", one.config]);
  const { code } = await running.ended;
  assert.equal(code, 0, running.output);
}

describe("revocation and kicks", () => {
  test("a user's tokens end on all nodes, and new ones are good", async () => {
    const claims = { iat: now() - 1 };
    const here = await Client.signedIn(one, "rev", { claims });
    const there = await Client.signedIn(two, "rev", { claims });
    const other = await Client.signedIn(two, "other", { claims });
    await verb("revoke", "--user", "rev");
    for (const client of [here, there]) assert.deepEqual(await client.closed, { code: 1008, reason: "token_revoked" });
    await other.sync();
    const late = new Client(two, { query: `?token=${token("rev", claims)}` });
    assert.deepEqual(await late.closed, { code: 1008, reason: "token_revoked" });
    const fresh = await Client.signedIn(one, "rev", { claims: { iat: now() + 2 } });
    await Promise.all([other.close(), fresh.close()]);
  });

  test("one token ends by its jti", async () => {
    const stolen = await Client.signedIn(two, "jti", { claims: { jti: "stolen" } });
    const other = await Client.signedIn(one, "jti", { claims: { jti: "fine" } });
    await verb("revoke", "--token", "stolen");
    assert.deepEqual(await stolen.closed, { code: 1008, reason: "token_revoked" });
    await other.sync();
    await other.close();
  });

  test("a kick ends connections and bans nobody", async () => {
    const kicked = await Client.signedIn(two, "kick");
    await verb("kick", "--user", "kick");
    assert.deepEqual(await kicked.closed, { code: 1008, reason: "kicked" });
    await (await Client.signedIn(two, "kick")).close();
  });
});

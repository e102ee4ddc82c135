import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { Client } from "./client.mjs";
import { Server } from "./server.mjs";

const SEED = Number(process.env.SEED ?? 20_260_101);

let server;

before(async () => {
  server = await Server.start({ config: { history: { messages: 5000 } } });
});
after(() => server.close());

/** Mulberry32: small, seeded, good enough to vary a schedule. */
function random(seed) {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** Somebody who reads one room over many connections, as PROTOCOL.md section 5 tells where one stands. */
class Reader {
  got = [];
  place = null;
  epoch = null;

  async connect(sub, room) {
    this.client = await Client.signedIn(server, sub);
    this.client.socket.on("message", (data) => this.#take(JSON.parse(data), room));
    this.client.send({ type: "join", room, since: this.place ?? undefined });
  }

  #take(frame, room) {
    if (frame.room !== room) return;
    if (frame.type === "list") {
      assert.equal(frame.recovered, this.place ? true : undefined);
      this.epoch = frame.epoch;
      // A list without a replay is a place to stand; with one, the place is that of the last chat.
      this.place ??= { epoch: frame.epoch, seq: frame.seq };
    } else if (frame.type === "chat") {
      this.epoch = frame.epoch ?? this.epoch;
      this.place = { epoch: this.epoch, seq: frame.seq };
      this.got.push(frame);
      this.client.socket.emit("got", frame);
    }
  }

  async upTo(seq) {
    while ((this.got.at(-1)?.seq ?? 0) < seq) await once(this.client.socket, "got", { signal: AbortSignal.timeout(20_000) });
  }
}

test(`twenty cuts while others speak: nothing missing, nothing doubled, in order (SEED=${SEED})`, async () => {
  const below = random(SEED);
  const room = "resume";
  const speakers = await Promise.all(["ann", "bob"].map((sub) => Client.joined(server, sub, room)));
  const reader = new Reader();
  await reader.connect("reader", room);
  // Without a first place to stand there is nothing to resume from.
  await reader.client.next({ type: "list" });

  let speaking = true;
  const said = [[], []];
  const speak = async (speaker, index) => {
    for (let number = 0; speaking; number += 1) {
      // Bursts, so that a cut falls into the middle of what is on its way.
      const burst = Array.from({ length: 1 + below(8) }, (_, part) => speaker.say(room, [index, number, part]));
      said[index].push(...(await Promise.all(burst)).map(({ seq }) => seq));
    }
  };
  const speeches = speakers.map(speak);

  for (let cut = 0; cut < 20; cut += 1) {
    // At once, sometimes before the replay has begun, or after some more have come.
    await reader.upTo((reader.place?.seq ?? 0) + below(40));
    await reader.client.cut();
    await reader.connect("reader", room);
  }
  speaking = false;
  await Promise.all(speeches);
  const head = Math.max(...said.flat());
  await reader.upTo(head);
  await reader.client.sync();

  const seqs = reader.got.map(({ seq }) => seq);
  assert.deepEqual(seqs, Array.from({ length: head }, (_, index) => index + 1));
  for (const [index, speaker] of speakers.entries()) {
    const own = reader.got.filter(({ content }) => content[0] === index);
    assert.deepEqual(own.map(({ seq }) => seq), said[index], "what was acknowledged, in the order it was said");
    const order = own.map(({ content }) => content[1] * 100 + content[2]);
    assert.deepEqual(order, [...order].sort((a, b) => a - b));
    await speaker.close();
  }
  await reader.client.close();
});

test("a place from before a cut is good in another tab too, and joining again with it replays", async () => {
  const ann = await Client.joined(server, "ann", "tab");
  const [first] = [await ann.say("tab", 1), await ann.say("tab", 2), await ann.say("tab", 3)];
  const other = await Client.signedIn(server, "ann");
  for (let time = 0; time < 2; time += 1) {
    const list = await other.join("tab", { epoch: first.epoch, seq: first.seq });
    assert.deepEqual([list.recovered, list.seq], [true, 3]);
    for (const seq of [2, 3]) await other.next({ type: "chat", seq });
  }
  await other.sync();
  assert.equal(other.of("chat").length, 4);
  const nothing = await other.join("tab", { epoch: first.epoch, seq: 3 });
  assert.equal(nothing.recovered, true);
  await other.sync();
  assert.equal(other.of("chat").length, 4, "nothing was missed");
  await Promise.all([ann.close(), other.close()]);
});

test("recovered:false, and no replay, when the epoch is foreign or the seq was never reached", async () => {
  const ann = await Client.joined(server, "ann", "foreign");
  const { epoch } = await ann.say("foreign", 1);
  const back = await Client.signedIn(server, "bob");
  for (const since of [{ epoch: "somebody-else", seq: 0 }, { epoch, seq: 2 }]) {
    const list = await back.join("foreign", since);
    assert.equal(list.recovered, false, JSON.stringify(since));
    assert.deepEqual([list.epoch, list.seq], [epoch, 1]);
  }
  await back.sync();
  assert.deepEqual(back.of("chat"), []);
  assert.equal((await back.ask({ type: "history", room: "foreign", after: 0 })).messages.length, 1, "what is left is in history");
  await Promise.all([ann.close(), back.close()]);
});

test("recovered:false when what was missed is trimmed", async () => {
  const small = await Server.start({ config: { history: { messages: 10 } } });
  try {
    const ann = await Client.joined(small, "ann", "trim");
    let ok;
    for (let number = 1; number <= 30; number += 1) ok = await ann.say("trim", number);
    const back = await Client.signedIn(small, "bob");
    assert.equal((await back.join("trim", { epoch: ok.epoch, seq: 5 })).recovered, false);
    await back.sync();
    assert.deepEqual(back.of("chat"), []);
    const page = await back.ask({ type: "history", room: "trim", after: 0 });
    assert.deepEqual([page.first, page.messages[0].seq, page.messages.length], [21, 21, 10]);
    assert.equal((await back.join("trim", { epoch: ok.epoch, seq: 20 })).recovered, true);
    for (let seq = 21; seq <= 30; seq += 1) await back.next({ type: "chat", seq });
    await Promise.all([ann.close(), back.close()]);
  } finally {
    await small.close();
  }
});

test("a server that kept nothing over its restart says so", async () => {
  const own = await Server.start();
  try {
    const ann = await Client.joined(own, "ann", "restart");
    const { epoch, seq } = await ann.say("restart", "before");
    await own.process.signal("SIGKILL");
    assert.equal((await ann.closed).code, 1006);
    await own.run();
    const back = await Client.signedIn(own, "ann");
    const list = await back.join("restart", { epoch, seq });
    assert.equal(list.recovered, false);
    assert.notEqual(list.epoch, epoch);
    assert.equal((await back.say("restart", "after")).type, "ok");
    await back.close();
  } finally {
    await own.close();
  }
});

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Reader } from "./readme.mjs";
import { Redis } from "./redis.mjs";

/** Lines that somebody has typed and that are not kept yet. */
const TYPED_AT_ONCE = 4;

/** Somebody who types line after line into README's client, as fast as they are kept. */
class Talker {
  #said = 0;
  #kept = 0;
  #stopped = false;

  constructor(name, running) {
    this.name = name;
    this.running = running;
  }

  type() {
    for (let n = 0; n < TYPED_AT_ONCE; n += 1) this.#next();
  }

  #next() {
    if (this.#stopped) return;
    this.#said += 1;
    const text = `line ${this.#said}`;
    this.running.child.stdin.write(`${text}\n`);
    this.running.line((line) => line === `kept: ${text}`).then(() => {
      this.#kept += 1;
      this.#next();
    }, () => {});
  }

  /** Once so many more lines are kept. */
  keeps(more) {
    const wanted = `kept: line ${this.#kept + more}`;
    return this.running.line((line) => line === wanted);
  }

  /** Every line typed is kept. */
  async stop() {
    this.#stopped = true;
    for (let n = 1; n <= this.#said; n += 1) await this.running.line((line) => line === `kept: line ${n}`);
    return Array.from({ length: this.#said }, (_, n) => `${this.name}: line ${n + 1}`);
  }

  /** What was said in the room, as it was shown here. */
  get heard() {
    return this.running.lines.filter((line) => /^(ann|bob): /.test(line));
  }
}

describe("README's cluster section", () => {
  let redis, reader, nodes, ann, bob;

  before(async () => {
    redis = await Redis.start();
    reader = await Reader.start(redis);
  });
  after(async () => {
    for (const running of [ann?.running, bob?.running, ...(nodes ?? [])]) await running?.signal("SIGKILL");
    await redis?.close();
    await reader?.close();
  });

  const start = async (line) => {
    const node = reader.run(line);
    await node.line((text) => text.includes("ready"));
    return node;
  };

  test("followed word for word: two clients on two nodes chat", async () => {
    await reader.follow();
    reader.starts = reader.take();
    nodes = await Promise.all(reader.starts.map(start));
    await reader.follow();
    const terminals = reader.take();
    ann = new Talker("ann", reader.run(terminals[0]));
    await ann.running.line((line) => line === "* here: ann");
    bob = new Talker("bob", reader.run(terminals[1]));
    await bob.running.line((line) => line === "* here: ann, bob");
    await ann.running.line((line) => line === "* bob came");
    for (const [from, to] of [[ann, bob], [bob, ann]]) {
      from.running.child.stdin.write(`hello from ${from.name}\n`);
      for (const { running } of [from, to]) await running.line((line) => line === `${from.name}: hello from ${from.name}`);
      await from.running.line((line) => line === `kept: hello from ${from.name}`);
    }
  });

  test("kill -9 of either node and of Redis loses nothing that was kept", async () => {
    assert.ok(bob, "the test before this one");
    const before = ann.heard;
    assert.deepEqual(bob.heard, before);
    for (const talker of [ann, bob]) talker.type();
    const goOn = () => Promise.all([ann.keeps(40), bob.keeps(40)]);
    await goOn();
    for (const [n, line] of reader.starts.entries()) {
      await nodes[n].signal("SIGKILL");
      nodes[n] = await start(line);
      await goOn();
    }
    await redis.kill();
    await redis.run();
    await goOn();
    const said = [...(await ann.stop()), ...(await bob.stop())];
    const all = new Set([...before, ...said]);
    for (const { running } of [ann, bob]) {
      for (const line of said) await running.line((heard) => heard === line);
    }
    assert.deepEqual(ann.heard, bob.heard, "one order, on both nodes");
    assert.equal(ann.heard.length, all.size, "each once");
    assert.deepEqual(new Set(ann.heard), all, "and nothing else");
    for (const { running } of [ann, bob]) {
      assert.deepEqual(running.lines.filter((line) => /^(\* lost|not kept)/.test(line)), []);
    }
  });
});

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Reader } from "./readme.mjs";
import { Redis } from "./redis.mjs";

/** Lines that somebody has typed and that are not kept yet. */
const TYPED_AT_ONCE = 4;

/** Lines that each types around each kill; together far less than a room's history, 1,000. */
const LINES = 80;

/** Somebody who types line after line into README's client, as fast as they are kept. */
class Talker {
  said = [];

  constructor(name, running) {
    this.name = name;
    this.running = running;
  }

  /** Once they are kept. */
  async types(lines) {
    let left = lines;
    const next = async () => {
      while (left > 0) {
        left -= 1;
        const text = `line ${this.said.length + 1}`;
        this.said.push(`${this.name}: ${text}`);
        this.running.child.stdin.write(`${text}\n`);
        await this.running.line((line) => line === `kept: ${text}`);
      }
    };
    await Promise.all(Array.from({ length: TYPED_AT_ONCE }, next));
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
    const both = (lines) => Promise.all([ann.types(lines), bob.types(lines)]);
    /** Kills in the midst of what is said, and what is said is kept all the same. */
    const around = async (kill) => {
      await both(LINES / 2);
      const rest = both(LINES / 2);
      await kill();
      await rest;
    };
    for (const [n, line] of reader.starts.entries()) {
      await around(async () => {
        await nodes[n].signal("SIGKILL");
        nodes[n] = await start(line);
      });
    }
    await around(async () => {
      await redis.kill();
      await redis.run();
    });
    await both(LINES / 2);
    const said = [...ann.said, ...bob.said];
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

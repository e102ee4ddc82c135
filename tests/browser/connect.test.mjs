// README's section "Connect your application" as somebody follows it who has two browsers, with a second node that it does not mention.
import assert from "node:assert/strict";
import { createHash, X509Certificate } from "node:crypto";
import { readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Client } from "../strangers/node/client.mjs";
import { Reader } from "../strangers/node/readme.mjs";
import { Redis } from "../strangers/node/redis.mjs";
import { launch } from "./pages.mjs";

const OPS = fileURLToPath(new URL("../../ops", import.meta.url));
const MODULES = join(OPS, "examples/express/node_modules");
/** Sockets of Ann's on each node besides her pages: "everywhere". */
const SOCKETS = 20;
/** It takes milliseconds; a machine that does other things at the same time takes longer. */
const LOGOUT_MS_MAX = 5_000;

describe("README's section about connecting an application", () => {
  let redis, reader, nodes, app, browser;
  const running = [];
  const run = (line, env) => {
    const started = reader.run(line, env);
    running.push(started);
    return started;
  };

  before(async () => {
    redis = await Redis.start();
    reader = await Reader.start(redis, { mark: "connect", ports: ["3000"], modules: MODULES });
    await symlink(OPS, join(reader.folder, "ops"));
  });
  after(async () => {
    await browser?.close();
    for (const one of running) await one.signal("SIGKILL");
    await redis?.close();
    await reader?.close();
  });

  /** The ports that the copied files name are taken, perhaps. */
  async function withFreePorts(folder) {
    for (const name of (await readdir(folder)).filter((name) => /\.(mjs|html|toml)$/.test(name))) {
      const file = join(folder, name);
      await writeFile(file, reader.withPorts(await readFile(file, "utf8")));
    }
  }

  async function startNode(line, [port, adminPort]) {
    const node = run(line, {
      CONCLAVE_SERVER__LISTEN: `127.0.0.1:${reader.ports.get(port)}`,
      CONCLAVE_SERVER__ADMIN_LISTEN: `127.0.0.1:${reader.ports.get(adminPort)}`,
      CONCLAVE_BACKPLANE__KIND: "redis",
      CONCLAVE_BACKPLANE__URL: redis.url,
    });
    await node.line((text) => text.includes("ready"));
    const authority = `localhost:${reader.ports.get(port)}`;
    return { authority, origin: `https://${authority}`, ca: await readFile(join(reader.cwd, "tls.crt"), "utf8") };
  }

  /** Opens the application's page, in a browser that has never been there. */
  async function opens() {
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(app.url);
    return page;
  }

  async function logsIn(page, name) {
    await page.fill("[name=name]", name);
    await page.fill("[name=password]", "secret");
    await page.click("#login button");
    await page.locator("#state", { hasText: "online" }).waitFor();
  }

  const sees = (page, list, text) => page.locator(`#${list} li`, { hasText: text }).first().waitFor();
  const token = async (page) => (await page.context().request.get(`${app.url}/token`)).text();

  test("the application and two nodes start", async () => {
    await reader.step();
    await withFreePorts(reader.cwd);
    const [conclave, application] = reader.take();
    nodes = [await startNode(conclave, ["8443", "9464"]), await startNode(conclave, ["8444", "9465"])];
    app = run(application);
    app.url = await app.line((line) => line.match(/^http:\S+/)?.[0]);
    const leaf = new X509Certificate(nodes[0].ca);
    const pin = createHash("sha256").update(leaf.publicKey.export({ type: "spki", format: "der" })).digest("base64");
    browser = await launch({ pin });
  });

  let ann, bob;

  test("two users log in, see each other and talk, and the application is told", async () => {
    [ann, bob] = [await opens(), await opens()];
    await ann.fill("[name=name]", "Ann");
    await ann.fill("[name=password]", "wrong");
    await ann.click("#login button");
    await ann.locator("#state", { hasText: "wrong password" }).waitFor();
    await logsIn(ann, "Ann");
    await app.line((line) => line === "join lobby Ann");
    await logsIn(bob, "Bob");
    await app.line((line) => line === "join lobby Bob");
    for (const page of [ann, bob]) for (const name of ["Ann", "Bob"]) await sees(page, "users", name);
    await ann.fill("[name=text]", "hello");
    await ann.click("#say button");
    for (const page of [ann, bob]) await sees(page, "messages", "Ann: hello");
  });

  test("curl says something, and sees who is here", async () => {
    assert.ok(bob, "the test before this one");
    const said = await reader.step();
    for (const page of [ann, bob]) await sees(page, "messages", "Kitchen: lunch is ready");
    const answers = said.replaceAll("}{", "}\n{").trim().split("\n").map((line) => JSON.parse(line));
    assert.equal(answers.length, 2, said);
    assert.equal(typeof answers[0].seq, "number", said);
    assert.deepEqual(answers[1].users.map(({ id }) => id).sort(), ["ann", "bob"]);
  });

  test("one click ends Ann's sockets on both nodes", async () => {
    assert.ok(bob, "the tests before this one");
    const second = await opens();
    await logsIn(second, "Ann");
    const old = await token(ann);
    const sockets = Array.from({ length: 2 * SOCKETS }, (_, n) => new Client(nodes[n % 2], { query: `?token=${old}` }));
    for (const socket of sockets) await socket.next({ type: "connected" });
    const begun = performance.now();
    const ends = Promise.all(sockets.map((socket) => socket.closed));
    await ann.click("#logout");
    for (const { code, reason } of await ends) assert.deepEqual([code, reason], [1008, "token_revoked"]);
    const took = performance.now() - begun;
    for (const page of [ann, second]) await page.locator("#state", { hasText: "stopped token_revoked" }).waitFor();
    console.log(`from the click to the end of the last of ${sockets.length} sockets on two nodes: ${took.toFixed(0)} ms`);
    assert.ok(took < LOGOUT_MS_MAX, `${took} ms`);

    for (const node of nodes) {
      const again = new Client(node, { query: `?token=${old}` });
      const { code, reason } = await again.closed;
      assert.deepEqual([code, reason], [1008, "token_revoked"]);
    }
    for (const page of [ann, second]) assert.equal((await page.context().request.get(`${app.url}/token`)).status(), 401);
    await app.line((line) => line === "left lobby Ann");
    assert.equal(await bob.locator("#state").textContent().then((text) => text.trim()), "online");
  });

  test("by curl, too", async () => {
    assert.ok(bob, "the tests before this one");
    await reader.step();
    await bob.locator("#state", { hasText: "stopped token_revoked" }).waitFor();
    assert.equal(reader.blocks.length, 0, "that was the section");
  });

  test("who logs in again is back", async () => {
    assert.ok(ann, "the tests before this one");
    await ann.reload();
    await logsIn(ann, "Ann");
    await sees(ann, "users", "Ann");
  });
});

// ops/examples/koa as its README has it: one login for a Koa application and for Conclave, by the session cookie.
import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Client } from "./client.mjs";
import { Reader } from "./readme.mjs";

const KOA = fileURLToPath(new URL("../../../ops/examples/koa", import.meta.url));
/** It takes milliseconds; a machine that does other things at the same time takes longer. */
const LOGOUT_MS_MAX = 5_000;

describe("a Koa application that shares its login", () => {
  let reader, server, page, ca;
  const running = [];

  before(async () => {
    reader = await Reader.start({ port: 6379 }, {
      mark: "koa", ports: ["3443"], modules: join(KOA, "node_modules"), readme: join(KOA, "README.md"),
    });
    for (const name of (await readdir(KOA)).filter((name) => /\.(mjs|toml|json)$/.test(name))) {
      const text = await readFile(join(KOA, name), "utf8");
      // The ports that the files name are taken, perhaps.
      await writeFile(join(reader.cwd, name), name.endsWith(".json") ? text : reader.withPorts(text));
    }
  });
  after(async () => {
    for (const one of running) await one.signal("SIGKILL");
    await reader?.close();
  });

  /** A browser that remembers its cookies, and no more of one. */
  class Browser {
    cookies = new Map();

    get cookie() {
      return [...this.cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    }

    ask(method, url, { form, headers = {} } = {}) {
      const body = form && new URLSearchParams(form).toString();
      const sent = { ...headers, ...(this.cookies.size && { cookie: this.cookie }), ...(body && { "content-type": "application/x-www-form-urlencoded" }) };
      return new Promise((resolve, reject) => {
        const asked = request(url, { method, ca, headers: sent }, async (answer) => {
          for (const line of answer.headers["set-cookie"] ?? []) {
            const [, name, value] = line.match(/^([^=]+)=([^;]*)/);
            if (value) this.cookies.set(name, value);
            else this.cookies.delete(name);
          }
          let text = "";
          for await (const chunk of answer.setEncoding("utf8")) text += chunk;
          resolve({ status: answer.statusCode, headers: answer.headers, text });
        });
        asked.on("error", reject);
        asked.end(body);
      });
    }

    async signIn(name) {
      const { status, text } = await this.ask("POST", `${page}/login`, { form: { name, password: "secret" } });
      assert.equal(status, 302, text);
    }

    socket({ cookie = this.cookie, origin = page, query = "" } = {}) {
      return new Client(server, { origin, query, headers: cookie ? { cookie } : {} });
    }

    async joined() {
      const client = this.socket();
      client.welcome = await client.next({ type: "connected" });
      await client.join("lobby");
      return client;
    }
  }

  const [ann, bob] = [new Browser(), new Browser()];
  let anns, bobs;

  test("both start as README says", async () => {
    await reader.step();
    ca = await readFile(join(reader.cwd, "tls.crt"), "utf8");
    const [conclave, app] = reader.take();
    const node = reader.run(conclave, { CONCLAVE_SERVER__ADMIN_LISTEN: `127.0.0.1:${reader.ports.get("9464")}`, CONCLAVE_SERVER__LISTEN: `127.0.0.1:${reader.ports.get("8443")}` });
    running.push(node);
    await node.line((line) => line.includes("ready"));
    const application = reader.run(app);
    running.push(application);
    page = await application.line((line) => line.match(/^https:\S+/)?.[0]);
    server = { authority: `localhost:${reader.ports.get("8443")}`, ca };
  });

  test("who is not signed in there is nobody here", async () => {
    const stranger = new Browser();
    assert.equal((await stranger.ask("POST", `${page}/login`, { form: { name: "Ann", password: "guess" } })).status, 401);
    assert.match((await stranger.ask("GET", `${page}/`)).text, /name="password"/);
    for (const cookie of ["", "koa.sess=forged; koa.sess.sig=forged", "other=1"]) {
      const { code, reason } = await stranger.socket({ cookie }).closed;
      assert.deepEqual([code, reason], [1008, "token_missing"], cookie);
    }
  });

  test("who is signed in there is signed in here, under the same name", async () => {
    await ann.signIn("Ann");
    assert.match((await ann.ask("GET", `${page}/`)).text, /conclave\.js/);
    await bob.signIn("Bob");
    [anns, bobs] = [[await ann.joined(), await ann.joined()], await bob.joined()];
    assert.deepEqual(anns[0].welcome.user, { id: "ann", name: "Ann" });
    anns[0].socket.send(JSON.stringify({ type: "chat", room: "lobby", content: "hello" }));
    const { from } = await bobs.next({ type: "chat", content: "hello" });
    assert.equal(from.name, "Ann");
  });

  test("no other page can use the cookie", async () => {
    const { status } = await ann.socket({ origin: "https://evil.example" }).refused;
    assert.equal(status, 403);
    const { reason } = await ann.socket({ origin: null }).closed;
    assert.equal(reason, "cookie_origin");
  });

  test("the session gets a ticket", async () => {
    const answer = await ann.ask("POST", `https://${server.authority}/ticket`, { headers: { origin: page } });
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.headers["access-control-allow-origin"], page);
    const client = ann.socket({ cookie: "", query: `?token=${JSON.parse(answer.text).ticket}` });
    assert.equal((await client.next({ type: "connected" })).user.name, "Ann");
    anns.push(client);
  });

  test("who logs out there is out here, at once and for good", async () => {
    const old = ann.cookie;
    const begun = performance.now();
    const ends = Promise.all(anns.map((client) => client.closed));
    assert.equal((await ann.ask("POST", `${page}/logout`)).status, 302);
    for (const { code, reason } of await ends) assert.deepEqual([code, reason], [1008, "kicked"]);
    const took = performance.now() - begun;
    console.log(`from the click to the end of the last of ${anns.length} sockets: ${took.toFixed(0)} ms`);
    assert.ok(took < LOGOUT_MS_MAX, `${took} ms`);
    const { code, reason } = await ann.socket({ cookie: old }).closed;
    assert.deepEqual([code, reason], [1008, "token_missing"]);
    await bobs.next({ type: "left" });
    bobs.socket.close();
  });
});

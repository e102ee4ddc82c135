import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { request } from "node:https";
import { after, before, describe, test } from "node:test";
import { Client } from "./client.mjs";
import { now, Server, SECRET, sign, token } from "./server.mjs";

let server;

before(async () => {
  server = await Server.start({
    config: { origin: { allow: ["https://app.example.com", "https://*.example.org"] } },
    keys: [{}, { kid: "partner", issuer: "https://partner.example", audience: ["chat"], user_prefix: "partner:" }],
  });
});
after(() => server.close());

function get(path, headers = {}, method = "GET") {
  return new Promise((resolve, reject) => {
    const sent = request(`${server.origin}${path}`, { ca: server.ca, headers, method, agent: false }, (response) => {
      response.resume();
      response.on("end", () => resolve({ status: response.statusCode, headers: response.headers }));
    });
    sent.on("upgrade", (response, socket) => {
      socket.destroy();
      resolve({ status: 101, headers: response.headers });
    });
    sent.on("error", reject);
    sent.end();
  });
}

const UPGRADE = {
  connection: "Upgrade",
  upgrade: "websocket",
  "sec-websocket-version": "13",
  "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
};

describe("a token is taken from", () => {
  const places = {
    "the query": (good) => ({ query: `?token=${good}` }),
    "the bearer header": (good) => ({ headers: { authorization: `Bearer ${good}` } }),
    "the cookie of a page that is same-origin": (good) => ({ headers: { cookie: `conclave_token=${good}` }, origin: server.origin }),
    "the cookie of a page that is listed": (good) => ({ headers: { cookie: `a=b; conclave_token=${good}` }, origin: "https://app.example.com" }),
  };
  for (const [name, place] of Object.entries(places)) {
    test(name, async () => {
      const client = new Client(server, place(token("u7", { name: "Ann" })));
      const welcome = await client.next({ type: "connected" });
      assert.equal(client.frames[0], welcome, "the first frame");
      assert.equal(welcome.protocol, 1);
      assert.deepEqual(welcome.user, { id: "u7", name: "Ann" });
      assert.equal(welcome.heartbeat, 30);
      assert.equal(welcome.kept, "memory");
      assert.ok(welcome.expires > now());
      assert.match(welcome.session, /^\S+$/);
      assert.deepEqual(welcome.limits, { message_bytes: 65536, rooms: 128, users_shown: 100, messages_per_second: 0 });
      assert.equal((await client.close()).code, 1000);
    });
  }
});

test("a subject may be an integer, and comes back as text", async () => {
  const client = await Client.signedIn(server, 42, { claims: { info: { team: "red" } } });
  assert.deepEqual(client.welcome.user, { id: "42", info: { team: "red" } });
  await client.close();
});

test("the users of an issuer carry its prefix", async () => {
  const good = sign(
    { sub: "admin", exp: now() + 60, iss: "https://partner.example", aud: ["other", "chat"] },
    { header: { kid: "partner" } },
  );
  const client = new Client(server, { query: `?token=${good}` });
  assert.equal((await client.next({ type: "connected" })).user.id, "partner:admin");
  await client.close();
});

test("the subprotocol is echoed when it is ours", async () => {
  const query = `?token=${token("u1")}`;
  const both = new Client(server, { query, protocols: ["other", "conclave.v1"] });
  await both.next({ type: "connected" });
  assert.equal(both.socket.protocol, "conclave.v1");
  await both.close();
  const { status, headers } = await get(`/ws${query}`, { ...UPGRADE, "sec-websocket-protocol": "other" });
  assert.equal(status, 101);
  assert.equal(headers["sec-websocket-protocol"], undefined);
});

test("paths are routed", async () => {
  assert.equal((await get("/nothing")).status, 404);
  assert.equal((await get("/nothing", UPGRADE)).status, 404);
  for (const headers of [{}, { ...UPGRADE, "sec-websocket-version": "12" }]) {
    const answer = await get(`/ws?token=${token("u1")}`, headers);
    assert.equal(answer.status, 426);
    assert.equal(answer.headers["sec-websocket-version"], "13");
  }
  assert.equal((await get("/echo", UPGRADE)).status, 404, "off unless configured");
});

describe("an origin", () => {
  const query = () => `?token=${token("u1")}`;
  const foreign = [
    "https://evil.example", "null", "http://app.example.com", "https://app.example.com.evil.example",
    "https://app.example.com:444", "https://example.org", "https://a.b.example.org", "https://evilexample.org",
  ];
  for (const origin of foreign) {
    test(`${origin} is refused`, async () => {
      assert.equal((await new Client(server, { query: query(), origin }).refused).status, 403);
    });
  }
  for (const origin of ["https://app.example.com", "https://one.example.org"]) {
    test(`${origin} is let in`, async () => {
      const client = new Client(server, { query: query(), origin });
      await client.next({ type: "connected" });
      await client.close();
    });
  }
  test("that comes twice is refused", async () => {
    const { status } = await get(`/ws${query()}`, { ...UPGRADE, origin: ["https://app.example.com", "https://app.example.com"] });
    assert.equal(status, 403);
  });
});

describe("a bad token closes with 1008 and", () => {
  const good = { sub: "u1", exp: now() + 3600 };
  const query = (bad) => ({ query: `?token=${bad}` });
  const cookie = (origin) => ({ headers: { cookie: `conclave_token=${token("u1")}` }, origin });
  const unsigned = `${Buffer.from('{"alg":"none"}').toString("base64url")}.${Buffer.from(JSON.stringify(good)).toString("base64url")}.`;
  const stronger = () => {
    const body = [{ alg: "HS512" }, good].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
    return `${body}.${createHmac("sha512", SECRET).update(body).digest("base64url")}`;
  };
  const partner = (claims) => query(sign({ ...good, ...claims }, { header: { kid: "partner" } }));
  const cases = [
    ["token_missing", "none at all", {}],
    ["token_missing", "a cookie of another name", { headers: { cookie: "session=1" }, origin: "https://app.example.com" }],
    ["token_malformed", "not a JWT", query("hello")],
    ["token_malformed", "the query twice", { query: `?token=${sign(good)}&token=${sign(good)}` }],
    ["token_malformed", "over 8 KiB", query(sign({ ...good, more: "x".repeat(8192) }))],
    ["token_malformed", "a claim of the wrong type", query(sign({ ...good, exp: "tomorrow" }))],
    ["token_malformed", "no subject", query(sign({ exp: good.exp }))],
    ["token_malformed", "no expiry", query(sign({ sub: "u1" }))],
    ["token_malformed", "a control character in the subject", query(sign({ ...good, sub: "a\nb" }))],
    ["token_malformed", "a claim twice", query(sign(`{"sub":"u1","sub":"admin","exp":${good.exp}}`))],
    ["token_malformed", "a crit header", query(sign(good, { header: { crit: ["exp"] } }))],
    ["token_signature", "another secret", query(sign(good, { secret: "somebody else's secret, long enough" }))],
    ["token_signature", "no signature", query(unsigned)],
    ["token_signature", "an algorithm that is not the key's", query(stronger())],
    ["token_expired", "an hour late", query(sign({ sub: "u1", exp: now() - 3600 }))],
    ["token_not_yet_valid", "an hour early", query(sign({ ...good, nbf: now() + 3600 }))],
    ["token_issuer", "another issuer", partner({ iss: "https://else.example", aud: "chat" })],
    ["token_issuer", "no issuer", partner({ aud: "chat" })],
    ["token_audience", "another audience", partner({ iss: "https://partner.example", aud: "mail" })],
    ["token_audience", "an audience where none is configured", query(sign({ ...good, aud: "chat" }))],
    ["cookie_origin", "a cookie without an origin", cookie()],
    ["cookie_origin", "a cookie from a wildcard's origin", cookie("https://one.example.org")],
    ["token_malformed", "a bad query is not rescued by a good header", { query: "?token=bad", headers: { authorization: `Bearer ${sign(good)}` } }],
    ["token_malformed", "a bad header is not rescued by a good cookie", { ...cookie("https://app.example.com"), headers: { authorization: "Bearer bad", cookie: `conclave_token=${sign(good)}` } }],
  ];
  for (const [reason, name, how] of cases) {
    test(`${reason}: ${name}`, async () => {
      const client = new Client(server, how);
      assert.deepEqual(await client.closed, { code: 1008, reason });
      assert.deepEqual(client.frames, [], "nothing else is sent");
    });
  }
});

test("an address with too many refused tokens gets 429", async () => {
  const strict = await Server.start({ config: { auth: { refusals_per_second: 1, refusals_burst: 3 } } });
  try {
    const outcomes = [];
    for (let attempt = 0; attempt < 6; attempt += 1) {
      const client = new Client(strict, { query: "?token=bad" });
      outcomes.push(await Promise.race([client.refused.then(({ status }) => status), client.closed.then(({ code }) => code)]));
    }
    assert.deepEqual(outcomes.slice(0, 3), [1008, 1008, 1008]);
    assert.ok(outcomes.includes(429), `${outcomes}`);
    const good = await Client.signedIn(strict, "u1");
    await good.close();
  } finally {
    await strict.close();
  }
});

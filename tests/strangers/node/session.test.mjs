// The HTTP session of a guest and the socket share one identity: the cookie.
import assert from "node:assert/strict";
import { request } from "node:https";
import { after, before, test } from "node:test";
import { Client } from "./client.mjs";
import { Server } from "./server.mjs";

let server;

before(async () => {
  server = await Server.start({ config: { session: { enabled: true, per_minute: 30 } } });
});
after(() => server.close());

function call(method, { headers = {}, body } = {}) {
  return new Promise((resolve, reject) => {
    const sent = request(`${server.origin}/session`, { ca: server.ca, method, headers, agent: false }, async (response) => {
      let text = "";
      for await (const piece of response) text += piece;
      resolve({ status: response.statusCode, headers: response.headers, text, cookie: response.headers["set-cookie"]?.[0] });
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

const signIn = (name, headers = {}) => call("POST", {
  headers: { origin: server.origin, "content-type": "application/json", ...headers },
  body: JSON.stringify({ name }),
});

test("a guest signs in over HTTPS and is the same person on the socket", async () => {
  const { status, cookie } = await signIn("Ann Ö.");
  assert.ok(status >= 200 && status < 300, `${status}`);
  assert.match(cookie, /^conclave_token=[^;]+;/);
  for (const attribute of [/; HttpOnly/i, /; Secure/i, /; SameSite=(Lax|Strict)/i, /; Path=\//i]) assert.match(cookie, attribute);

  const headers = { cookie: cookie.split(";")[0] };
  const client = new Client(server, { headers, origin: server.origin });
  const { user } = await client.next({ type: "connected" });
  assert.equal(user.name, "Ann Ö.");
  assert.match(user.id, /^guest:./);
  const again = new Client(server, { headers, origin: server.origin });
  assert.equal((await again.next({ type: "connected" })).user.id, user.id, "a second tab is the same user");
  assert.equal((await call("GET", { headers })).status, 200);

  const stolen = new Client(server, { headers });
  assert.deepEqual(await stolen.closed, { code: 1008, reason: "cookie_origin" });
  await Promise.all([client.close(), again.close()]);
});

test("two guests of one name are two users", async () => {
  const ids = [];
  for (let time = 0; time < 2; time += 1) {
    const { cookie } = await signIn("Bob");
    const client = new Client(server, { headers: { cookie: cookie.split(";")[0] }, origin: server.origin });
    ids.push((await client.next({ type: "connected" })).user.id);
    await client.close();
  }
  assert.notEqual(ids[0], ids[1]);
});

test("signing out clears the cookie", async () => {
  const { cookie } = await signIn("Cem");
  const out = await call("DELETE", { headers: { origin: server.origin, cookie: cookie.split(";")[0] } });
  assert.ok(out.status >= 200 && out.status < 300, `${out.status}`);
  assert.match(out.cookie, /^conclave_token=;/);
  assert.match(out.cookie, /Max-Age=0/i);
  assert.equal((await call("GET")).status, 401);
});

test("only JSON, only from its own pages, only a name", async () => {
  const refused = async (answer, status) => {
    const { status: got, cookie } = await answer;
    assert.equal(got, status);
    assert.equal(cookie, undefined);
  };
  await refused(signIn("Eve", { origin: "https://evil.example" }), 403);
  await refused(signIn("Eve", { origin: "null" }), 403);
  await refused(signIn("Eve", { "content-type": "text/plain" }), 415);
  await refused(signIn("Eve", { "content-type": "application/x-www-form-urlencoded" }), 415);
  for (const name of ["", " ", "a\u0000b", "x".repeat(1000), 5, null]) {
    const { status, cookie } = await signIn(name);
    assert.ok(status === 400 || status === 422, `${JSON.stringify(name)}: ${status}`);
    assert.equal(cookie, undefined);
  }
});

test("an address that signs in too often is told to wait", async () => {
  let answer;
  for (let time = 0; time < 40 && answer?.status !== 429; time += 1) answer = await signIn("Dot");
  assert.equal(answer.status, 429);
  assert.ok(Number(answer.headers["retry-after"]) > 0);
});

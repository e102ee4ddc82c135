// With the option `ticket` no address holds a token: each connection gets a single-use ticket for it first.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { pass, settle, started, stopTime } from "./harness.mjs";

beforeEach(stopTime);

/** A `/ticket` that answers what it is told, and keeps what it was asked. */
function office(...answers) {
  const asked = [];
  const fetch = async (url, options) => {
    asked.push({ url, ...options });
    const { status = 200, body, headers = {} } = answers.length > 1 ? answers.shift() : answers[0];
    return new Response(JSON.stringify(body ?? { ticket: `t_${asked.length}`, expires_in: 10 }), { status, headers });
  };
  return { asked, fetch };
}

/** Responses are read in more turns than the harness waits for. */
async function settled() {
  for (let turn = 0; turn < 20; turn += 1) await settle();
  await new Promise((resolve) => setImmediate(resolve));
  await settle();
}

async function back(server) {
  const before = server.sockets.length;
  await pass(30_000);
  await settled();
  assert.ok(server.sockets.length > before, "the client did not come back");
}

async function startedWith(options) {
  const parts = await started(options);
  await settled();
  return parts;
}

test("the token goes in a header, and a new ticket into each address", async () => {
  const { asked, fetch } = office({});
  const { server } = await startedWith({ ticket: true, fetch, getToken: () => "jwt" });
  assert.equal(server.sockets.length, 1);
  assert.equal(server.socket.url.searchParams.get("token"), "t_1");
  assert.equal(asked[0].url, "https://rt.example.com/ticket");
  assert.equal(asked[0].method, "POST");
  assert.equal(asked[0].headers.authorization, "Bearer jwt");
  server.socket.welcome();
  server.socket.end();
  await back(server);
  assert.equal(server.socket.url.searchParams.get("token"), "t_2");
  assert.ok(server.sockets.every(({ url }) => !url.href.includes("jwt")));
});

test("without a token the cookie says who this is, and the page may name another office", async () => {
  const { asked, fetch } = office({});
  const { server } = await startedWith({ ticket: "https://app.example.com/realtime-ticket", fetch });
  assert.equal(asked[0].url, "https://app.example.com/realtime-ticket");
  assert.equal(asked[0].credentials, "include");
  assert.deepEqual(asked[0].headers, {});
  assert.equal(server.socket.url.searchParams.get("token"), "t_1");
});

test("refused is refused: it stops and says the word", async () => {
  for (const [status, error, reason] of [[401, "token_missing", "token_missing"], [403, "cookie_origin", "cookie_origin"], [404, undefined, "no_ticket"]]) {
    const { fetch } = office({ status, body: { error } });
    const { server, states } = await startedWith({ ticket: true, fetch });
    await pass(60_000);
    assert.equal(server.sockets.length, 0);
    assert.deepEqual(states.at(-1), { state: "stopped", code: 1008, reason });
  }
});

test("an office that is away is tried again, when it says", async () => {
  const { asked, fetch } = office({ status: 503, body: { error: "unavailable" }, headers: { "retry-after": "7" } }, {});
  const { server, states } = await startedWith({ ticket: true, fetch });
  assert.deepEqual([states.at(-1).state, states.at(-1).reason, states.at(-1).inMs], ["reconnecting", "no_ticket", 7000]);
  await pass(7000);
  await settled();
  assert.equal(asked.length, 2);
  assert.equal(server.socket.url.searchParams.get("token"), "t_2");

  const away = await startedWith({ ticket: true, fetch: async () => { throw new TypeError("network"); } });
  assert.equal(away.states.at(-1).reason, "no_ticket");
  assert.equal(away.server.sockets.length, 0);
});

test("an expired token is renewed once, there as at the socket", async () => {
  const reasons = [];
  const { fetch } = office({ status: 401, body: { error: "token_expired" } }, {});
  const { server } = await startedWith({ ticket: true, fetch, getToken: ({ reason }) => { reasons.push(reason); return "jwt"; } });
  await back(server);
  assert.deepEqual(reasons, ["connect", "expired"]);
  assert.equal(server.sockets.length, 1);
});

test("a ticket that came too late is replaced once", async () => {
  const { asked, fetch } = office({});
  const { server, states } = await startedWith({ ticket: true, fetch });
  server.socket.end(1008, "ticket_used");
  await back(server);
  assert.equal(asked.length, 2);
  server.socket.end(1008, "ticket_used");
  await pass(60_000);
  assert.deepEqual(states.at(-1), { state: "stopped", code: 1008, reason: "ticket_used" });
});

test("closed meanwhile, it dials nobody", async () => {
  let hand;
  const fetch = () => new Promise((resolve) => { hand = () => resolve(new Response('{"ticket":"t_late"}')); });
  const { client, server } = await startedWith({ ticket: true, fetch });
  client.close();
  hand();
  await settled();
  assert.equal(server.sockets.length, 0);
});

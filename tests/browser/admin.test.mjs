// The operator's page in a real Chromium: sign in, watch the numbers move, look into a room, kick somebody, think twice
// about a drain.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { Client } from "../strangers/node/client.mjs";
import { Server, token } from "../strangers/node/server.mjs";
import { lookForBarriers } from "./barriers.mjs";
import { Person } from "./pages.mjs";

/** Where pictures go; `SCREENSHOTS` names a folder that is kept. */
let shots;
let server;
let browser;
const adminToken = randomBytes(32).toString("hex");
const clients = [];

before(async () => {
  shots = process.env.SCREENSHOTS ?? (await mkdtemp(join(tmpdir(), "conclave-admin-")));
  console.log(`screenshots: ${shots}`);
  const folder = await mkdtemp(join(tmpdir(), "conclave-admin-token-"));
  const file = join(folder, "tokens");
  await writeFile(file, `ann ${adminToken}\n`, { mode: 0o600 });
  server = await Server.start({
    config: {
      server: { name: "node-1" },
      admin: { token_file: file, tap_lines_per_second: 20 },
      drain: { grace: "1s", time: "5s" },
      limits: { connections: 500 },
    },
  });
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
});

after(async () => {
  for (const client of clients) client.cut();
  await browser?.close();
  await server?.close();
});

async function client(user, ...rooms) {
  const client = await Client.signedIn(server, user);
  clients.push(client);
  for (const room of rooms) await client.join(room);
  return client;
}

/** An operator who is signed in, at the page. */
async function operator(options) {
  const person = await Person.sitsDown(browser, options);
  await person.opens(`${server.admin}/`);
  await person.page.locator("#token").fill(adminToken);
  await person.page.keyboard.press("Enter");
  await person.page.locator("#state[data-state=ready]").waitFor();
  return person;
}

function complaints(person) {
  return person.complaints.filter((complaint) => !/status of 401/.test(complaint));
}

/** A picture of all of it, from its top: the header stays where one looks. */
async function whole(page, name) {
  await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: join(shots, `${name}.png`), fullPage: true });
}

/** Waits until a tile's number is as `wanted` says. */
async function tile(page, id, wanted) {
  const output = page.locator(`#tile-${id} output`);
  for (;;) {
    const text = await output.textContent();
    if (text !== "…" && wanted(Number(text.replace(/[^0-9.]/g, "")))) return;
    await page.waitForResponse((response) => response.url().endsWith("/api/overview"));
  }
}

/** Says something in `room` until told to stop. */
function chatter(speaker, room, everyMs) {
  let said = 0;
  const timer = setInterval(() => {
    said += 1;
    speaker.send({ type: "chat", room, content: { text: `private words ${said}` } });
  }, everyMs);
  return () => clearInterval(timer);
}

test("nobody gets in with a wrong token, and a good one is kept from scripts", async () => {
  const eve = await Person.sitsDown(browser);
  await eve.opens(`${server.admin}/`);
  await eve.page.locator("#token").fill("a guess that is long enough to be one");
  await eve.page.keyboard.press("Enter");
  await eve.page.locator("#said", { hasText: "no token" }).waitFor();
  assert.equal((await eve.context.cookies()).length, 0);
  assert.deepEqual(await lookForBarriers(eve.page), []);
  await eve.context.close();

  const ann = await operator();
  const [cookie] = await ann.context.cookies();
  assert.ok(cookie.httpOnly && cookie.sameSite === "Strict");
  assert.equal(await ann.page.evaluate(() => document.cookie), "");
  assert.ok(ann.requests.every((request) => !request.url().includes(adminToken)));
  await ann.page.locator("#sign-out").click();
  await ann.page.locator("#token").waitFor();
  assert.deepEqual(complaints(ann), []);
  await ann.context.close();
});

test("the numbers move, a tap shows who speaks and not what, a kick ends it", async () => {
  const ann = await operator();
  const { page } = ann;
  await tile(page, "connections", (value) => value === 0);
  const [bob, eve] = [await client("bob", "lobby", "team-42/plans"), await client("eve", "lobby")];
  for (let more = 0; more < 6; more += 1) await client(`guest-${more}`, "lobby");
  await tile(page, "connections", (value) => value === 8);
  const stops = [chatter(bob, "lobby", 60), chatter(bob, "team-42/plans", 400), chatter(eve, "lobby", 150)];
  await tile(page, "chats", (value) => value > 5);
  await page.locator("#busy td.name", { hasText: "lobby" }).waitFor();
  await page.locator("#large td.name", { hasText: "team-42/plans" }).waitFor();
  assert.match(await page.locator("#nodes").textContent(), /node-1 this one.*ready/);

  await page.locator("#busy button[data-room=lobby]").click();
  await page.locator("#tap-lines tr", { hasText: "chat" }).first().waitFor();
  await page.locator("#tap-said", { hasText: "left out" }).waitFor();
  const lines = await page.locator("#tap-lines").textContent();
  assert.ok(lines.includes("bob") && lines.includes("eve"));
  assert.ok(!lines.includes("private words"), "what was said is shown");
  await whole(page, "admin-light");
  await page.locator("#tap-stop").click();
  await page.locator("#tap-said", { hasText: "Ended after" }).waitFor();
  await tile(page, "connections", (value) => value === 8);

  await page.locator("#tap-of").selectOption("user");
  await page.locator("#tap-name").fill("eve");
  await page.locator("#tap-start").click();
  await page.locator("#tap-lines tr", { hasText: "said by" }).first().waitFor();

  // Without the id typed twice nothing is done.
  await page.locator("#kick-open").click();
  await page.locator("#kick-name").fill("eve");
  await page.locator("#kick-ban").selectOption("60");
  assert.ok(await page.locator("#kick-do").isDisabled());
  await page.locator("#kick-again").fill("ev");
  assert.ok(await page.locator("#kick-do").isDisabled());
  assert.deepEqual(await lookForBarriers(page), []);
  await page.screenshot({ path: join(shots, "admin-kick.png") });
  await page.locator("#kick-again").fill("eve");
  await page.locator("#kick-do").click();
  const { code, reason } = await eve.closed;
  assert.deepEqual([code, reason], [1008, "kicked"]);
  await page.locator("#kick-said", { hasText: "Kicked user eve, banned until" }).waitFor();
  await page.locator("#tap-lines tr", { hasText: "kicked" }).first().waitFor();
  await page.locator("#closes tr", { hasText: "kicked" }).waitFor();
  const again = new Client(server, { query: `?token=${token("eve")}` });
  assert.equal((await again.closed).reason, "token_revoked");
  stops.forEach((stop) => stop());
  assert.deepEqual(complaints(ann), []);
  await ann.context.close();
});

test("a drain that is thought better of changes nothing", async () => {
  const ann = await operator();
  const { page } = ann;
  await page.locator("#drain-open").click();
  await page.locator("#drain-plan dt", { hasText: "Clients" }).waitFor();
  assert.ok(await page.locator("#drain-do").isDisabled());
  await page.locator("#drain-again").fill("node-1");
  assert.ok(await page.locator("#drain-do").isEnabled());
  await page.screenshot({ path: join(shots, "admin-drain.png") });
  await page.keyboard.press("Escape");
  await page.locator("#drain").waitFor({ state: "hidden" });
  await page.waitForResponse((response) => response.url().endsWith("/api/overview"));
  assert.equal(await page.locator("#state").getAttribute("data-state"), "ready");
  assert.deepEqual(complaints(ann), []);
  await ann.context.close();
});

test("it reads well in the dark, on a phone and without a mouse", async () => {
  for (const [name, options] of [
    ["dark", { colorScheme: "dark" }],
    ["narrow", { viewport: { width: 360, height: 760 }, colorScheme: "light" }],
    ["narrow-dark", { viewport: { width: 360, height: 760 }, colorScheme: "dark" }],
  ]) {
    const ann = await operator(options);
    const { page } = ann;
    await page.locator("#config-details summary").click();
    await page.locator("#config tr", { hasText: "admin.token_file" }).waitFor();
    await page.locator("#tile-cpu output", { hasText: /\d cores/ }).waitFor();
    const shown = await page.locator("#config").textContent();
    assert.ok(!shown.includes(adminToken));
    await page.locator("#config-filter").fill("drain.grace");
    await page.locator("#config tr").nth(1).waitFor({ state: "detached" });
    assert.match(await page.locator("#config").textContent(), /drain\.grace1s.*conclave\.toml:\d+/);
    assert.deepEqual(await lookForBarriers(page), [], name);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.equal(wide, 0, `${name}: the page scrolls sideways`);
    await whole(page, `admin-${name}`);
    assert.deepEqual(complaints(ann), []);
    await ann.context.close();
  }
});

test("a node that dies is noticed, and whoever was signed in is not any more", async () => {
  const ann = await operator();
  const { page } = ann;
  await server.process.signal("SIGKILL");
  await page.locator("#banner", { hasText: "does not answer" }).waitFor();
  await page.locator("#state", { hasText: "no answer" }).waitFor();
  await page.screenshot({ path: join(shots, "admin-away.png") });
  await ann.context.close();
});

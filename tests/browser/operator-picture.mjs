// Makes README's picture of the operator's page: three nodes on one Redis, a few hundred people in rooms, some of whom come
// and go, for two minutes. `CONCLAVE=… node tests/browser/operator-picture.mjs dashboards/images/operator-page.png`
import { randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { Client } from "../strangers/node/client.mjs";
import { Redis } from "../strangers/node/redis.mjs";
import { Server } from "../strangers/node/server.mjs";

const [file, seconds = "125", peopleEach = "70"] = process.argv.slice(2);
const ROOMS = ["lobby", "team-42/plans", "team-42/random", "support", "game/7", "game/8", "news"];

const folder = await mkdtemp(join(tmpdir(), "conclave-picture-"));
const tokens = join(folder, "tokens");
const adminToken = randomBytes(32).toString("hex");
await writeFile(tokens, `ann ${adminToken}\n`, { mode: 0o600 });
const redis = await Redis.start();
const start = (name) => Server.start({
  config: {
    server: { name },
    admin: { token_file: tokens },
    limits: { connections: 400, messages_per_second: 50 },
    backplane: { kind: "redis", url: redis.url },
  },
});
const nodes = [await start("node-a"), await start("node-b"), await start("node-c")];

const people = [];
async function arrive(node, number) {
  const room = ROOMS[Math.floor(ROOMS.length * Math.random() ** 2)];
  const person = await Client.joined(node, `user-${number}`, room);
  people.push({ person, room });
}
let number = 0;
for (const node of nodes) {
  for (let count = 0; count < Number(peopleEach); count += 1) await arrive(node, number++);
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, colorScheme: "light" });
await page.goto(`${nodes[0].admin}/`);
await page.locator("#token").fill(adminToken);
await page.keyboard.press("Enter");
await page.locator("#nodes tr").nth(2).waitFor();

let turn = 0;
const life = setInterval(async () => {
  turn += 1;
  // As talk is: it rises and falls.
  const loud = 2 + Math.round(3 * (1 + Math.sin(turn / 60)));
  for (let said = 0; said < loud; said += 1) {
    const { person, room } = people[Math.floor(people.length * Math.random())];
    person.send({ type: "chat", room, content: `words ${turn}` });
  }
  if (turn % 12 === 0) {
    const [gone] = people.splice(Math.floor(people.length * Math.random()), 1);
    if (turn % 36 === 0) gone.person.cut();
    else gone.person.close();
    await arrive(nodes[turn % 2 === 0 ? 0 : 1], number++);
  }
  if (turn % 80 === 0) new Client(nodes[0], { query: "?token=not.a.token" });
}, 100);

await new Promise((resolve) => setTimeout(resolve, (Number(seconds) - 12) * 1000));
await page.locator("#busy button[data-room]").first().click();
await page.locator("#tap-lines tr").nth(12).waitFor();
await page.evaluate(() => scrollTo(0, 0));
await page.screenshot({ path: file, fullPage: true });

clearInterval(life);
await browser.close();
for (const { person } of people) person.cut();
for (const node of nodes) await node.close();
await redis.close();
await rm(folder, { recursive: true });
process.exit(0);

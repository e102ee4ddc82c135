// The page of `conclave dev` in a real Chromium, as two people use it.
import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { lookForBarriers } from "./barriers.mjs";
import { Dev, launch, Person } from "./pages.mjs";

let dev;
let browser;
let shots;

before(async () => {
  dev = await Dev.start();
  browser = await launch(dev);
  shots = await mkdtemp(join(tmpdir(), "conclave-screenshots-"));
  console.log(`screenshots: ${shots}`);
});

after(async () => {
  await browser?.close();
  await dev?.close();
});

const shoot = (person, name) => person.page.screenshot({ path: join(shots, `${name}.png`) });

/** The end of a visit: nothing was complained about, nothing was fetched from elsewhere, no secret was in an address. */
function cleanly(...people) {
  for (const person of people) {
    assert.deepEqual(person.complaints, []);
    for (const request of person.requests) {
      assert.equal(new URL(request.url()).origin, new URL(dev.url).origin, request.url());
      assert.ok(!request.url().includes(dev.token), "the token is in an address");
    }
  }
}

test("two people talk, one leaves", async () => {
  const [ann, bob] = [await Person.sitsDown(browser), await Person.sitsDown(browser)];
  await ann.opens(dev.url);
  await ann.page.locator("#name:focus").waitFor();
  await shoot(ann, "1-door");
  await ann.page.close();

  await ann.signsIn(dev.url, "Ann");
  assert.equal(await ann.page.locator("#room-title").textContent(), "lobby");
  assert.equal(await ann.page.locator("#me-name").textContent(), "Ann");
  await ann.page.locator("#hint").waitFor();
  await shoot(ann, "2-alone");

  await bob.signsIn(dev.url, "Bob");
  await ann.event("Bob joined").waitFor();
  assert.deepEqual(await ann.users(), ["Ann", "Bob"], "oneself first");
  assert.deepEqual(await bob.users(), ["Bob", "Ann"]);
  assert.equal(await ann.page.locator("#room-count").textContent(), "2 people here");
  assert.equal(await bob.event("joined").count(), 0, "never for oneself");

  await ann.says("Hello Bob");
  await bob.message("Hello Bob").waitFor();
  await bob.says("Hello Ann, <b>how</b> are you?");
  await ann.message("Hello Ann, <b>how</b> are you?").waitFor();
  await ann.says("Very well. שלום 👋");
  await bob.message("Very well").waitFor();
  assert.equal(await bob.page.locator("#messages .who", { hasText: "Ann" }).count(), 2);
  await shoot(ann, "3-talk");

  // A second tab of the same person is no second person.
  const tab = await ann.context.newPage();
  await tab.goto(dev.url);
  await tab.locator("#messages .text", { hasText: "Very well" }).waitFor();
  assert.equal(await bob.page.locator("#room-count").textContent(), "2 people here");
  await tab.close();

  await ann.page.reload();
  await ann.message("Hello Bob").waitFor();
  await ann.message("Very well").waitFor();
  assert.equal(await ann.page.locator("#messages .message").count(), 3, "history, once");
  assert.equal(await ann.page.locator("#me-name").textContent(), "Ann", "still the same person");
  await ann.page.locator("#room-count", { hasText: "2 people here" }).waitFor();

  await bob.page.close();
  await ann.event("Bob left").waitFor();
  assert.deepEqual(await ann.users(), ["Ann"]);
  await shoot(ann, "4-left");
  cleanly(ann, bob);
  await Promise.all([ann.context.close(), bob.context.close()]);
});

test("a server that dies and comes back is noticed, and the talk goes on", async () => {
  const [ann, bob] = [await Person.sitsDown(browser), await Person.sitsDown(browser)];
  await ann.signsIn(dev.url, "Ann");
  await bob.signsIn(dev.url, "Bob");
  await ann.event("Bob joined").waitFor();
  await ann.says("before");
  await bob.message("before").waitFor();

  for (const person of [ann, bob]) person.serverIsGone = true;
  await dev.process.signal("SIGKILL");
  for (const person of [ann, bob]) {
    await person.page.locator("#banner-text", { hasText: "Reconnecting" }).waitFor();
    await person.page.locator("#status", { hasText: "Reconnecting" }).waitFor();
  }
  // What is said meanwhile waits, and is said once when there is a server again.
  await ann.page.locator("#message").focus();
  await ann.page.keyboard.type("meanwhile");
  await ann.page.keyboard.press("Enter");
  await ann.page.locator("#pending .waiting", { hasText: "meanwhile" }).waitFor();
  await shoot(ann, "5-reconnecting");

  await dev.run();
  for (const person of [ann, bob]) {
    await person.page.locator("#status[data-state=online]").waitFor();
    await person.page.locator("#banner").waitFor({ state: "hidden" });
    person.serverIsGone = false;
    assert.equal(await person.page.locator("#me-name").textContent(), person === ann ? "Ann" : "Bob");
  }
  await bob.message("meanwhile").waitFor();
  await ann.page.locator("#pending .waiting").waitFor({ state: "detached" });
  await bob.page.locator("#message").focus();
  await bob.says("after");
  await ann.message("after").waitFor();
  assert.equal(await ann.message("meanwhile").count(), 1);
  await ann.page.locator("#room-count", { hasText: "2 people here" }).waitFor();
  await shoot(ann, "6-back");
  cleanly(ann, bob);
  await Promise.all([ann.context.close(), bob.context.close()]);
});

test("the token leaves the address bar and is in no request's address", async () => {
  const person = await Person.sitsDown(browser);
  await person.opens(dev.asUser);
  await person.page.locator("#status[data-state=online]").waitFor();
  assert.equal(person.page.url(), dev.url);
  assert.equal(await person.page.evaluate(() => location.hash), "");
  assert.equal(await person.page.locator("#me-name").textContent(), "Dev");
  await person.page.reload();
  await person.page.locator("#status[data-state=online]").waitFor();
  assert.equal(await person.page.locator("#me-name").textContent(), "Dev", "this tab keeps it");
  for (const request of person.requests) {
    const headers = await request.allHeaders();
    assert.equal(headers.referer, undefined, request.url());
    assert.ok(!JSON.stringify(headers).includes(dev.token), request.url());
  }
  cleanly(person);
  await person.context.close();
});

test("the page's policy forbids what it should, and these tests would notice", async () => {
  const person = await Person.sitsDown(browser);
  const page = await person.opens(dev.url);
  await page.locator("#name:focus").waitFor();
  const got = await page.evaluate(async () => {
    const attempt = async (act) => {
      try {
        await act();
        return "done";
      } catch {
        return "refused";
      }
    };
    return [
      await attempt(() => { document.createElement("script").textContent = "1"; }),
      await attempt(() => { document.createElement("div").innerHTML = "<img src=x onerror=1>"; }),
      await attempt(() => fetch("https://elsewhere.invalid/")),
    ];
  });
  assert.deepEqual(got, ["refused", "refused", "refused"]);
  for (const rule of ["TrustedScript", "TrustedHTML", "connect-src 'self'"]) {
    assert.ok(person.complaints.some((text) => text.includes(rule)), `${rule}: ${person.complaints.join("\n")}`);
  }
  await person.context.close();
});

test("rooms are joined, changed and left with the keyboard alone", async () => {
  const person = await Person.sitsDown(browser);
  const page = await person.signsIn(dev.url, "Kim");
  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.textContent.trim());
  const tabTo = async (wanted, key = "Tab") => {
    for (let step = 0; step < 30; step += 1) {
      if ((await focused()) === wanted) return;
      await page.keyboard.press(key);
    }
    assert.fail(`the keyboard does not reach ${wanted}, it stopped at ${await focused()}`);
  };
  await tabTo("room-name", "Shift+Tab");
  await page.keyboard.type("garden");
  await page.keyboard.press("Enter");
  await page.locator("#room-title", { hasText: "garden" }).waitFor();
  await person.says("in the garden");
  await tabTo("lobby", "Shift+Tab");
  await page.keyboard.press("Enter");
  await page.locator("#room-title", { hasText: "lobby" }).waitFor();
  assert.equal(await person.message("in the garden").count(), 0);
  await tabTo("garden", "Tab");
  await page.keyboard.press("Enter");
  await person.message("in the garden").waitFor();
  await tabTo("leave-room", "Tab");
  await page.keyboard.press("Enter");
  await page.locator("#room-title", { hasText: "lobby" }).waitFor();
  await tabTo("sign-out", "Shift+Tab");
  await page.keyboard.press("Enter");
  await page.locator("#name:focus").waitFor();
  await page.reload();
  await page.locator("#name:focus").waitFor();
  cleanly(person);
  await person.context.close();
});

for (const colorScheme of ["light", "dark"]) {
  test(`nobody is kept out: names, landmarks and contrast, ${colorScheme}`, async () => {
    const [ann, bob] = [await Person.sitsDown(browser, { colorScheme }), await Person.sitsDown(browser, { colorScheme })];
    await ann.opens(dev.url);
    await ann.page.locator("#name:focus").waitFor();
    assert.deepEqual(await lookForBarriers(ann.page), []);
    await ann.page.close();
    await ann.signsIn(dev.url, "Ann");
    await bob.signsIn(dev.url, "Bob");
    await ann.event("Bob joined").waitFor();
    await ann.says(`Hello, ${colorScheme}`);
    await bob.message(`Hello, ${colorScheme}`).waitFor();
    await bob.says(`Good to see you, ${colorScheme}`);
    await ann.message(`Good to see you, ${colorScheme}`).waitFor();
    await shoot(ann, `7-${colorScheme}`);
    for (const person of [ann, bob]) assert.deepEqual(await lookForBarriers(person.page), []);
    cleanly(ann, bob);
    await Promise.all([ann.context.close(), bob.context.close()]);
  });
}

test("a phone shows it without sideways scrolling", async () => {
  const person = await Person.sitsDown(browser, { viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true });
  const page = await person.opens(dev.url);
  await page.locator("#name").fill("A very long name that hardly fits it");
  await page.locator("#sign-in").tap();
  await page.locator("#status[data-state=online]").waitFor();
  await page.locator("#message").fill("averylongwordwithoutanyplacetobreakit".repeat(4));
  await page.locator("#send").tap();
  await person.message("averylongword").waitFor();
  const { scroll, width } = await page.evaluate(() => ({ scroll: document.documentElement.scrollWidth, width: innerWidth }));
  assert.ok(scroll <= width, `${scroll} > ${width}`);
  assert.ok(await page.locator("#send").isVisible());
  await shoot(person, "8-phone");
  assert.deepEqual(await lookForBarriers(page), []);
  cleanly(person);
  await person.context.close();
});

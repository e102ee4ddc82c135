// A development server, a Chromium that trusts exactly its certificate, and pages that note what goes wrong in them.
import { createHash, X509Certificate } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { Running } from "../strangers/node/server.mjs";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** `conclave dev` with a state folder of its own: after a restart it knows the guests it had. */
export class Dev {
  static async start() {
    const dev = new Dev();
    dev.folder = await mkdtemp(join(tmpdir(), "conclave-page-"));
    dev.port = 0;
    await dev.run();
    const leaf = new X509Certificate(await readFile(join(dev.folder, "localhost.crt")));
    dev.pin = createHash("sha256").update(leaf.publicKey.export({ type: "spki", format: "der" })).digest("base64");
    return dev;
  }

  async run() {
    this.process = new Running(
      ["dev", "--listen", `127.0.0.1:${this.port}`, "--admin-listen", "127.0.0.1:0"],
      { env: { CONCLAVE_STATE_DIR: this.folder } },
    );
    this.asUser = await this.process.line((line) => line.match(/https:\S+#token=\S+/)?.[0]);
    this.url = new URL("/", this.asUser).href;
    this.token = new URL(this.asUser).hash.slice("#token=".length);
    this.port = new URL(this.url).port;
  }

  async close() {
    await this.process.signal("SIGKILL");
    await rm(this.folder, { recursive: true, force: true });
  }
}

export function launch(dev) {
  return chromium.launch({
    executablePath: CHROMIUM,
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", `--ignore-certificate-errors-spki-list=${dev.pin}`,
    ],
  });
}

/** Somebody at a browser of their own, and all that the browser's console complained about, the page's policy included. */
export class Person {
  complaints = [];
  requests = [];
  /** While the server is gone, the browser may say so. */
  serverIsGone = false;

  static async sitsDown(browser, options = {}) {
    const person = new Person();
    person.context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    return person;
  }

  async opens(url) {
    this.page = await this.context.newPage();
    this.page.on("pageerror", (error) => this.complaints.push(`error: ${error.stack}`));
    this.page.on("console", (message) => {
      if (!["error", "warning"].includes(message.type())) return;
      const { url: where } = message.location();
      // Before sign-in the page asks who is there, and "nobody" is 401.
      if (/status of 401/.test(message.text()) && new URL(where).pathname === "/session") return;
      if (this.serverIsGone && /ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET/.test(message.text())) return;
      this.complaints.push(`console: ${message.text()} (${where})`);
    });
    this.page.on("request", (request) => this.requests.push(request));
    await this.page.goto(url);
    return this.page;
  }

  /** As a person without a mouse: the field for the name has the focus already. */
  async signsIn(url, name) {
    const page = await this.opens(url);
    await page.locator("#name:focus").waitFor();
    await page.keyboard.type(name);
    await page.keyboard.press("Enter");
    await page.locator("#status[data-state=online]").waitFor();
    return page;
  }

  async says(text) {
    await this.page.locator("#message:focus").waitFor();
    await this.page.keyboard.type(text);
    await this.page.keyboard.press("Enter");
    await this.message(text).waitFor();
  }

  message(text) {
    return this.page.locator("#messages .message .text", { hasText: text });
  }

  event(text) {
    return this.page.locator("#messages .event", { hasText: text });
  }

  users() {
    return this.page.locator("#users .user-name").allTextContents();
  }
}

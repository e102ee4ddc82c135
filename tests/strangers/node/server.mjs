// A server of its own for each test file: `conclave serve` with a configuration written here, on free ports.
// $CONCLAVE names the binary.
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const START_MS = 60_000;

export const SECRET = "a secret that only the tests of strangers know";
export const BINARY = process.env.CONCLAVE ?? fail("set CONCLAVE to the conclave binary");

function fail(text) {
  throw new Error(text);
}

// A run that is cut short takes its servers with it.
const alive = new Set();
process.on("exit", () => alive.forEach((child) => child.kill("SIGKILL")));
process.once("SIGTERM", () => process.exit(143));

/** A process, its output line by line, and its end. */
export class Running {
  lines = [];
  #waiting = [];

  constructor(args, { command = BINARY, env = {}, cwd, stdin = "ignore" } = {}) {
    this.child = spawn(command, args, { env: { ...process.env, ...env }, cwd, stdio: [stdin, "pipe", "pipe"] });
    alive.add(this.child);
    for (const stream of [this.child.stdout, this.child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        this.lines.push(line);
        for (const look of [...this.#waiting]) look();
      });
    }
    this.ended = new Promise((resolve, reject) => {
      this.child.on("error", reject);
      this.child.on("close", (code, signal) => {
        alive.delete(this.child);
        resolve({ code, signal });
      });
    });
  }

  get output() {
    return this.lines.join("\n");
  }

  /** The first result of `find(line)` that is not empty, of lines printed already or still to come. */
  line(find) {
    return new Promise((resolve, reject) => {
      const end = (act) => {
        clearTimeout(timer);
        this.#waiting = this.#waiting.filter((other) => other !== look);
        act();
      };
      let next = 0;
      const look = () => {
        while (next < this.lines.length) {
          const found = find(this.lines[next++]);
          if (found) return end(() => resolve(found));
        }
      };
      const lost = (why) => end(() => reject(new Error(`${why}\n${this.output}`)));
      const timer = setTimeout(() => lost("the line did not come"), START_MS);
      this.#waiting.push(look);
      this.ended.then(({ code }) => lost(`ended with ${code}`), (error) => lost(error.message));
      look();
    });
  }

  signal(name) {
    this.child.kill(name);
    return this.ended;
  }
}

/** What `conclave dev` leaves in its state folder: an authority, and a certificate of it for localhost. */
export async function certificate(folder) {
  const state = join(folder, "state");
  const args = ["dev", "--quiet", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
  const dev = new Running(args, { env: { CONCLAVE_STATE_DIR: state } });
  await dev.line((line) => line.startsWith("https://"));
  await dev.signal("SIGTERM");
  return {
    ca: await readFile(join(state, "ca.crt"), "utf8"),
    certificate: join(state, "localhost.crt"),
    key: join(state, "localhost.key"),
  };
}

function toml(value) {
  if (Array.isArray(value)) return `[${value.map(toml).join(", ")}]`;
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}

function table(name, entries) {
  return [`[${name}]`, ...Object.entries(entries).map(([key, value]) => `${key} = ${toml(value)}`)].join("\n");
}

export class Server {
  /** `config`: tables by name, laid over a small whole configuration; `keys`: entries of `[[auth.keys]]`. */
  static async start({ config = {}, keys = [{}] } = {}) {
    const server = new Server();
    server.folder = await mkdtemp(join(tmpdir(), "conclave-stranger-"));
    const pair = await certificate(server.folder);
    server.ca = pair.ca;
    const secret = join(server.folder, "jwt.secret");
    await writeFile(secret, SECRET, { mode: 0o600 });
    const tables = {
      ...config,
      server: { listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", ...config.server },
      tls: { certificate: pair.certificate, key: pair.key },
    };
    const parts = Object.entries(tables).map(([name, entries]) => table(name, entries));
    for (const key of keys) parts.push(table("[auth.keys]", { algorithm: "HS256", secret_file: secret, ...key }));
    server.config = join(server.folder, "conclave.toml");
    await writeFile(server.config, `${parts.join("\n\n")}\n`);
    await server.run();
    return server;
  }

  /** Starts it, on the ports it had before if it was running already. */
  async run() {
    const flags = this.port ? ["--listen", `127.0.0.1:${this.port}`] : [];
    this.process = new Running(["serve", "--config", this.config, "--log-format", "json", ...flags]);
    const { listen, admin_listen: admin } = await this.process.line((line) => {
      const said = line.startsWith("{") && JSON.parse(line);
      return said.message === "ready" && said;
    });
    this.port = Number(listen.split(":").at(-1));
    this.admin = `http://${admin}`;
  }

  get authority() {
    return `localhost:${this.port}`;
  }

  get origin() {
    return `https://${this.authority}`;
  }

  /** Asks for a drain and waits for its end. */
  async stop() {
    const end = await this.process.signal("SIGTERM");
    if (end.code !== 0) fail(`drained with ${JSON.stringify(end)}\n${this.process.output}`);
  }

  /** The end of a test: nothing secret may be in what was logged meanwhile. */
  async close() {
    if (this.process.child.exitCode === null && this.process.child.signalCode === null) await this.process.signal("SIGKILL");
    await rm(this.folder, { recursive: true, force: true });
    const leaked = [SECRET, ...minted].find((secret) => this.process.output.includes(secret));
    if (leaked) fail(`in the log: ${leaked}\n${this.process.output}`);
  }
}

const minted = new Set();
const encode = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");

export const now = () => Math.floor(Date.now() / 1000);

/** A JWT as any backend makes one. `payload` may be text, for what no library would write. */
export function sign(payload, { header = {}, secret = SECRET } = {}) {
  const body = `${encode({ alg: "HS256", typ: "JWT", ...header })}.${encode(payload)}`;
  const token = `${body}.${createHmac("sha256", secret).update(body).digest("base64url")}`;
  minted.add(token);
  return token;
}

export function token(sub, claims = {}) {
  return sign({ sub, exp: now() + 3600, ...claims });
}

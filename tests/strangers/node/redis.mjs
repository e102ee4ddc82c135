// A Redis of its own for each test file, on a free port.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Running } from "./server.mjs";

/** A port that was free a moment ago. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

export class Redis {
  /** Redis' own settings, as Debian's package has them too, and what `settings` says. */
  static async start(settings = {}) {
    const redis = new Redis();
    redis.folder = await mkdtemp(join(tmpdir(), "conclave-redis-"));
    redis.port = await freePort();
    const lines = Object.entries({ bind: "127.0.0.1", port: redis.port, dir: redis.folder, ...settings });
    redis.config = join(redis.folder, "redis.conf");
    await writeFile(redis.config, lines.map(([key, value]) => `${key} ${value}\n`).join(""));
    await redis.run();
    return redis;
  }

  get url() {
    return `redis://127.0.0.1:${this.port}`;
  }

  async run() {
    this.process = new Running([this.config], { command: "redis-server" });
    await this.process.line((line) => line.includes("Ready to accept connections"));
  }

  /** `kill -9`. */
  kill() {
    return this.process.signal("SIGKILL");
  }

  async close() {
    await this.kill();
    await rm(this.folder, { recursive: true, force: true });
  }
}

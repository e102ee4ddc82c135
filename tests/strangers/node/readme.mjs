// A section of README as a reader follows it: its blocks, word for word but for ports, in an empty folder.
import { execFile } from "node:child_process";
import { chmod, mkdir, mkdtemp, readFile, realpath, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { freePort } from "./redis.mjs";
import { BINARY, Running } from "./server.mjs";

const README = fileURLToPath(new URL("../../../README.md", import.meta.url));
const MODULES = fileURLToPath(new URL("../node_modules", import.meta.url));
const SHELL = "/bin/bash";

/** The code between two marks. */
async function blocks(mark, readme) {
  const [, section] = (await readFile(readme, "utf8")).split(new RegExp(`<!-- /?${mark} -->\\n`));
  return [...section.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, text]) => text);
}

/** A machine to follow it on: ports that are free here, and what installs or starts software replaced. */
export class Reader {
  /** `ports`: others that the section names; `modules`: what `npm` would have installed; `readme`: another one. */
  static async start(redis, { mark = "cluster", ports = [], modules = MODULES, readme = README } = {}) {
    const reader = new Reader();
    reader.folder = await mkdtemp(join(tmpdir(), "conclave-readme-"));
    reader.ports = new Map([["6379", redis.port]]);
    for (const port of ["8443", "8444", "9464", "9465", ...ports]) reader.ports.set(port, await freePort());
    const bin = join(reader.folder, "bin");
    await mkdir(bin);
    await symlink(await realpath(BINARY), join(bin, "conclave"));
    const stand = async (name, script) => {
      await writeFile(join(bin, name), `#!/bin/sh\n${script}\n`);
      await chmod(join(bin, name), 0o755);
    };
    // tests/run has installed the packages, and the test starts Redis, so that it can kill it.
    await stand("apt-get", "exit 0");
    await stand("service", "exit 0");
    await stand("npm", `[ -e node_modules ] || ln -s '${modules}' node_modules`);
    await stand("redis-cli", `PATH='${process.env.PATH}' exec redis-cli -p ${redis.port} "$@"`);
    reader.env = { PATH: `${bin}:${process.env.PATH}` };
    reader.cwd = reader.folder;
    reader.blocks = (await blocks(mark, readme)).map((text) => reader.withPorts(text));
    return reader;
  }

  withPorts(text) {
    return text.replace(/\b\d{4}\b/g, (port) => this.ports.get(port) ?? port);
  }

  /** Runs blocks to their end, up to the first that goes on in the background or in a terminal. */
  async follow() {
    while (this.blocks.length && !isRunning(this.blocks[0])) await this.step();
  }

  /** Runs the next block to its end; the next one begins in the folder where it ends. Returns what it said. */
  async step() {
    const options = { cwd: this.cwd, env: { ...process.env, ...this.env } };
    const text = `${this.blocks.shift()}\npwd > '${this.folder}/.cwd'`;
    const { stdout } = await promisify(execFile)(SHELL, ["-euo", "pipefail", "-c", text], options);
    this.cwd = (await readFile(join(this.folder, ".cwd"), "utf8")).trim();
    return stdout;
  }

  /** The lines of the next block, each of which runs on. */
  take() {
    return this.blocks.shift().trim().split("\n");
  }

  /** Runs a line without its `&`. */
  run(line, env = {}) {
    return new Running(["-c", `exec env ${line.replace(/&$/, "")}`], {
      command: SHELL,
      cwd: this.cwd,
      env: { ...this.env, ...env },
      stdin: "pipe",
    });
  }

  close() {
    return rm(this.folder, { recursive: true, force: true });
  }
}

const isRunning = (block) => block.trim().split("\n").every((line) => line.endsWith("&") || line.includes(" node chat.mjs "));

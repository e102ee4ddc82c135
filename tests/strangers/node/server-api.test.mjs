import assert from "node:assert/strict";
import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Client } from "./client.mjs";
import { Reader } from "./readme.mjs";
import { certificate, SECRET } from "./server.mjs";

/** What the reader has from "Production": a certificate, a secret, a configuration. */
async function prepare(folder) {
  const pair = await certificate(folder);
  await writeFile(join(folder, "jwt.secret"), SECRET, { mode: 0o600 });
  await writeFile(join(folder, "tls.crt"), pair.ca);
  await writeFile(join(folder, "conclave.toml"), `
[tls]
certificate = "${pair.certificate}"
key = "${pair.key}"
[[auth.keys]]
algorithm = "HS256"
secret_file = "jwt.secret"`);
  return pair.ca;
}

describe("README's server API section", () => {
  let reader, node, server;

  before(async () => {
    reader = await Reader.start({ port: 6379 }, { mark: "server-api" });
    const ca = await prepare(reader.folder);
    server = { authority: `localhost:${reader.ports.get("8443")}`, ca };
  });
  after(async () => {
    await node?.signal("SIGKILL");
    await reader?.close();
  });

  test("followed word for word: a key, a chat, who is here, a logout everywhere", async () => {
    await reader.follow();
    const key = (await readFile(join(reader.folder, "backend.key"), "utf8")).trim();
    assert.match(key, /^ck_/);
    assert.equal((await stat(join(reader.folder, "backend.key"))).mode & 0o777, 0o600);
    const config = await readFile(join(reader.folder, "conclave.toml"), "utf8");
    assert.match(config, /hash = "sha256:/);
    assert.ok(!config.includes(key));

    const [line] = reader.take();
    const env = {
      CONCLAVE_SERVER__LISTEN: `127.0.0.1:${reader.ports.get("8443")}`,
      CONCLAVE_SERVER__ADMIN_LISTEN: `127.0.0.1:${reader.ports.get("9464")}`,
    };
    node = reader.run(line, env);
    await node.line((text) => text.includes("ready"));
    const ann = await Client.joined(server, "ann", "lobby");

    const said = JSON.parse(await reader.step());
    assert.deepEqual({ room: said.room, seq: said.seq }, { room: "lobby", seq: 1 });
    const heard = await ann.next({ type: "chat" });
    assert.deepEqual(heard.content, { text: "We open at nine." });
    assert.deepEqual(heard.from, { id: "shop", name: "Shop" });

    const here = JSON.parse(await reader.step());
    assert.deepEqual(here.users.map(({ id }) => id), ["ann"]);

    const revoked = JSON.parse(await reader.step());
    assert.equal(revoked.user, "ann");
    assert.deepEqual(await ann.closed, { code: 1008, reason: "token_revoked" });
    assert.ok(!node.output.includes(key), "no key in the log");
  });
});

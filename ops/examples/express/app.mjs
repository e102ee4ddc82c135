// An application with a login of its own, connected to Conclave. README's section "Connect your application" says how to run it.
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import express from "express";
import session from "express-session";
import jwt from "jsonwebtoken";
import { Webhook } from "standardwebhooks";

const [jwtSecret, hookSecret, apiKey] = ["jwt.secret", "hook.secret", "api.key"].map((file) => readFileSync(file, "utf8").trim());
const sessions = new session.MemoryStore();
const app = express();
app.use(session({ secret: randomUUID(), store: sessions, resave: false, saveUninitialized: false, cookie: { sameSite: "lax" } }));

// The login that it had before, whatever that is. Here: anybody whose password is "secret".
app.post("/login", express.json(), ({ body: { name, password }, session }, res) => {
  if (password !== "secret") return res.sendStatus(401);
  session.user = { id: name.toLowerCase(), name };
  res.json(session.user);
});
const signedIn = (req, res, next) => (req.session.user ? next() : res.sendStatus(401));

// Who is signed in gets a token for Conclave, good for five minutes; the client asks for the next one by itself.
app.get("/token", signedIn, ({ session: { user } }, res) => {
  res.send(jwt.sign({ sub: user.id, name: user.name, rooms: { lobby: ["*"] } }, jwtSecret, { expiresIn: "5m" }));
});

// Signs out everywhere: the sessions here, and every socket of that user on every node.
app.post("/logout", signedIn, async ({ session: { user } }, res) => {
  sessions.all((_, all) => Object.entries(all).forEach(([id, one]) => one.user?.id === user.id && sessions.destroy(id)));
  const headers = { authorization: `Bearer ${apiKey}`, "content-type": "application/json" };
  const done = await fetch("https://localhost:8443/api/v1/revocations", { method: "POST", headers, body: JSON.stringify({ user: user.id }) });
  res.sendStatus(done.ok ? 204 : 502);
});

// Conclave tells who comes and who goes.
app.post("/told", express.raw({ type: "*/*", limit: "1mb" }), ({ body, headers }, res) => {
  const { events } = new Webhook(hookSecret).verify(body, headers);
  for (const { event, room, user } of events) console.log(event, room, user?.name ?? "");
  res.sendStatus(204);
});

app.get("/", (_, res) => res.sendFile("page.html", { root: import.meta.dirname }));
app.listen(3000, "127.0.0.1", () => console.log("http://localhost:3000"));

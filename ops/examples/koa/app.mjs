// A Koa application with koa-session. Conclave has no users and no tokens here: whoever is signed in to the application is
// signed in to Conclave, by the same cookie. README.md says how to run it.
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import Koa from "koa";
import session from "koa-session";

const PORT = 3443;
const CONCLAVE = "https://localhost:8443";
const [certificate, key, apiKey] = ["tls.crt", "tls.key", "api.key"].map((file) => readFileSync(file, "utf8").trim());

// Sessions are kept here and not in the cookie, so that signing out ends them for good.
const sessions = new Map();
const store = {
  get: (id) => sessions.get(id),
  set: (id, session) => void sessions.set(id, session),
  destroy: (id) => void sessions.delete(id),
};

const app = new Koa();
app.keys = [randomUUID()];
app.use(session({ key: "koa.sess", store, maxAge: 86_400_000, sameSite: "lax", secure: true }, app));

const page = (body) => `<!doctype html><html lang="en"><meta charset="utf-8"><title>Koa and Conclave</title>${body}</html>`;

const LOGIN = page(`<form method="post" action="/login">
  <label>Name <input name="name" required></label>
  <label>Password <input name="password" type="password" required></label>
  <button>Log in</button>
</form>`);

const CHAT = page(`<p id="state"></p>
<ol id="messages"></ol>
<form id="say"><input name="text" aria-label="Message" required><button>Say</button></form>
<form method="post" action="/logout"><button>Log out</button></form>
<script type="module">
import { connect } from "${CONCLAVE}/conclave.js";

// No token: the browser sends the session's cookie along, and Conclave asks /whoami whose it is.
const client = connect("${CONCLAVE}");
client.on("state", ({ state, reason }) => (document.getElementById("state").textContent = [state, reason].join(" ")));
const room = client.join("lobby", {
  chat: ({ from, content }) => {
    const line = Object.assign(document.createElement("li"), { textContent: from.name + ": " + content });
    document.getElementById("messages").append(line);
  },
});
document.getElementById("say").onsubmit = (event) => {
  event.preventDefault();
  room.say(event.target.text.value);
  event.target.reset();
};
</script>`);

async function form(ctx) {
  let text = "";
  for await (const chunk of ctx.req.setEncoding("utf8")) if ((text += chunk).length > 10_000) ctx.throw(413);
  return new URLSearchParams(text);
}

const routes = {
  "GET /": (ctx) => {
    ctx.type = "html";
    ctx.body = ctx.session.user ? CHAT : LOGIN;
  },

  // The login that the application had before. Here: anybody whose password is "secret".
  "POST /login": async (ctx) => {
    const said = await form(ctx);
    const name = said.get("name") ?? "";
    if (said.get("password") !== "secret" || !/^\w{1,20}$/.test(name)) return ctx.throw(401, "wrong name or password");
    ctx.session.user = { id: name.toLowerCase(), name };
    ctx.redirect("/");
  },

  // Conclave asks with the cookie that the browser sent to it. The shape is that of a token's claims, and a life.
  "GET /whoami": (ctx) => {
    const { user } = ctx.session;
    if (!user) return ctx.throw(401);
    ctx.body = { sub: user.id, name: user.name, rooms: { lobby: ["*"] }, expires_in: 3600 };
  },

  // Ends this user's sessions here, then the sockets, on all nodes: whoever comes back is nobody any more.
  "POST /logout": async (ctx) => {
    const { user } = ctx.session;
    if (!user) return ctx.throw(401);
    for (const [id, session] of sessions) if (session.user?.id === user.id) sessions.delete(id);
    ctx.session = null;
    const headers = { authorization: `Bearer ${apiKey}` };
    const kicked = await fetch(`${CONCLAVE}/api/v1/users/${encodeURIComponent(user.id)}/kick`, { method: "POST", headers });
    if (!kicked.ok) return ctx.throw(502, "signed out here; Conclave did not answer");
    ctx.redirect("/");
  },
};

// What is not there is 404, as Koa has it.
app.use((ctx) => routes[`${ctx.method} ${ctx.path}`]?.(ctx));

createServer({ cert: certificate, key }, app.callback()).listen(PORT, "localhost", () => console.log(`https://localhost:${PORT}`));

// The demo room: sign in with a name, talk in rooms. An example of conclave.js as an application would use it.
import { connect } from "./conclave.js";
import * as session from "./room-session.js";
import { $, Log, pendingLine, show, showBanner, showLatency, showPeople, showRoom, showRooms, showStatus } from "./room-view.js";
import { nameOf, wantsSignIn, whyAway, whyNot, whyStopped } from "./room-words.js";

const FIRST_ROOM = "lobby";
const PAGE_MESSAGES = 50;
const ITEMS_MAX = 2000;
const LATENCY_EVERY_MS = 10_000;

const log = new Log();
const places = new Map();
let client = null;
let current = null;
let asked = session.takeFragment();

/** One room as this tab remembers it. */
class Place {
  items = [];
  unread = 0;
  more = false;
  loading = true;
  pending = document.createElement("div");
  #generation = 0;

  constructor(name) {
    this.name = name;
    const note = (verb) => ({ user, time }) => this.add({ kind: "note", text: `${nameOf(user)} ${verb}`, time });
    this.room = client.join(name, {
      list: () => this.changed(),
      chat: (chat) => this.add({ kind: "chat", ...chat }),
      join: note("joined"),
      left: note("left"),
      count: () => this.changed(),
      reset: (reset) => this.reset(reset),
      reload: () => this.restart("Some messages may have been missed during the break."),
      removed: ({ reason }) => removed(this, reason),
    });
    this.room.ready.then(() => this.load(), () => {});
  }

  add(item) {
    this.items.push(item);
    if (this.items.length > ITEMS_MAX) {
      this.items.splice(0, ITEMS_MAX / 4);
      this.more = true;
    }
    if (this === current) log.append(this, item);
    if (item.kind === "chat" && !item.mine && (this !== current || document.hidden)) {
      this.unread += 1;
      refreshRooms();
    }
    this.changed();
  }

  changed() {
    if (this === current) refreshPeople();
  }

  get oldest() {
    return this.items.find(({ kind }) => kind === "chat")?.seq;
  }

  async load() {
    const generation = this.#generation;
    this.loading = true;
    try {
      const { messages, more } = await this.room.history({ before: this.oldest, limit: PAGE_MESSAGES });
      if (generation !== this.#generation) return;
      // What was said while the answer was on its way is here already.
      const oldest = this.oldest ?? Infinity;
      const earlier = messages.filter(({ seq }) => seq < oldest).map((chat) => ({ kind: "chat", ...chat }));
      this.items.unshift(...earlier);
      this.more = more;
    } catch (error) {
      // Without the right to read history there is none; after a break the button asks again.
      this.more = error.code === "disconnected";
    }
    this.loading = false;
    if (this === current) log.older(this);
  }

  restart(text) {
    this.#generation += 1;
    this.items = [{ kind: "note", text, time: Date.now() }];
    if (this === current) log.show(this);
    this.load();
  }

  reset({ reason, seq }) {
    if (reason !== "rewound") return this.restart("The server lost some of what was said here.");
    this.items = this.items.filter((item) => item.kind !== "chat" || item.seq <= seq);
    if (this === current) log.show(this);
    this.add({ kind: "note", text: "The server lost the last messages.", time: Date.now() });
  }
}

function refreshRooms() {
  showRooms(places, current, choose);
  const unread = [...places.values()].reduce((sum, place) => sum + place.unread, 0);
  document.title = `${unread ? `(${unread}) ` : ""}${current ? `${current.name} · ` : ""}Conclave`;
}

function refreshPeople() {
  showPeople(current?.room, client?.user);
  const alone = current?.room.joined && current.room.count === 1;
  $("hint").hidden = !alone || sessionStorage.getItem("conclave.hint") === "hidden";
}

function choose(name) {
  current = places.get(name) ?? null;
  if (current) current.unread = 0;
  showRoom(current);
  if (current) log.show(current);
  else $("messages").replaceChildren();
  refreshRooms();
  refreshPeople();
}

function enter(name) {
  if (!places.has(name)) places.set(name, new Place(name));
  session.keepRooms([...places.keys()]);
  choose(name);
}

function drop(place) {
  places.delete(place.name);
  session.keepRooms([...places.keys()]);
  if (place === current) choose(places.keys().next().value);
  refreshRooms();
}

function removed(place, reason) {
  drop(place);
  $("join-note").textContent = `${place.name}: ${whyNot(reason)}`;
}

async function say(place, text) {
  const line = pendingLine(place.pending, text, () => say(place, text));
  log.toEnd();
  try {
    await place.room.say(text);
    line.done();
  } catch (error) {
    line.failed(whyNot(error.code));
  }
}

function start() {
  const mine = connect({ token: session.token() ?? undefined });
  client = mine;
  let welcomed = false;
  mine.on("connected", ({ user }) => {
    welcomed = true;
    $("me-name").textContent = nameOf(user);
    measure();
    refreshPeople();
  });
  mine.on("state", (state) => {
    if (client !== mine) return;
    showStatus(state.state);
    if (state.state === "stopped" && !welcomed && wantsSignIn(state.reason)) refused(state);
    else banner(state, welcomed);
  });
  const rooms = new Set([...session.keptRooms(), asked.room].filter(Boolean));
  if (rooms.size === 0) rooms.add(FIRST_ROOM);
  show("chat");
  for (const name of rooms) enter(name);
  asked = {};
}

function banner(state, welcomed) {
  if (state.state === "online") return showBanner(null);
  if (state.state !== "online") showLatency(null);
  if (state.state === "reconnecting") {
    const why = welcomed ? whyAway(state.reason) : "The server cannot be reached.";
    return showBanner(`${why} Reconnecting.`, { endsMs: Date.now() + state.inMs, action: "Now" });
  }
  if (state.state === "stopped") {
    showBanner(whyStopped(state), { kind: "stopped", action: wantsSignIn(state.reason) ? "Sign in again" : "Try again" });
  }
}

/** Never let in: there is nothing to look at but the door. */
async function refused(state) {
  const withToken = session.token() !== null;
  const quiet = state.reason === "token_missing" && !withToken;
  await leave();
  await welcome(quiet ? "" : whyStopped(state));
}

async function leave() {
  const mine = client;
  client = null;
  mine?.close();
  places.clear();
  choose(undefined);
  showBanner(null);
  showStatus("none");
  showLatency(null);
  await session.signOut();
}

async function welcome(text = "", focus = false) {
  show("welcome");
  const off = (await session.look()) === "off";
  doorClosed(off);
  $("sign-in-note").textContent = [text, off && session.OFF].filter(Boolean).join(" ");
  if (focus && !off) $("name").focus();
}

function doorClosed(closed) {
  for (const id of ["name", "sign-in"]) $(id).disabled = closed;
}

async function measure() {
  if (document.hidden || client?.state.state !== "online") return;
  try {
    showLatency(await client.ping());
  } catch {
    showLatency(null);
  }
}

$("sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  if (!name) return;
  doorClosed(true);
  const problem = await session.signIn(name);
  doorClosed(problem === session.OFF);
  $("sign-in-note").textContent = problem ?? "";
  if (problem) return;
  start();
  $("message").focus();
});

$("sign-out").addEventListener("click", async () => {
  await leave();
  await welcome("", true);
});

$("join-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("room-name").value.trim().normalize("NFC");
  if (!name) return;
  $("join-note").textContent = "";
  $("room-name").value = "";
  enter(name);
  $("message").focus();
});

$("leave-room").addEventListener("click", () => {
  current.room.leave();
  drop(current);
  $("room-title").focus();
});

$("say-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("message").value.trim();
  if (!text || !current) return;
  $("message").value = "";
  say(current, text);
  $("message").focus();
});

$("message").addEventListener("keydown", (event) => {
  // While an input method composes, Enter accepts its suggestion.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("say-form").requestSubmit();
});

$("banner-action").addEventListener("click", async () => {
  if (client.state.state === "stopped" && wantsSignIn(client.state.reason)) {
    await leave();
    await welcome("", true);
  } else client.reconnect();
});

$("older").addEventListener("click", () => current?.load());
$("newest").addEventListener("click", () => log.toEnd());
$("log").addEventListener("scroll", () => log.scrolled(), { passive: true });

$("hint-close").addEventListener("click", () => {
  sessionStorage.setItem("conclave.hint", "hidden");
  $("hint").hidden = true;
  $("message").focus();
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden || !current) return;
  current.unread = 0;
  refreshRooms();
  measure();
});

// A new address with a token, pasted over this one, does not load the page by itself.
addEventListener("hashchange", () => {
  const { token, room } = session.takeFragment();
  if (token) {
    session.keepRooms([...places.keys(), ...(room ? [room] : [])]);
    location.reload();
  } else if (room && client) enter(room);
});

setInterval(measure, LATENCY_EVERY_MS);
// There is no room for a list beside the conversation.
if (matchMedia("(max-width: 60rem)").matches) $("people").open = false;
if (session.token()) $("second-tab").replaceWith("Open the address with its token in a second tab");

// A cookie that the application set counts too, so where nobody signs in by name it is worth a try.
const found = session.token() ? "in" : await session.look();
if (found === "in" || found === "off") start();
else await welcome(found === "unknown" ? "The server cannot be reached." : "", true);

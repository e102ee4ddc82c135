// What is on the screen. Knows no connection; whatever people wrote reaches the page as text only.
import { clockOf, dayOf, nameOf, people, textOf, wholeTimeOf } from "./room-words.js";

export const $ = (id) => document.getElementById(id);

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

export function show(where) {
  for (const id of ["welcome", "chat"]) $(id).hidden = id !== where;
  for (const id of ["me", "skip"]) $(id).hidden = where !== "chat";
}

/** A colour of eight, the same for a user on every screen. */
function toneOf(id = "") {
  let sum = 0;
  for (const letter of id) sum = (sum * 31 + letter.codePointAt(0)) % 8191;
  return `tone-${sum % 8}`;
}

function avatar(user) {
  const initial = [...nameOf(user)][0] ?? "?";
  const circle = make("span", `avatar ${toneOf(user?.id)}`, initial.toUpperCase());
  circle.setAttribute("aria-hidden", "true");
  return circle;
}

function time(ms) {
  const element = make("time", "", clockOf(ms));
  element.dateTime = new Date(ms).toISOString();
  element.title = wholeTimeOf(ms);
  return element;
}

function message(item, follows) {
  const you = item.mine ? [make("span", "you", "you")] : [];
  const head = make("p", follows ? "meta hidden" : "meta", make("b", "who", nameOf(item.from)), ...you, " ", time(item.time));
  const classes = ["message", item.mine && "mine", follows && "follows"].filter(Boolean).join(" ");
  const text = make("p", "text", textOf(item.content));
  // Whose words they are decides their direction, not the page.
  text.dir = "auto";
  const line = make("div", classes, avatar(item.from), make("div", "body", head, text));
  line.dataset.seq = item.seq;
  return line;
}

const note = (item) => make("p", "event", `${item.text} `, time(item.time));

/** The conversation: a scrolling list that stays at its end unless somebody reads further up. */
export class Log {
  #last = null;
  #stays = true;
  #end = 0;

  constructor() {
    // A banner, a keyboard on the screen, or a longer text must not push the newest message out of sight.
    const observer = new ResizeObserver(() => { if (this.#stays) this.toEnd(); });
    for (const id of ["log", "messages", "pending"]) observer.observe($(id));
  }

  show(place) {
    // A screen reader is told what is new, not everything that was there before.
    this.#quietly(() => {
      this.#last = null;
      $("messages").replaceChildren();
      for (const item of place.items) this.#add(item);
    });
    $("pending").replaceChildren(place.pending);
    this.#around(place);
    this.toEnd();
  }

  append(place, item) {
    const atEnd = this.#atEnd();
    this.#add(item);
    this.#around(place);
    if (atEnd || item.mine) this.toEnd();
    else if (item.kind === "chat") $("newest").hidden = false;
  }

  /** Everything again, without moving what is being read. */
  older(place) {
    const log = $("log");
    const fromEnd = log.scrollHeight - log.scrollTop;
    this.show(place);
    log.scrollTop = log.scrollHeight - fromEnd;
    this.scrolled();
  }

  toEnd() {
    this.#stays = true;
    $("log").scrollTop = $("log").scrollHeight;
    this.#end = $("log").scrollTop;
    $("newest").hidden = true;
  }

  scrolled() {
    // The event comes late: the log may have shrunk since it was moved to its end, and nobody has scrolled up.
    this.#stays = this.#atEnd() || (this.#stays && $("log").scrollTop >= this.#end);
    if (this.#stays) $("newest").hidden = true;
  }

  #around(place) {
    $("older").hidden = !place.more;
    $("log-empty").hidden = place.loading || place.items.some(({ kind }) => kind === "chat");
  }

  #atEnd() {
    const { scrollHeight, scrollTop, clientHeight } = $("log");
    return scrollHeight - scrollTop - clientHeight < 60;
  }

  #quietly(change) {
    const messages = $("messages");
    messages.setAttribute("aria-live", "off");
    change();
    setTimeout(() => messages.setAttribute("aria-live", "polite"), 200);
  }

  #add(item) {
    const last = this.#last;
    const today = dayOf(item.time);
    if (last ? dayOf(last.time) !== today : today !== dayOf(Date.now())) $("messages").append(make("p", "day", today));
    const follows = item.kind === "chat" && last?.kind === "chat" && last.from?.id === item.from?.id
      && item.time - last.time < 300_000 && dayOf(last.time) === today;
    $("messages").append(item.kind === "chat" ? message(item, follows) : note(item));
    this.#last = item;
  }
}

/** Something said that the server has not acknowledged. Most never become visible. */
export function pendingLine(box, content, again) {
  const state = make("span", "", "Sending …");
  const line = make("p", "waiting", make("span", "text", content), state);
  const timer = setTimeout(() => box.append(line), 400);
  const done = () => {
    clearTimeout(timer);
    line.remove();
  };
  const failed = (why) => {
    clearTimeout(timer);
    const retry = make("button", "quiet", "Send again");
    const drop = make("button", "quiet", "Discard");
    retry.type = drop.type = "button";
    retry.addEventListener("click", () => { done(); again(); });
    drop.addEventListener("click", done);
    line.classList.add("failed");
    state.replaceChildren(why, " ", retry, drop);
    box.append(line);
  };
  return { done, failed };
}

/** One entry per room, changed in place so that the keyboard's focus stays where it is. */
export function showRooms(places, current, choose) {
  const list = $("rooms");
  const shown = new Map([...list.children].map((entry) => [entry.dataset.room, entry]));
  for (const [name, entry] of shown) if (!places.has(name)) entry.remove();
  for (const place of places.values()) {
    const entry = shown.get(place.name) ?? roomEntry(place.name, choose);
    if (!entry.isConnected) list.append(entry);
    const [button] = entry.children;
    if (place === current) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    const unread = place.unread ? [make("span", "badge", String(place.unread), make("span", "hidden", " unread"))] : [];
    button.replaceChildren(make("span", "room-label", place.name), ...unread);
  }
}

function roomEntry(name, choose) {
  const button = make("button", "room-button");
  button.type = "button";
  button.addEventListener("click", () => choose(name));
  const entry = make("li", "", button);
  entry.dataset.room = name;
  return entry;
}

export function showPeople(room, me) {
  const users = room ? [...room.users.values()] : [];
  const rank = (user) => (user.id === me?.id ? 0 : 1);
  users.sort((a, b) => rank(a) - rank(b) || nameOf(a).localeCompare(nameOf(b)));
  const entries = users.map((user) => {
    const you = user.id === me?.id ? [make("span", "you", "you")] : [];
    return make("li", "", avatar(user), make("span", "user-name", nameOf(user)), ...you);
  });
  const hidden = (room?.count ?? 0) - users.length;
  if (hidden > 0) entries.push(make("li", "others", `and ${people(hidden)} more`));
  $("users").replaceChildren(...entries);
  $("people-count").textContent = room ? String(room.count) : "";
  $("room-count").textContent = room?.joined ? `${people(room.count)} here` : "";
}

export function showRoom(place) {
  $("room-title").textContent = place ? place.name : "No room";
  $("leave-room").hidden = !place;
  for (const id of ["message", "send"]) $(id).disabled = !place;
}

/** Without a text there is no banner. `endsMs` counts down beside it. */
export function showBanner(text, { endsMs = null, action = null, kind = "" } = {}) {
  $("banner").hidden = !text;
  $("banner").dataset.kind = kind;
  // Unchanged text is not set again, or it would be read out again.
  if ($("banner-text").textContent !== (text ?? "")) $("banner-text").textContent = text ?? "";
  $("banner-action").hidden = !action;
  if (action) $("banner-action").textContent = action;
  countDown(endsMs);
}

let ticking;

function countDown(endsMs) {
  clearInterval(ticking);
  const tick = () => {
    const seconds = Math.ceil((endsMs - Date.now()) / 1000);
    $("countdown").textContent = endsMs === null || seconds <= 0 ? "" : `Next try in ${seconds} s.`;
  };
  tick();
  if (endsMs !== null) ticking = setInterval(tick, 250);
}

export function showStatus(state) {
  const words = { connecting: "Connecting …", online: "Connected", reconnecting: "Reconnecting …", stopped: "Disconnected", none: "Not connected" };
  $("status").dataset.state = state;
  $("status").textContent = words[state];
}

export function showLatency(ms) {
  $("latency").hidden = ms === null;
  $("latency").textContent = ms === null ? "" : `${Math.round(ms)} ms`;
}

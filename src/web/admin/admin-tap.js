// A live tap: begun, fetched again and again, ended. The node ends it too, when its time is over or nobody fetches.
import { ask } from "./admin-ask.js";
import { $, count, make } from "./admin-view.js";

/** Lines that stay on the screen. */
const SHOWN = 500;

const WAYS = { in: "→ said by", out: "← told to", room: "⇉ to the room", end: "✕ ended" };
const KNOWN = new Set(["time", "way", "type", "user", "room", "bytes", "content", "session"]);

let tap = null;

function more(line) {
  const rest = Object.entries(line).filter(([key, value]) => !KNOWN.has(key) && value !== null);
  const words = rest.map(([key, value]) => `${key} ${value}`);
  if (line.session) words.push(line.session.slice(0, 10));
  return line.content ? `${line.content} (${words.join(", ")})` : words.join(", ");
}

function row(line, of) {
  const time = make("td", "time", new Date(line.time).toISOString().slice(11, 23));
  const user = line.user ?? (of.user && line.way !== "room" ? of.user : "");
  const texts = [WAYS[line.way] ?? line.way, line.type, user, line.room ?? of.room ?? ""];
  const cells = texts.map((text) => make("td", "name", String(text)));
  cells[0].className = cells[1].className = "time";
  const words = make("td", "name", more(line));
  words.dir = "auto";
  return make("tr", "", time, ...cells, make("td", "number", line.bytes === undefined ? "" : count(line.bytes)), words);
}

function show(piece, of) {
  const scroll = $("tap-scroll");
  const stays = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 40;
  const body = $("tap-lines");
  body.append(...piece.lines.map((line) => row(line, of)));
  while (body.rows.length > SHOWN) body.deleteRow(0);
  if (stays) scroll.scrollTop = scroll.scrollHeight;
}

function say(text) {
  if ($("tap-said").textContent !== text) $("tap-said").textContent = text;
}

function isOn(on) {
  $("tap-start").hidden = on;
  $("tap-stop").hidden = !on;
  for (const id of ["tap-of", "tap-name"]) $(id).disabled = on;
}

async function follow(mine) {
  const named = mine.of.room === undefined ? `user ${mine.of.user}` : `room ${mine.of.room}`;
  while (tap === mine) {
    const piece = await ask(`/api/tap/${mine.id}`);
    if (tap !== mine) return;
    mine.left += piece.left_out;
    mine.lines += piece.lines.length;
    show(piece, mine.of);
    const left = mine.left ? `, ${count(mine.left)} left out (over ${mine.perSecond} a second)` : "";
    const empty = mine.isHere === false && !mine.lines ? " This node has no such room now." : "";
    say(`Looking at ${named}: ${count(mine.lines)} lines${left}.${empty}`);
  }
}

export async function start(of) {
  await stop();
  $("tap-lines").replaceChildren();
  $("tap-scroll").hidden = false;
  isOn(true);
  try {
    const begun = await ask("/api/tap", { method: "POST", body: of });
    tap = { id: begun.id, of, perSecond: begun.lines_per_second, isHere: begun.is_here, lines: 0, left: 0 };
    $("tap-hint").textContent = begun.content ? "what passes on this node, shortened" : "what was said stays hidden (admin.tap_content)";
    await follow(tap);
  } catch (error) {
    say(error.status === 404 ? "The tap has ended." : `The tap has ended: ${error.message}`);
    tap = null;
    isOn(false);
  }
}

export async function stop() {
  const mine = tap;
  tap = null;
  isOn(false);
  if (!mine) return;
  say(`Ended after ${count(mine.lines)} lines${mine.left ? `, ${count(mine.left)} left out` : ""}.`);
  // A tap that is gone already need not be ended.
  await ask(`/api/tap/${mine.id}`, { method: "DELETE" }).catch(() => {});
}

export function wireTap() {
  $("tap-form").addEventListener("submit", (event) => {
    event.preventDefault();
    start({ [$("tap-of").value]: $("tap-name").value });
  });
  $("tap-stop").addEventListener("click", () => {
    stop();
    $("tap-start").focus();
  });
  for (const id of ["large", "busy"]) {
    $(id).addEventListener("click", (event) => {
      const room = event.target.closest("button")?.dataset.room;
      if (room === undefined) return;
      $("tap-of").value = "room";
      $("tap-name").value = room;
      $("tap-form").scrollIntoView({ block: "center" });
      start({ room });
    });
  }
}

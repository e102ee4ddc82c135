// What is on the screen. Whatever came from clients (names of rooms, ids of users) reaches the page as text only.
import { Line } from "./admin-rates.js";

export const $ = (id) => document.getElementById(id);

export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

const cell = (content, className = "") => make("td", className, content);

/** 1234 → "1,234", 0.25 → "0.25", 1.2e6 → "1.2M": at most four digits that say something. */
export function count(value) {
  if (value >= 1e6) return `${(value / 1e6).toFixed(value < 1e7 ? 2 : 1)}M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(value < 1e5 ? 1 : 0)}k`;
  if (value >= 100 || Number.isInteger(value)) return Math.round(value).toLocaleString("en");
  return value.toFixed(value < 1 ? 2 : 1);
}

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

export function duration(seconds) {
  if (seconds < 0.001) return seconds > 0 ? `${Math.round(seconds * 1e6)} µs` : "0 s";
  if (seconds < 1) return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  if (seconds < 120) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} days`;
}

const percent = (part, whole) => (whole > 0 ? `${((100 * part) / whole).toFixed(part / whole < 0.1 ? 1 : 0)} %` : "");

/** Title, what is read of an answer, how it is shown, and what stands below; `rate`: of a counter, and its unit. */
const TILES = [
  { id: "connections", title: "Connections", read: (a) => a.now.connections, show: count, note: (a) => (a.now.connections_max ? `${percent(a.now.connections, a.now.connections_max)} of ${count(a.now.connections_max)}` : "no limit") },
  { id: "opened", title: "Opened", rate: "/s", read: (a) => a.total.opened, show: count, note: (a) => `${count(a.total.opened)} since the start` },
  { id: "chats", title: "Chats", rate: "/s", read: (a) => a.total.chats, show: count, note: (a) => `${count(a.now.rooms)} rooms` },
  { id: "in", title: "Messages in", rate: "/s", read: (a) => a.total.messages_in, show: count, note: (a, past) => `${bytes(past.rates((b) => b.total.bytes_in).at(-1) ?? 0)}/s` },
  { id: "out", title: "Messages out", rate: "/s", read: (a) => a.total.messages_out, show: count, note: (a, past) => `${bytes(past.rates((b) => b.total.bytes_out).at(-1) ?? 0)}/s` },
  { id: "queue", title: "Waiting for readers", read: (a) => a.now.send_queue_bytes, show: bytes, note: (a) => `${count(a.total.slow_readers)} slow readers closed` },
  { id: "failed", title: "Failed handshakes", rate: "/s", read: (a) => a.total.handshakes_failed, show: count, note: (a) => `of ${count(a.total.handshakes)} handshakes` },
  { id: "refused-tokens", title: "Tokens refused", rate: "/s", read: (a) => a.total.tokens_refused, show: count, note: (a) => `${count(a.total.tokens_refused)} since the start` },
  { id: "cpu", title: "CPU", rate: " cores", read: (a) => a.total.cpu_seconds, show: (value) => value.toFixed(2), note: (a) => `${count(a.now.files)} files open` },
  { id: "memory", title: "Memory", read: (a) => a.now.memory_bytes, show: bytes, note: (a) => `history ${bytes(a.now.history_bytes)}` },
];

const tiles = new Map();

function tile({ id, title }) {
  const shown = { value: make("output"), line: new Line(), note: make("div", "note") };
  const figure = make("figure", "tile", make("figcaption", "", title), shown.value, shown.line.element, shown.note);
  figure.id = `tile-${id}`;
  $("tiles").append(figure);
  tiles.set(id, shown);
  return shown;
}

export function showTiles(answer, past) {
  for (const wanted of TILES) {
    const shown = tiles.get(wanted.id) ?? tile(wanted);
    const values = wanted.rate ? past.rates(wanted.read) : past.values(wanted.read);
    shown.value.replaceChildren(values.length ? wanted.show(values.at(-1)) : "…");
    if (wanted.rate && values.length) shown.value.append(make("small", "", wanted.rate));
    shown.note.textContent = wanted.note(answer, past) || "\u00a0";
    shown.line.draw(values);
  }
}

export function stateOf(node) {
  if (node.is_draining) return ["draining", "draining"];
  return node.is_ready ? ["ready", "ready"] : ["away", "not ready"];
}

export function showNode({ node }) {
  const [state, word] = stateOf(node);
  $("state").dataset.state = state;
  const why = node.is_draining ? `${node.draining_clients} clients left to tell (${node.drain_phase})` : node.reasons.join(", ");
  const text = why ? `${word}: ${why}` : word;
  // Told anew only when it changed: a screen reader says each change.
  if ($("state").textContent !== text) $("state").textContent = text;
  $("node-name").textContent = node.name;
  document.title = `${node.name} · Conclave`;
  $("version").textContent = `${node.version} (${node.revision}), ${node.rustc}, up ${duration((Date.now() - node.started_ms) / 1000)}`;
}

/** Rows for `items`; the table keeps its rows, so that a button under the pointer or with the focus stays. */
function rows(body, items, cellsOf, empty) {
  const wanted = items.length ? items.map(cellsOf) : [[Object.assign(cell(empty, "empty"), { colSpan: 9 })]];
  wanted.forEach((cells, at) => {
    const row = body.rows[at] ?? body.appendChild(make("tr"));
    const same = row.cells.length === cells.length && cells.every((cell, at) => row.cells[at].isEqualNode(cell));
    if (!same) row.replaceChildren(...cells);
  });
  while (body.rows.length > wanted.length) body.deleteRow(-1);
}

function full(node) {
  if (!node.connections_max) return "";
  const meter = make("meter");
  Object.assign(meter, { max: node.connections_max, value: node.connections, high: node.connections_max * 0.8 });
  meter.setAttribute("aria-label", `${node.connections} of ${node.connections_max}`);
  return make("span", "", meter, ` ${percent(node.connections, node.connections_max)}`);
}

export function showNodes({ nodes }) {
  rows($("nodes"), nodes, (node, at) => {
    const [state, word] = stateOf(node);
    const shown = cell(word, "state");
    shown.dataset.state = state;
    const name = make("span", "", node.name, at === 0 ? make("small", "", " this one") : "");
    return [cell(name, "name"), shown, cell(count(node.connections), "number"), cell(full(node)),
      cell(node.accepts_per_second ? count(node.accepts_per_second) : "", "number"), cell(node.version)];
  });
}

const look = (room) => {
  const button = make("button", "quiet", "Look");
  button.dataset.room = room;
  button.setAttribute("aria-label", `Look at room ${room}`);
  return cell(button, "act");
};

export function showRooms({ top }) {
  rows($("large"), top.by_members, (room) => [
    cell(room.room, "name"), cell(count(room.members), "number"), cell(count(room.users), "number"), look(room.room),
  ], "Nobody is in a room on this node.");
  rows($("busy"), top.by_rate, (room) => [
    cell(room.room, "name"), cell(count(room.chats_per_second), "number"), cell(count(room.members), "number"), look(room.room),
  ], "Nothing was said in the last moments.");
}

export function showEnds(answer, past) {
  const closeCount = (close) => (a) => a.closes.find((c) => c.code === close.code && c.reason === close.reason && c.initiator === close.initiator)?.count ?? 0;
  rows($("closes"), answer.closes, (close) => [
    cell(close.code === "other" ? "other" : close.code, "code"), cell(close.reason), cell(close.initiator), cell(count(close.count), "number"),
    cell(count(past.lastMinute(closeCount(close))), "number"),
  ], "No socket has ended yet.");
  const refusedCount = (refused) => (a) => a.refused.find((r) => r.what === refused.what && r.why === refused.why)?.count ?? 0;
  rows($("refused"), answer.refused, (refused) => [
    cell(refused.what), cell(refused.why), cell(count(refused.count), "number"), cell(count(past.lastMinute(refusedCount(refused))), "number"),
  ], "Nothing was refused.");
}

/** Words and what they stand for; a fact may have a state, which has a sign. */
export function facts(list, items) {
  const wanted = items.filter(Boolean).flatMap(([term, text, state]) => {
    const value = make("dd", "", text);
    if (state) value.dataset.state = state;
    return [make("dt", "", term), value];
  });
  list.replaceChildren(...wanted);
}

export function showBackplane(answer, past) {
  const { backplane } = answer;
  if (backplane.is_up === null) {
    facts($("backplane"), [["Kind", "memory: this node is alone"], ["Chats are kept", backplane.kept]]);
    return;
  }
  const [lag, lags] = [past.lastMinute((a) => a.backplane.lag_seconds_sum), past.lastMinute((a) => a.backplane.lag_count)];
  const down = backplane.links.filter((link) => !link.is_up).map((link) => link.link);
  facts($("backplane"), [
    ["Kind", backplane.kind],
    ["Reached", backplane.is_up ? "yes" : "no: chats are answered unavailable", backplane.is_up ? "good" : "bad"],
    ["Links down", down.length ? down.join(", ") : "none", down.length ? "warn" : undefined],
    ["Chats are kept", backplane.kept],
    ["Way there and back", lags ? `${duration(lag / lags)} on average in the last minute` : "not measured yet"],
    ["Quietest peer heard", `${duration(backplane.peer_age_seconds)} ago`],
    ["Revocations known as of", `${duration(backplane.revocation_staleness_seconds)} ago`, backplane.revocation_staleness_seconds > 30 ? "warn" : undefined],
    ["Waiting for it", `${count(backplane.queue_messages)} chats, ${bytes(backplane.queue_bytes)}`],
  ]);
}

export function showCertificate({ certificate, now, time_ms: time }) {
  const left = certificate.expires - time / 1000;
  const state = left < 3 * 86_400 ? "bad" : left < 14 * 86_400 ? "warn" : "good";
  facts($("certificate"), [
    certificate.expires
      ? ["Certificate", left > 0 ? `${duration(left)} left (${new Date(certificate.expires * 1000).toISOString().slice(0, 10)})` : "expired", state]
      : ["Certificate", "none is served here"],
    certificate.reloads_failed ? ["Failed reloads", count(certificate.reloads_failed), "warn"] : null,
    ["Files", `${count(now.files)} open of ${count(now.files_max)}`, now.files > now.files_max * 0.8 ? "warn" : undefined],
    ["Rooms", `${count(now.rooms)}, with ${count(now.members)} members`],
    ["History", `${count(now.history_messages)} chats, ${bytes(now.history_bytes)}`],
    ["Taps open", count(now.taps)],
  ]);
}

export function showConfig(settings, filter) {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = settings.filter(({ key, value, source }) => {
    const text = `${key} ${value} ${source}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  rows($("config"), wanted, ({ key, value, source }) => [cell(key, "code"), cell(value, "code"), cell(source)],
    settings.length ? "No key is like that." : "This node was started without a configuration file.");
}

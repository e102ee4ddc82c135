// The JavaScript client of Conclave: one module, no dependency, no build step.
//
//   import { connect } from "https://realtime.example.com/conclave.js";
//
//   const client = connect("https://realtime.example.com", { getToken: () => fetchToken() });
//   const room = client.join("lobby", { chat: (message) => show(message.from.name, message.content) });
//   await room.say("hello");
//
// It comes back by itself after a break, without a hole and without a duplicate, says again what was not
// acknowledged, and stops when the server says that coming back is of no use. The words are those of the
// wire protocol; conclave.d.ts has the types.

const SUBPROTOCOL = "conclave.v1";
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 30_000;
/** A wait that the server asks for is believed up to here. */
const RECONNECT_AFTER_MAX_MS = 600_000;
/** From the attempt to the `connected` frame. A network that swallows packets never ends an attempt by itself. */
const CONNECT_DEADLINE_MS = 15_000;
const PONG_DEADLINE_MS = 10_000;
/** A connection that lives this long starts the backoff anew; one that is closed at once must not. */
const STABLE_MS = 5_000;
/** What was said and not acknowledged yet, in all rooms together. */
const SAYS_MAX = 100;
/** The server remembers a `key` for 120 s. A retry after that could be a second message, so it is not made. */
const KEY_TRUSTED_MS = 90_000;
const RETRY_MS = 1_000;
/** How long a call waits for its reply: longer than a server that was not told otherwise. */
const CALL_TIMEOUT_MS = 35_000;
const REFRESH_AHEAD_MS = 60_000;
const REFRESH_PAUSE_MS = 10_000;
/** Longer timeouts overflow in every engine and fire at once. */
const TIMEOUT_MAX_MS = 2 ** 31 - 1;

/** Closes that blame the client: coming back would repeat the mistake. */
const MISTAKES = new Set([1002, 1003, 1007, 1009]);
const TRY_AGAIN = new Set(["unavailable", "rate_limited"]);

/**
 * Connects and stays connected. `url` is the server's address (its `/ws` is implied); in a browser the page's own
 * host when left out. Without `token` and `getToken` the browser's cookie says who this is. With `ticket` the token never
 * stands in an address: each connection gets a single-use ticket for it first.
 */
export function connect(url, options) {
  const named = typeof url === "string" || url instanceof URL;
  return new Conclave(named ? url : undefined, (named ? options : (url ?? options)) ?? {});
}

/** Full jitter: anything between nothing and the doubled, capped wait, so that clients do not return in step. */
export function backoffMs(attempt, random = Math.random) {
  return random() * Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** attempt);
}

/** Why a promise of this module was rejected. `code` is the protocol's, or one of the client's own: see conclave.d.ts. */
export class ConclaveError extends Error {
  constructor(code, message, { reason, retryAfterMs } = {}) {
    super(message || code);
    this.name = "ConclaveError";
    this.code = code;
    this.reason = reason;
    this.retryAfterMs = retryAfterMs;
  }
}

/** An EventTarget whose `on` hands over the detail alone, and returns the way to stop listening. */
class Emitter extends EventTarget {
  on(type, handler) {
    const listener = (event) => handler(event.detail);
    this.addEventListener(type, listener);
    return () => this.removeEventListener(type, listener);
  }
}

function emit(target, type, detail) {
  target.dispatchEvent(new CustomEvent(type, { detail }));
}

/** The connection: events `connected`, `state`, `message`, `error`; rooms by `join`. */
export class Conclave extends Emitter {
  #options;
  #link;
  #says;
  #timers = new Timers();
  #seats = new Map();
  #asked = new Map();
  #refs = 0;
  #connected = null;
  #state = { state: "connecting" };
  #latencyMs = null;
  #clockAheadMs = 0;

  constructor(url, options = {}) {
    super();
    this.#options = options;
    this.#says = new Says((text) => this.#link.sendText(text), () => this.limits);
    this.#link = new Link(address(url), options, {
      returns: () => [...this.#seats.values()].some((seat) => seat.position),
      connected: (frame) => this.#welcomed(frame),
      frame: (frame) => this.#receive(frame),
      lost: () => this.#lost(),
      state: (state) => this.#moved(state),
    });
    // Not before the caller had its turn to listen.
    queueMicrotask(() => { if (this.#state.state === "connecting") this.#link.open(); });
  }

  /** `connecting`, `online`, `reconnecting` or `stopped`, with the same detail as the `state` event. */
  get state() { return this.#state; }
  get user() { return this.#connected?.user ?? null; }
  get session() { return this.#connected?.session ?? null; }
  get limits() { return this.#connected?.limits ?? null; }
  /** The last measured way there and back, null before the first. */
  get latencyMs() { return this.#latencyMs; }
  get rooms() { return [...this.#seats.values()].map((seat) => seat.room); }

  /** Enters a room, now or as soon as there is a connection. The same room twice is the same object. */
  join(name, handlers = {}) {
    const room = String(name).normalize("NFC");
    let seat = this.#seats.get(room);
    const fresh = !seat;
    if (fresh) {
      seat = new Seat(room, this.#wire());
      this.#seats.set(room, seat);
    }
    for (const [type, handler] of Object.entries(handlers)) seat.room.on(type, handler);
    if (fresh && this.#connected) seat.enter();
    return seat.room;
  }

  /** Measures the way there and back, in milliseconds. */
  async ping() {
    const sentMs = Date.now();
    const pong = await this.#request({ type: "ping" });
    this.#latencyMs = Date.now() - sentMs;
    if (Number.isFinite(pong.time)) this.#clockAheadMs = pong.time - (sentMs + this.#latencyMs / 2);
    return this.#latencyMs;
  }

  /** Replaces the token of this connection, and of the next ones where there is no `getToken`. */
  async auth(token) {
    const ok = await this.#request({ type: "auth", token });
    this.#link.token = token;
    this.#armRefresh(ok.expires);
    return { expires: ok.expires };
  }

  /**
   * Has the application do something, and gives back the data that it replies. Never made twice by itself: rejected
   * with `disconnected` or `timeout` it may have been done or not.
   */
  call(name, data = null, { timeout = CALL_TIMEOUT_MS } = {}) {
    return new Promise((resolve, reject) => {
      let timer = null;
      const settled = (settle) => (value) => {
        clearTimeout(timer);
        settle(value);
      };
      const replied = settled((frame) => resolve(frame.data));
      const ref = this.#ask({ type: "call", name, data }, replied, settled(reject));
      if (ref === null) return;
      timer = setTimeout(() => {
        this.#asked.delete(ref);
        reject(new ConclaveError("timeout", "the application did not reply in time"));
      }, Math.min(timeout, TIMEOUT_MAX_MS));
    });
  }

  /** Tries now instead of waiting; also brings a stopped client back, for instance after a new sign-in. */
  reconnect() {
    if (["reconnecting", "stopped"].includes(this.#state.state)) this.#link.open();
  }

  /** Ends it. The rooms are left, what was not acknowledged is rejected. */
  close() {
    this.#link.stop({ code: 1000, reason: "closed" });
  }

  #welcomed(frame) {
    this.#connected = frame;
    // Before anybody hears of it: what a listener joins enters by itself.
    for (const seat of this.#seats.values()) seat.enter();
    this.#moved({ state: "online" });
    emit(this, "connected", frame);
    this.#armRefresh(frame.expires);
    // The server's clock decides about expiry, and a wrong local one must not be noticed only then.
    this.ping().then(() => this.#armRefresh(frame.expires), () => {});
  }

  #receive(frame) {
    const asked = this.#asked.get(frame.ref);
    if (asked) {
      this.#asked.delete(frame.ref);
      if (frame.type === "error") asked.failed(errorOf(frame));
      else asked.answered(frame);
    } else if (frame.ref !== undefined && this.#says.settle(frame)) {
      // An acknowledgement, or an error about something said: the promise of `say` carries it.
    } else if (frame.type === "message") emit(this, "message", frame);
    else if (frame.type === "error") emit(this, "error", errorOf(frame));
    else this.#seats.get(frame.room)?.receive(frame);
  }

  #lost() {
    this.#connected = null;
    this.#timers.clear();
    for (const seat of this.#seats.values()) seat.interrupted();
    this.#says.interrupted();
    const asked = [...this.#asked.values()];
    this.#asked.clear();
    for (const { failed } of asked) failed(new ConclaveError("disconnected", "the connection was lost before the answer came"));
  }

  #moved(state) {
    this.#state = state;
    if (state.state === "stopped") {
      const error = new ConclaveError("stopped", `the client stopped: ${state.reason}`, { reason: state.reason });
      this.#says.reject(() => true, error);
      for (const seat of this.#seats.values()) seat.stopped(error);
    }
    emit(this, "state", state);
  }

  #wire() {
    return {
      ask: (frame, answered, failed) => this.#ask(frame, answered, failed),
      request: (frame) => this.#request(frame),
      say: (seat, content) => this.#say(seat, content),
      flush: () => this.#says.flush(),
      user: () => this.user,
      limits: () => this.limits,
      forget: (seat, error) => {
        this.#seats.delete(seat.name);
        this.#says.reject((say) => say.seat === seat, error);
      },
    };
  }

  #say(seat, content) {
    if (this.#state.state === "stopped") return Promise.reject(new ConclaveError("stopped", "the client has stopped", { reason: this.#state.reason }));
    return this.#says.say(++this.#refs, seat, content);
  }

  // With callbacks, not promises: a replay may follow its `list` in the same turn, before any promise could run.
  #ask(frame, answered, failed) {
    const ref = ++this.#refs;
    if (!this.#link.send({ ...frame, ref })) {
      failed(new ConclaveError("disconnected", "there is no connection"));
      return null;
    }
    this.#asked.set(ref, { answered, failed });
    return ref;
  }

  #request(frame) {
    return new Promise((resolve, reject) => this.#ask(frame, resolve, reject));
  }

  #armRefresh(expires) {
    if (!this.#options.getToken || !Number.isFinite(expires) || !this.#connected) return;
    const leftMs = expires * 1000 - (Date.now() + this.#clockAheadMs);
    const inMs = Math.max(REFRESH_PAUSE_MS / 2, leftMs - Math.min(REFRESH_AHEAD_MS, leftMs / 4));
    this.#timers.set("refresh", inMs, () => this.#refresh());
  }

  async #refresh() {
    const connected = this.#connected;
    try {
      const token = await this.#options.getToken({ reason: "refresh" });
      if (this.#connected === connected) await this.auth(token);
    } catch (error) {
      if (this.#connected !== connected) return;
      emit(this, "error", error);
      // A refused token stays refused; the old one ends by itself, and a new connection asks for another.
      if (error?.code !== "forbidden") this.#timers.set("refresh", REFRESH_PAUSE_MS, () => this.#refresh());
    }
  }
}

/** A room one is in, or wants to be in. Events: `list`, `chat`, `join`, `left`, `count`, `reset`, `reload`, `removed`. */
export class Room extends Emitter {
  #seat;

  constructor(seat) {
    super();
    this.#seat = seat;
  }

  get name() { return this.#seat.name; }
  /** Who is here, by id. In a big room only those whom the server showed; `count` is always exact. */
  get users() { return this.#seat.users; }
  get count() { return this.#seat.count; }
  get joined() { return this.#seat.joined; }
  /** Where one stands: the epoch and seq of one frame, null before the first `list`. */
  get position() { return this.#seat.position; }
  /** Kept when the room was entered for the first time; rejected when it is refused. */
  get ready() { return this.#seat.ready; }

  /**
   * Says something to everyone in the room, oneself included. Kept once the server has taken it, also over a
   * break in between: the same key makes the retry harmless.
   */
  async say(content) { return this.#seat.say(content); }

  /** Earlier messages, by default the newest ones. Rejected with `disconnected` if the connection goes meanwhile. */
  history(options = {}) { return this.#seat.history(options); }

  /** Asks who is here, and refreshes `users`. */
  list() { return this.#seat.list(); }

  leave() { this.#seat.leave(); }
}

/** What the client knows about one room, and what happens to it. */
class Seat {
  users = new Map();
  count = 0;
  joined = false;
  gone = false;
  position = null;
  #wire;
  #timers = new Timers();
  #settle;
  #listing = false;
  /** The `list` in front of a replay: where that ends. */
  #replay = null;

  constructor(name, wire) {
    this.name = name;
    this.#wire = wire;
    this.room = new Room(this);
    this.#await();
  }

  #await() {
    this.ready = new Promise((resolve, reject) => { this.#settle = { resolve, reject }; });
    // Nobody has to look at it: the `removed` event says the same.
    this.ready.catch(() => {});
  }

  /** Once per connection. */
  enter() {
    const since = this.position;
    this.#wire.ask(
      { type: "join", room: this.name, ...(since && { since }) },
      (list) => this.#entered(list, since),
      (error) => this.#notEntered(error),
    );
  }

  #entered(list, since) {
    if (this.gone) return;
    this.joined = true;
    const head = { epoch: list.epoch, seq: list.seq };
    const recovered = Boolean(since) && list.recovered === true;
    // With a replay behind it the list says where that will end, which is not where one stands yet.
    this.#replay = recovered && since.seq < head.seq ? head : null;
    if (!this.#replay) this.position = head;
    this.#settle.resolve(this.room);
    this.#listed(list);
    if (since && !recovered) emit(this.room, "reload", { room: this.name, position: head });
    this.#wire.flush();
  }

  #notEntered(error) {
    if (this.gone || error.code === "disconnected") return;
    if (!TRY_AGAIN.has(error.code) && error.code !== "internal") return this.#end(error.code, error);
    this.#timers.set("enter", error.retryAfterMs ?? RETRY_MS, () => this.enter());
  }

  interrupted() {
    this.joined = false;
    this.#timers.clear();
  }

  stopped(error) {
    this.#settle.reject(error);
    // Whoever waits for it after a return waits for the next answer.
    if (!this.position) this.#await();
  }

  say(content) {
    if (this.gone) return Promise.reject(new ConclaveError("left", "the room was left"));
    return this.#wire.say(this, content);
  }

  async history({ before, after, limit } = {}) {
    await this.ready;
    const newest = before === undefined && after === undefined;
    const frame = { type: "history", room: this.name, before: newest ? this.position.seq + 1 : before, after, limit };
    const { epoch, messages, first, more } = await this.#wire.request(frame);
    return { epoch, messages: messages.map((message) => this.#mark(message)), first, more };
  }

  async list() {
    const list = await this.#wire.request({ type: "list", room: this.name });
    // Not a position: it could be ahead of a replay that is still under way.
    if (!this.gone) this.#listed(list);
    return list;
  }

  leave() {
    if (this.gone) return;
    // With a ref, so that an answer about a room that was never entered bothers nobody.
    this.#wire.ask({ type: "leave", room: this.name }, () => {}, () => {});
    this.#close(new ConclaveError("left", "the room was left"));
  }

  #end(reason, error) {
    this.#close(error);
    emit(this.room, "removed", { room: this.name, reason });
  }

  #close(error) {
    this.gone = true;
    this.joined = false;
    this.#timers.clear();
    this.#settle.reject(error);
    this.#wire.forget(this, error);
  }

  receive(frame) {
    if (frame.type === "removed") return this.#end(frame.reason, new ConclaveError("removed", `removed from the room: ${frame.reason}`, { reason: frame.reason }));
    // What is left over from an earlier stay in the same room.
    if (!this.joined) return;
    switch (frame.type) {
      case "chat": return this.#chat(frame);
      case "reset": return this.#reset(frame);
      case "list": return this.#listed(frame);
      case "join": return this.#came(frame);
      case "left": return this.#went(frame);
      case "count": return this.#counted(frame);
    }
  }

  #chat(frame) {
    if (frame.seq <= this.position.seq) return;
    // Named only where it changes, and the list in front of a replay has named that of the replay's end.
    const caughtUp = this.#replay && frame.seq >= this.#replay.seq;
    const epoch = frame.epoch ?? (caughtUp ? this.#replay.epoch : this.position.epoch);
    if (caughtUp) this.#replay = null;
    this.position = { epoch, seq: frame.seq };
    emit(this.room, "chat", this.#mark({ ...frame, epoch }));
  }

  #mark(chat) {
    return { ...chat, room: this.name, mine: chat.from?.id !== undefined && chat.from.id === this.#wire.user()?.id };
  }

  #reset(frame) {
    this.#replay = null;
    this.position = { epoch: frame.epoch, seq: frame.seq };
    emit(this.room, "reset", frame);
  }

  #listed(list) {
    this.users = new Map(list.users.map((user) => [user.id, user]));
    this.count = list.count;
    emit(this.room, "list", list);
  }

  // `join` and `left` may come as a correction after a break, so each has to be harmless when it is no news.
  #came(frame) {
    const known = this.users.has(frame.user.id);
    this.users.set(frame.user.id, frame.user);
    if (known) return;
    this.count += 1;
    emit(this.room, "join", frame);
  }

  #went(frame) {
    const complete = this.users.size >= this.count;
    const known = this.users.delete(frame.user.id);
    if (!known && complete) return;
    this.count = Math.max(0, this.count - 1);
    emit(this.room, "left", frame);
  }

  #counted(frame) {
    this.count = frame.count;
    emit(this.room, "count", frame);
    // Small enough to be shown whole again, but what came and went meanwhile was only counted.
    const shown = this.#wire.limits()?.users_shown;
    if (frame.count > shown || this.#listing) return;
    this.#listing = true;
    this.list().catch(() => {}).finally(() => { this.#listing = false; });
  }
}

/** Everything said and not acknowledged, in the order it was said. */
class Says {
  #waiting = new Map();
  #timers = new Timers();
  #send;
  #limits;
  #paused = false;
  #name = randomWord();

  constructor(send, limits) {
    this.#send = send;
    this.#limits = limits;
  }

  say(ref, seat, content) {
    if (JSON.stringify(content) === undefined) return Promise.reject(new TypeError("content has to be something that JSON can say"));
    if (this.#waiting.size >= SAYS_MAX) return Promise.reject(new ConclaveError("queue_full", `${SAYS_MAX} messages wait already`));
    const text = JSON.stringify({ type: "chat", room: seat.name, content, key: `${this.#name}-${ref}`, ref });
    return new Promise((resolve, reject) => {
      this.#waiting.set(ref, { ref, seat, text, bytes: byteLength(text), sent: false, resolve, reject });
      this.flush();
    });
  }

  flush() {
    if (this.#paused) return;
    for (const say of [...this.#waiting.values()]) {
      if (say.sent || !say.seat.joined) continue;
      // Over the hard limit it would end the connection, and again after every reconnect.
      if (say.bytes > (this.#limits()?.message_bytes ?? Infinity)) this.#reject(say, new ConclaveError("too_large", "the message is too large"));
      else if (this.#send(say.text)) this.#mark(say);
    }
  }

  #mark(say) {
    say.sent = true;
    say.expiry ??= setTimeout(() => {
      this.#reject(say, new ConclaveError("unconfirmed", "not acknowledged in time; it may have been said or not"));
    }, KEY_TRUSTED_MS);
  }

  /** Whether the frame was the answer to something said. */
  settle(frame) {
    const say = this.#waiting.get(frame.ref);
    if (!say) return false;
    if (frame.type !== "error") {
      this.#forget(say);
      say.resolve({ epoch: frame.epoch, seq: frame.seq });
    } else if (TRY_AGAIN.has(frame.code)) {
      say.sent = false;
      this.#pause(frame.retry_after_ms ?? RETRY_MS);
    } else this.#reject(say, errorOf(frame));
    return true;
  }

  #pause(ms) {
    this.#paused = true;
    this.#timers.set("pause", ms, () => {
      this.#paused = false;
      this.flush();
    });
  }

  interrupted() {
    this.#paused = false;
    this.#timers.clear();
    for (const say of this.#waiting.values()) say.sent = false;
  }

  reject(which, error) {
    for (const say of [...this.#waiting.values()]) if (which(say)) this.#reject(say, error);
  }

  #reject(say, error) {
    this.#forget(say);
    say.reject(error);
  }

  #forget(say) {
    clearTimeout(say.expiry);
    this.#waiting.delete(say.ref);
  }
}

/** The socket's life: one at a time, watched, and replaced when it is gone. */
class Link {
  token;
  #url;
  #options;
  #events;
  #timers = new Timers();
  #socket = null;
  #turn = 0;
  #online = false;
  /** The server named the wait, so nothing but `reconnect()` cuts it short. */
  #patient = false;
  #attempt = 0;
  #reason = "connect";
  #renewed = false;
  #reconnectAfterMs = null;
  #heartbeatMs = 0;
  #heard = { frames: 0, ms: 0 };
  #hints = null;

  constructor(url, options, events) {
    this.#url = url;
    this.#options = options;
    this.#events = events;
    this.token = options.token;
    if (!this.#class) throw new TypeError("there is no WebSocket here: pass one as WebSocketClass");
  }

  get #class() {
    return this.#options.WebSocketClass ?? globalThis.WebSocket;
  }

  async open() {
    this.#detach();
    this.#listenToHints();
    const turn = this.#turn;
    this.#timers.set("deadline", CONNECT_DEADLINE_MS, () => this.#lost({ code: 1006, reason: "timeout" }));
    this.#events.state({ state: "connecting", attempt: this.#attempt });
    let token;
    try {
      token = await this.#nextToken();
    } catch (error) {
      if (turn === this.#turn) this.#lost({ code: 1006, reason: "no_token", error });
      return;
    }
    // Closed, or tried anew, while the token was on its way.
    if (turn !== this.#turn) return;
    if (this.#options.ticket) {
      const ticket = await askForTicket(this.#ticketUrl(), token, this.#options.fetch ?? globalThis.fetch);
      if (turn !== this.#turn) return;
      if (!ticket.ticket) return this.#noTicket(ticket);
      token = ticket.ticket;
    }
    try {
      this.#dial(token);
    } catch (error) {
      // An address or a subprotocol that this WebSocket class refuses stays refused.
      this.stop({ code: 1006, reason: "bad_address", error });
    }
  }

  async #nextToken() {
    const { getToken, token } = this.#options;
    const reason = this.#reason;
    this.#reason = "reconnect";
    if (!getToken || (token && reason === "connect")) return this.token;
    return getToken({ reason });
  }

  #ticketUrl() {
    const { ticket } = this.#options;
    const url = new URL(ticket === true ? this.#url : ticket, this.#url);
    if (ticket === true) [url.pathname, url.search] = ["/ticket", ""];
    url.protocol = url.protocol.replace(/^ws/, "http");
    return url.href;
  }

  // Refused as a socket would be, or worth another attempt.
  #noTicket({ reason, refused, retryAfterMs, error }) {
    if (refused) return this.#closed(1008, reason);
    this.#reconnectAfterMs = waitOf(retryAfterMs);
    this.#lost({ code: 1006, reason: "no_ticket", error });
  }

  #dial(token) {
    const url = new URL(this.#url);
    if (token) url.searchParams.set("token", token);
    // A busy server lets those go first who come back for what they have missed.
    if (this.#events.returns()) url.searchParams.set("resume", "1");
    const socket = new this.#class(url.href, [SUBPROTOCOL]);
    const mine = (handler) => (event) => { if (socket === this.#socket) handler(event); };
    this.#socket = socket;
    socket.addEventListener("message", mine((event) => this.#received(event.data)));
    socket.addEventListener("close", mine((event) => this.#closed(event.code, String(event.reason ?? ""))));
    // Always followed by `close`; without a listener some classes throw it.
    socket.addEventListener("error", () => {});
  }

  send(frame) {
    return this.sendText(JSON.stringify(frame));
  }

  sendText(text) {
    if (this.#online) this.#socket.send(text);
    return this.#online;
  }

  stop(cause) {
    this.#detach();
    this.#attempt = 0;
    this.#renewed = false;
    this.#hints?.abort();
    this.#hints = null;
    this.#events.state({ state: "stopped", ...cause });
  }

  #received(data) {
    this.#heard = { frames: this.#heard.frames + 1, ms: Date.now() };
    const frame = parse(data);
    if (!frame) return;
    if (frame.type === "connected") this.#welcomed(frame);
    else if (frame.type === "closing") this.#reconnectAfterMs = waitOf(frame.reconnect_after_ms);
    else if (this.#online) this.#events.frame(frame);
  }

  #welcomed(frame) {
    this.#online = true;
    this.#renewed = false;
    this.#heartbeatMs = Number(frame.heartbeat) * 1000;
    this.#timers.clear("deadline");
    this.#timers.set("stable", STABLE_MS, () => { this.#attempt = 0; });
    this.#watch();
    this.#events.connected(frame);
  }

  #closed(code, reason) {
    if (code === 1008 && this.#mayRenew(reason)) {
      this.#renewed = true;
      this.#reason = "expired";
      this.#lost({ code, reason });
    } else if (code === 1008 || MISTAKES.has(code)) this.stop({ code, reason });
    else this.#lost({ code, reason });
  }

  // A fixed token would be refused again. A cookie may have been renewed meanwhile by the application. A ticket may have
  // been overtaken by its own end on a slow network.
  #mayRenew(reason) {
    if (this.#renewed) return false;
    if (reason === "ticket_used") return Boolean(this.#options.ticket);
    return reason === "token_expired" && (Boolean(this.#options.getToken) || !this.token);
  }

  #lost(cause) {
    const asked = this.#reconnectAfterMs;
    this.#detach();
    this.#patient = asked !== null;
    const inMs = asked ?? backoffMs(this.#attempt, this.#options.random);
    this.#attempt += 1;
    this.#timers.set("retry", inMs, () => this.open());
    this.#events.state({ state: "reconnecting", inMs, attempt: this.#attempt, ...cause });
  }

  #detach() {
    const socket = this.#socket;
    this.#turn += 1;
    this.#socket = null;
    this.#online = false;
    this.#reconnectAfterMs = null;
    this.#timers.clear();
    socket?.close();
    this.#events.lost();
  }

  // A browser answers the server's pings without showing them, so silence is only known after asking.
  #watch() {
    if (!(this.#heartbeatMs > 0)) return;
    const silentMs = Math.max(0, Date.now() - this.#heard.ms);
    if (silentMs >= this.#heartbeatMs) this.#probe();
    else this.#timers.set("watch", this.#heartbeatMs - silentMs, () => this.#watch());
  }

  #probe() {
    if (this.#timers.has("pong")) return;
    const { frames } = this.#heard;
    this.send({ type: "ping" });
    this.#timers.clear("watch");
    this.#timers.set("pong", PONG_DEADLINE_MS, () => {
      if (this.#heard.frames > frames) this.#watch();
      else this.#lost({ code: 1006, reason: "silent" });
    });
  }

  #listenToHints() {
    if (this.#hints || typeof document === "undefined" || typeof addEventListener !== "function") return;
    this.#hints = new AbortController();
    const { signal } = this.#hints;
    const hint = () => this.#hint();
    addEventListener("online", hint, { signal });
    addEventListener("offline", hint, { signal });
    document.addEventListener("visibilitychange", () => { if (!document.hidden) hint(); }, { signal });
  }

  // The network or the person came back, or the network went: only a reason to look, never the truth.
  #hint() {
    if (this.#online) this.#probe();
    else if (this.#timers.has("retry") && !this.#patient && globalThis.navigator?.onLine !== false) this.open();
  }
}

/** Timers by name; setting one replaces the one before it. */
class Timers {
  #running = new Map();

  set(name, ms, run) {
    this.clear(name);
    const fire = () => {
      this.#running.delete(name);
      run();
    };
    this.#running.set(name, setTimeout(fire, Math.min(ms, TIMEOUT_MAX_MS)));
  }

  has(name) { return this.#running.has(name); }

  clear(name) {
    for (const [key, timer] of [...this.#running]) {
      if (name !== undefined && key !== name) continue;
      clearTimeout(timer);
      this.#running.delete(key);
    }
  }
}

/** A single-use ticket for the address of the next socket, so that it holds no token; or why there is none. */
async function askForTicket(url, token, fetch) {
  try {
    const answer = await fetch(url, {
      method: "POST",
      // The cookie too, where the page may use it: without a token it says who this is.
      credentials: "include",
      cache: "no-store",
      redirect: "error",
      headers: token ? { authorization: `Bearer ${token}` } : {},
      signal: AbortSignal.timeout(CONNECT_DEADLINE_MS),
    });
    const said = parse(await answer.text());
    if (answer.ok && typeof said?.ticket === "string") return { ticket: said.ticket };
    const mayPass = answer.status === 429 || answer.status >= 500;
    if (!mayPass) return { refused: true, reason: String(said?.error ?? "no_ticket") };
    const seconds = Number(answer.headers.get("retry-after") ?? NaN);
    return { retryAfterMs: seconds * 1000, error: new ConclaveError("no_ticket", `${url} answered ${answer.status}`) };
  } catch (error) {
    return { error };
  }
}

function address(url) {
  const page = globalThis.location?.href;
  if (url === undefined && !page) throw new TypeError("connect needs the server's address outside a browser");
  const to = new URL(url ?? "/ws", page);
  to.protocol = to.protocol.replace(/^http/, "ws");
  if (to.pathname === "/") to.pathname = "/ws";
  to.hash = "";
  return to.href;
}

function parse(data) {
  if (typeof data !== "string") return null;
  try {
    const frame = JSON.parse(data);
    return frame !== null && typeof frame === "object" ? frame : null;
  } catch {
    return null;
  }
}

function waitOf(ms) {
  return Number.isFinite(ms) && ms >= 0 ? Math.min(ms, RECONNECT_AFTER_MAX_MS) : null;
}

function errorOf(frame) {
  return new ConclaveError(frame.code, frame.message, { reason: frame.reason, retryAfterMs: frame.retry_after_ms });
}

function byteLength(text) {
  return new TextEncoder().encode(text).length;
}

/** Unlike randomUUID this also works on pages without TLS. */
function randomWord() {
  return [...crypto.getRandomValues(new Uint8Array(9))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

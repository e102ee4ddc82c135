// A client as somebody writes it who has read PROTOCOL.md and has the `ws` package.
import WebSocket from "ws";
import { token } from "./server.mjs";

const WAIT_MS = 20_000;

/** Whether a frame has these fields with these values. */
const has = (wanted) => (frame) => Object.entries(wanted).every(([key, value]) => Object.is(frame[key], value));

export class Client {
  /** Every frame that came, in order. */
  frames = [];
  #taken = new Set();
  #waiting = [];
  #refs = 0;

  constructor(server, { query = "", headers = {}, origin, protocols = [], path = "/ws", options = {} } = {}) {
    this.socket = new WebSocket(`wss://${server.authority}${path}${query}`, protocols, {
      ca: server.ca,
      headers,
      origin,
      ...options,
    });
    this.socket.on("message", (data) => {
      this.frames.push(JSON.parse(data));
      this.#look();
    });
    // The status of a refused handshake.
    this.refused = new Promise((resolve) => {
      this.socket.on("unexpected-response", (request, response) => {
        resolve({ status: response.statusCode, headers: response.headers });
        request.destroy();
      });
    });
    // A failure is followed by `close`, which says what there is to say.
    this.socket.on("error", (error) => (this.error = error));
    this.closed = new Promise((resolve) => {
      this.socket.on("close", (code, reason) => {
        this.ended = { code, reason: reason.toString() };
        resolve(this.ended);
        this.#look();
      });
    });
  }

  /** Signed in as `sub` and welcomed. */
  static async signedIn(server, sub, { claims = {}, ...how } = {}) {
    const client = new Client(server, { query: `?token=${token(sub, claims)}`, ...how });
    client.welcome = await client.next({ type: "connected" });
    return client;
  }

  static async joined(server, sub, room, how) {
    const client = await Client.signedIn(server, sub, how);
    await client.join(room);
    return client;
  }

  /** The next frame, not returned before, with these fields. Others stay for whoever asks for them. */
  next(wanted) {
    return new Promise((resolve, reject) => {
      const look = () => {
        const frame = this.frames.find((candidate) => !this.#taken.has(candidate) && has(wanted)(candidate));
        if (frame) {
          this.#taken.add(frame);
          end(() => resolve(frame));
        } else if (this.ended) lost("the socket closed");
      };
      const end = (act) => {
        clearTimeout(timer);
        this.#waiting = this.#waiting.filter((other) => other !== look);
        act();
      };
      const lost = (why) => end(() => reject(new Error(
        `${why}, waiting for ${JSON.stringify(wanted)}; came: ${JSON.stringify(this.frames.slice(-20))}; `
        + `close: ${JSON.stringify(this.ended)}; error: ${this.error?.message}`,
      )));
      const timer = setTimeout(() => lost("nothing came"), WAIT_MS);
      this.#waiting.push(look);
      look();
    });
  }

  #look() {
    for (const look of [...this.#waiting]) look();
  }

  send(frame) {
    this.socket.send(typeof frame === "string" ? frame : JSON.stringify(frame));
  }

  /** Sends with a `ref` and returns the one answer. */
  ask(frame) {
    const ref = `r${++this.#refs}`;
    this.send({ ...frame, ref });
    return this.next({ ref });
  }

  join(room, since) {
    return this.ask({ type: "join", room, since });
  }

  say(room, content, more = {}) {
    return this.ask({ type: "chat", room, content, ...more });
  }

  /** After it, everything that the server sent before is here: what has not come will not. */
  async sync() {
    const answer = await this.ask({ type: "ping" });
    return this.frames.filter((frame) => frame !== answer);
  }

  of(type, room) {
    return this.frames.filter((frame) => frame.type === type && (room === undefined || frame.room === room));
  }

  /** No close frame, no FIN with manners: what a tunnel does to a train. */
  cut() {
    this.socket._socket.destroy();
    return this.closed;
  }

  close() {
    this.socket.close(1000);
    return this.closed;
  }
}

// A scripted server for the JavaScript client: a WebSocket class whose other end is the test.
import { mock } from "node:test";
import { connect } from "../../src/web/conclave.js";

/** Takes over time. Promises still run by themselves, so every step lets them finish. */
export function stopTime() {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_767_000_000_000 });
}

export async function settle() {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
}

export async function pass(ms) {
  mock.timers.tick(ms);
  await settle();
}

export function script() {
  const sockets = [];
  class FakeSocket extends EventTarget {
    constructor(url, protocols) {
      super();
      this.url = new URL(url);
      this.protocols = protocols;
      this.sent = [];
      this.closedByClient = false;
      sockets.push(this);
    }
    send(text) { this.sent.push(JSON.parse(text)); }
    close() { this.closedByClient = true; }
    // From here on: what the server does.
    frame(frame) {
      const event = new Event("message");
      event.data = JSON.stringify(frame);
      this.dispatchEvent(event);
    }
    end(code = 1006, reason = "") {
      const event = new Event("close");
      Object.assign(event, { code, reason });
      this.dispatchEvent(event);
    }
    welcome(more = {}) {
      this.frame({
        type: "connected", protocol: 1, session: "s-1", user: { id: "u1", name: "Ann" }, heartbeat: 30, kept: "memory",
        limits: { message_bytes: 1000, rooms: 128, users_shown: 3, messages_per_second: 0 }, ...more,
      });
    }
    last(type) { return this.sent.findLast((frame) => frame.type === type); }
    all(type) { return this.sent.filter((frame) => frame.type === type); }
    answer(type, frame) { this.frame({ ...frame, ref: this.last(type).ref }); }
    enter(more = {}) {
      const { room } = this.last("join");
      this.answer("join", { type: "list", room, users: [{ id: "u1", name: "Ann" }], count: 1, epoch: "e1", seq: 10, as_of: 1, ...more });
    }
    chat(seq, more = {}) {
      this.frame({ type: "chat", room: "lobby", seq, from: { id: "u2", name: "Bob" }, content: `c${seq}`, time: 1, ...more });
    }
  }
  return { FakeSocket, sockets, get socket() { return sockets.at(-1); } };
}

/** A client that is online, in `lobby`, at e1/10. */
export async function inLobby(options = {}) {
  const { client, server, states } = await started(options);
  const chats = [];
  const room = client.join("lobby", { chat: (chat) => chats.push(chat) });
  server.socket.welcome();
  server.socket.enter();
  await settle();
  return { client, server, states, room, chats };
}

export async function started(options = {}) {
  const server = script();
  const client = connect("https://rt.example.com", { WebSocketClass: server.FakeSocket, random: () => 0.5, ...options });
  const states = [];
  client.on("state", (state) => states.push(state));
  await settle();
  return { client, server, states };
}

/** Waits out the backoff; the new socket is not welcomed yet. */
export async function back(server) {
  const before = server.sockets.length;
  await pass(30_000);
  if (server.sockets.length === before) throw new Error("the client did not come back");
}

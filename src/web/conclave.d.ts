/** Types of conclave.js, the JavaScript client of Conclave. Times are milliseconds unless a name says otherwise. */

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export interface User {
  id: string;
  name?: string;
  info?: { [key: string]: Json };
}

/** Where one stands in a room. */
export interface Position {
  epoch: string;
  seq: number;
}

export interface Chat extends Position {
  room: string;
  from?: User;
  content: Json;
  time: number;
  /** Said by this user, in this tab or another. */
  mine: boolean;
}

export interface Limits {
  message_bytes: number;
  rooms: number;
  users_shown: number;
  messages_per_second: number;
}

export interface Connected {
  protocol: number;
  session: string;
  user: User;
  heartbeat: number;
  /** Seconds since the Unix epoch. */
  expires?: number;
  kept: "memory" | "async" | "disk" | "replica";
  limits: Limits;
}

export interface List {
  room: string;
  users: User[];
  count: number;
  epoch: string;
  seq: number;
  as_of: number;
  recovered?: boolean;
}

export interface History {
  /** The newest epoch. */
  epoch: string;
  /** Ascending; `epoch` is given in the first message of each. */
  messages: (Omit<Chat, "epoch"> & { epoch?: string })[];
  /** The oldest seq that is kept. */
  first: number;
  more: boolean;
}

export type State =
  | { state: "connecting"; attempt?: number }
  | { state: "online" }
  /** A new attempt follows in `inMs`; `reason` is also `timeout`, `silent`, `no_token` or `no_ticket` (with the `error`). */
  | { state: "reconnecting"; inMs: number; attempt: number; code: number; reason: string; error?: unknown }
  /** No new attempt follows. 1008 with the server's reason word, or 1000 `closed`, or 1006 `bad_address`. */
  | { state: "stopped"; code: number; reason: string; error?: unknown };

/**
 * The protocol's error codes, and the client's own: `disconnected` (no answer, ask again), `unconfirmed` (said or not,
 * unknown), `timeout` (of a call: done or not, unknown), `queue_full`, `left`, `removed`, `stopped`.
 */
export class ConclaveError extends Error {
  readonly code: string;
  readonly reason?: string;
  readonly retryAfterMs?: number;
}

export interface RoomEvents {
  /** Entered, entered again, or refreshed. */
  list: List;
  chat: Chat;
  join: { room: string; user: User; time: number };
  left: { room: string; user: User; time: number };
  count: { room: string; count: number };
  /** What is held above `seq` no longer counts (`rewound`), all of it (`epoch`), or something below is missing (`trimmed`). */
  reset: Position & { room: string; reason: "trimmed" | "rewound" | "epoch" };
  /** What happened during a break cannot be replayed: drop what is shown, and start over with `history`. */
  reload: { room: string; position: Position };
  /** One is no longer in the room, or was refused (`reason` is then the error's code). */
  removed: { room: string; reason: string };
}

export interface ConclaveEvents {
  connected: Connected;
  state: State;
  /** From the application to this user, outside any room. */
  message: { from?: User; content: Json; time: number };
  error: unknown;
}

export type Handlers = { [Type in keyof RoomEvents]?: (detail: RoomEvents[Type]) => void };

declare class Emitter<Events> extends EventTarget {
  /** The handler gets the event's `detail`. Returns the way to stop listening. */
  on<Type extends keyof Events>(type: Type, handler: (detail: Events[Type]) => void): () => void;
}

export class Room extends Emitter<RoomEvents> {
  private constructor();
  readonly name: string;
  /** By id. In a big room only some; `count` is exact. */
  readonly users: ReadonlyMap<string, User>;
  readonly count: number;
  readonly joined: boolean;
  readonly position: Position | null;
  readonly ready: Promise<Room>;
  /** Kept once the server has taken it; retried over a break with the same key, so it is never said twice. */
  say(content: Json): Promise<Position>;
  /** Without `before` and `after`: the newest. `before` is exclusive. */
  history(options?: { before?: number; after?: number; limit?: number }): Promise<History>;
  list(): Promise<List>;
  leave(): void;
}

export interface Options {
  /** A token that does not change. */
  token?: string;
  /** Called before every connection and before the token expires. `token`, if given too, serves the first connection. */
  getToken?: (why: { reason: "connect" | "reconnect" | "expired" | "refresh" }) => string | null | undefined | Promise<string | null | undefined>;
  /**
   * Get a single-use ticket before every connection, from `/ticket` of the server or from this URL, so that no address
   * holds a token. The token (or the cookie) goes there in a header.
   */
  ticket?: boolean | string | URL;
  /** Where there is no global fetch; for `ticket` alone. */
  fetch?: typeof fetch;
  /** Where there is no global WebSocket, for instance the class of the package `ws`. */
  WebSocketClass?: unknown;
  /** For tests: replaces Math.random in the backoff. */
  random?: () => number;
}

export class Conclave extends Emitter<ConclaveEvents> {
  constructor(url?: string | URL, options?: Options);
  readonly state: State;
  readonly user: User | null;
  readonly session: string | null;
  readonly limits: Limits | null;
  readonly latencyMs: number | null;
  readonly rooms: Room[];
  join(room: string, handlers?: Handlers): Room;
  ping(): Promise<number>;
  auth(token: string): Promise<{ expires?: number }>;
  /** Has the application do something; `timeout` is 35,000 unless given. Not retried: see `disconnected` and `timeout`. */
  call(name: string, data?: Json, options?: { timeout?: number }): Promise<Json>;
  /** Tries now; also brings a stopped client back. */
  reconnect(): void;
  close(): void;
}

/** Without `url`: the page's own host. Without a token: the browser's cookie. */
export function connect(url?: string | URL, options?: Options): Conclave;
export function connect(options: Options): Conclave;

export function backoffMs(attempt: number, random?: () => number): number;

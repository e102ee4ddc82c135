//! Bounds that no operator sets: they are part of the protocol, or of how the engine works.
//!
//! What an operator may set is in `config/default.toml`. Bounds that depend on each other are tied below.

use std::time::Duration;

const KIB: usize = 1024;

/// Longest token taken from any place; longer is `token_malformed` (PROTOCOL.md section 1).
pub const TOKEN_BYTES_MAX: usize = 8 * KIB;

/// Longest room name, UTF-8 (PROTOCOL.md section 2).
pub const ROOM_BYTES_MAX: usize = 128;

/// Longest `ref` that is a string (PROTOCOL.md section 2).
pub const REF_BYTES_MAX: usize = 64;

/// Longest idempotency `key` of a `chat` (PROTOCOL.md section 2).
pub const KEY_BYTES_MAX: usize = 64;

/// Longest user id, prefix included (PROTOCOL.md section 1).
pub const USER_ID_BYTES_MAX: usize = 256;

/// Largest `info` claim: it is sent to every room mate (PROTOCOL.md section 1).
pub const INFO_BYTES_MAX: usize = KIB;

/// Deepest nesting of a message; a parser that recurses must not be led deeper (PROTOCOL.md section 3).
pub const NESTING_MAX: usize = 32;

/// Chats in a `history` reply when the request names no limit.
pub const HISTORY_PAGE_DEFAULT: usize = 100;

/// Chats in a `history` reply at most.
pub const HISTORY_PAGE_MAX: usize = 1000;

/// Bytes of a replay put into an outbox at once; the next piece waits until the outbox has drained.
pub const REPLAY_PIECE_BYTES: usize = 64 * KIB;

/// Plaintext of one TLS record (RFC 8446 section 5.1), which is also what one flush of a connection takes.
pub const RECORD_BYTES: usize = 16 * KIB;

/// Connections flushed before the flusher lets its thread do other work.
pub const FLUSHES_PER_YIELD: usize = 128;

/// The hard limit on a message is this many times `message_bytes`: between the two the sender gets an
/// `error`, above it the socket is closed with 1009 (PROTOCOL.md section 3).
pub const HARD_LIMIT_FACTOR: usize = 4;

/// So many messages over the rate within [`ABUSE_WINDOW`] close the socket with 1008 `abuse`.
pub const ABUSE_REFUSALS: u32 = 20;

/// Over which refused messages are counted.
pub const ABUSE_WINDOW: Duration = Duration::from_secs(10);

/// How long is read and discarded after a close frame, so that it is not lost to a TCP reset.
pub const CLOSE_LINGER: Duration = Duration::from_secs(2);

/// Longest pause in reading from a connection that is over its rate. It counts as heard, and it is no longer
/// than the shortest heartbeat, so the sweeper never ends whom we ourselves stopped reading.
pub const READ_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Shortest `heartbeat.interval`, as `config/default.toml` has it.
pub const HEARTBEAT_MIN: Duration = Duration::from_secs(1);

/// Smallest `limits.outbox_bytes`, as `config/default.toml` has it.
pub const OUTBOX_BYTES_MIN: usize = 4 * KIB;

/// What a `chat` may add to its content on the way out: room, epoch, numbers, and the sender's id, name and
/// `info`, all JSON-escaped.
pub const ENVELOPE_BYTES_MAX: usize = 8 * KIB;

const _: () = assert!(HISTORY_PAGE_DEFAULT <= HISTORY_PAGE_MAX);
// A piece is whole records, or the last record of each would be a short one.
const _: () = assert!(REPLAY_PIECE_BYTES.is_multiple_of(RECORD_BYTES));
// The request head that may carry a token in its query and again in a cookie fits the smallest header_bytes.
const _: () = assert!(2 * TOKEN_BYTES_MAX <= 16 * KIB);
const _: () = assert!(READ_PAUSE_MAX.as_millis() <= HEARTBEAT_MIN.as_millis());
// A lingering socket is over before an abuser's window is, so that closing is never the cheaper way on.
const _: () = assert!(CLOSE_LINGER.as_millis() < ABUSE_WINDOW.as_millis());
// Escaping makes a byte at most six (`\u00XX`); names in a message have room in the envelope.
const _: () = assert!(6 * (ROOM_BYTES_MAX + USER_ID_BYTES_MAX) + INFO_BYTES_MAX < ENVELOPE_BYTES_MAX);
const _: () = assert!(HARD_LIMIT_FACTOR >= 2);

/// Messages that a shadow room keeps: enough for the probes of a minute.
pub const SHADOW_HISTORY_MESSAGES: usize = 32;

/// Bytes that a shadow room keeps.
pub const SHADOW_HISTORY_BYTES: usize = 64 * 1024;

/// Letters that the post keeps in the log: what a node reads that could not hear them for a moment.
pub const POST_HISTORY_MESSAGES: usize = 4_096;

/// Bytes of letters that the post keeps in the log.
pub const POST_HISTORY_BYTES: usize = 16 * 1024 * KIB;

/// A letter that is older is for nobody any more: who was away has heard of it otherwise, or never will.
pub const POST_AGE: Duration = Duration::from_secs(60);

/// How long a shadow room keeps what was said.
pub const SHADOW_HISTORY_AGE: Duration = Duration::from_secs(60);

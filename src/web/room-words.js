// What the server's words mean to the person in front of the screen.

const REASONS = {
  token_missing: "You are not signed in.",
  token_malformed: "Your sign-in could not be read.",
  token_signature: "Your sign-in is not one that this server trusts.",
  token_expired: "Your sign-in has run out.",
  token_not_yet_valid: "Your sign-in is not valid yet. Is a clock wrong?",
  token_issuer: "Your sign-in is from somewhere this server does not know.",
  token_audience: "Your sign-in is meant for another service.",
  token_revoked: "Your sign-in was withdrawn.",
  ticket_used: "Your ticket was used already, or ran out.",
  cookie_origin: "This address is not on the server's list for sign-ins by cookie.",
  kicked: "You were disconnected by the application.",
  abuse: "You were disconnected for sending too much.",
  closed: "You closed the connection.",
};

const ERRORS = {
  forbidden: "You are not allowed to do that.",
  bad_room: "That is not a name a room can have.",
  room_full: "That room is full.",
  too_many_rooms: "You are in too many rooms already.",
  too_large: "The message is too long.",
  queue_full: "Too many messages are waiting already.",
  unconfirmed: "Nobody knows whether it arrived.",
  stopped: "There is no connection.",
  kicked: "You were removed from the room.",
  grant: "You are no longer allowed in this room.",
  closed: "The room was closed.",
  left: "You left the room.",
};

/** Reasons that a new sign-in can mend. */
export function wantsSignIn(reason) {
  return reason.startsWith("token_") || reason === "ticket_used";
}

export function whyStopped({ code, reason }) {
  return REASONS[reason] ?? `The server closed the connection (${code}${reason ? ` ${reason}` : ""}).`;
}

export function whyNot(code) {
  return ERRORS[code] ?? `The server refused it (${code}).`;
}

export function whyAway(reason) {
  if (reason === "restart") return "The server restarts.";
  if (reason === "overloaded") return "The server is busy.";
  return "The connection was lost.";
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

export const clockOf = (ms) => clock.format(ms);
export const dayOf = (ms) => day.format(ms);
export const wholeTimeOf = (ms) => whole.format(ms);

export function people(count) {
  return count === 1 ? "1 person" : `${count} people`;
}

export function nameOf(user) {
  return user?.name ?? user?.id ?? "The application";
}

/** A chat can be any JSON; this page says text. */
export function textOf(content) {
  return typeof content === "string" ? content : JSON.stringify(content, null, 2);
}

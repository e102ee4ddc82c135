// Who is in front of the screen: a token from the address, or the cookie of POST /session.

const TOKEN = "conclave.token";
const ROOMS = "conclave.rooms";

/**
 * Takes `#token=…&room=…` out of the address before anybody can copy, share or bookmark it. The fragment never
 * travels to a server; the token stays in this tab.
 */
export function takeFragment() {
  const given = new URLSearchParams(location.hash.slice(1));
  const [token, room] = [given.get("token"), given.get("room")];
  if (token === null && room === null) return {};
  history.replaceState(null, "", location.pathname + location.search);
  if (token) sessionStorage.setItem(TOKEN, token);
  return { token, room };
}

export const token = () => sessionStorage.getItem(TOKEN);

/** `in`, `out`, `off` (this server signs nobody in) or `unknown` (not reached). */
export async function look() {
  try {
    const { ok, status } = await fetch("/session", { headers: { accept: "application/json" } });
    if (ok) return "in";
    return status === 404 || status === 405 ? "off" : "out";
  } catch {
    return "unknown";
  }
}

/** Nothing when it worked, else what to tell. */
export async function signIn(name) {
  let answer;
  try {
    answer = await fetch("/session", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ name }),
    });
  } catch {
    return "The server cannot be reached.";
  }
  if (answer.ok) return null;
  if (answer.status === 404 || answer.status === 405) return OFF;
  if (answer.status === 429) return "Too many sign-ins from here. Wait a moment, then try again.";
  if (answer.status === 400 || answer.status === 422) return "That name cannot be used. Try another one.";
  return `The server refused it (${answer.status}).`;
}

export const OFF =
  "This server does not sign people in by name. Open the page with a token in its address, #token=…, or sign in to your application first.";

export async function signOut() {
  const withToken = token() !== null;
  sessionStorage.removeItem(TOKEN);
  sessionStorage.removeItem(ROOMS);
  if (withToken) return;
  // Should it not arrive, the cookie is still there and the next look says so.
  await fetch("/session", { method: "DELETE" }).catch(() => {});
}

/** The rooms of this tab survive a reload of the page. */
export function keepRooms(names) {
  sessionStorage.setItem(ROOMS, JSON.stringify(names));
}

export function keptRooms() {
  try {
    const names = JSON.parse(sessionStorage.getItem(ROOMS) ?? "[]");
    return Array.isArray(names) ? names.filter((name) => typeof name === "string") : [];
  } catch {
    return [];
  }
}

// Requests to the node, and the two things that change something, each behind a dialog in which a name is typed.
import { $, count, duration, facts } from "./admin-view.js";

/** What the node answered instead of what was asked for. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ? `${problem.detail}: ${problem.fix}` : `the node answered ${status}`);
    this.status = status;
  }
}

export async function ask(path, { method = "GET", body } = {}) {
  const headers = { accept: "application/json" };
  if (method !== "GET") headers["conclave-admin"] = "1";
  if (body) headers["content-type"] = "application/json";
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body), credentials: "same-origin", signal: AbortSignal.timeout(12_000) });
  if (response.status === 401) location.assign("/");
  const text = await response.text();
  let json = {};
  try {
    json = text ? JSON.parse(text) : {};
  } catch {
    // What is no JSON is no answer of the API.
  }
  if (!response.ok) throw new Refused(response.status, json);
  return json;
}

/** A dialog whose button works once what was typed is what was asked for. */
function confirmed({ dialog, again, button, wrong, expected, act }) {
  const check = () => {
    $(button).disabled = !expected() || $(again).value !== expected();
  };
  $(dialog).addEventListener("input", check);
  $(dialog).querySelector(".cancel").addEventListener("click", () => $(dialog).close());
  $(dialog).addEventListener("close", () => {
    $(again).value = "";
    $(wrong).textContent = "";
    check();
  });
  $(dialog).querySelector("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if ($(button).disabled) return;
    $(button).disabled = true;
    try {
      await act();
      $(dialog).close();
    } catch (error) {
      $(wrong).textContent = error.message;
      check();
    }
  });
}

export function openKick(of = "user", name = "") {
  $("kick-of").value = of;
  $("kick-name").value = name;
  $("kick-ban").value = "0";
  $("kick").showModal();
  $(name ? "kick-again" : "kick-name").focus();
}

async function kick() {
  const of = $("kick-of").value;
  const ban = of === "user" ? Number($("kick-ban").value) : 0;
  const told = await ask("/api/kick", { method: "POST", body: { [of]: $("kick-name").value, ban_seconds: ban } });
  const until = told.banned_until ? `, banned until ${new Date(told.banned_until * 1000).toLocaleTimeString()}` : "";
  $("kick-said").textContent = `Kicked ${told.kicked}${until}; all nodes were told in ${told.took_ms} ms.`;
}

async function openDrain(name) {
  $("drain-said").textContent = "";
  $("drain-name").textContent = name;
  try {
    const answer = await ask("/api/drain");
    const plan = answer.plan ?? answer;
    facts($("drain-plan"), [
      ["Clients", count(plan.clients)],
      ["Other nodes", plan.others ? count(plan.others) : "none: clients come back to this node's successor", plan.others ? undefined : "warn"],
      ["Told within", duration(plan.closing_seconds)],
      ["Last one back after", duration(plan.last_return_seconds)],
      ["Returns", `${count(plan.returns_per_second)} per second at most`],
      ["Ends at the latest in", duration(plan.deadline_seconds)],
      ["Everybody has a place", plan.fits ? "yes" : "no", plan.fits ? "good" : "bad"],
    ]);
  } catch (error) {
    $("drain-said").textContent = `There is no plan: ${error.message}`;
    return;
  }
  $("drain").showModal();
  $("drain-again").focus();
}

async function drain() {
  await ask("/api/drain", { method: "POST" });
  $("drain-said").textContent = "The drain has begun.";
}

export function wireDialogs(nodeName) {
  $("kick-open").addEventListener("click", () => openKick());
  confirmed({ dialog: "kick", again: "kick-again", button: "kick-do", wrong: "kick-wrong", expected: () => $("kick-name").value, act: kick });
  $("kick-of").addEventListener("change", () => {
    $("kick-ban").disabled = $("kick-of").value !== "user";
  });
  $("drain-open").addEventListener("click", () => openDrain(nodeName()));
  confirmed({ dialog: "drain", again: "drain-again", button: "drain-do", wrong: "drain-wrong", expected: nodeName, act: drain });
}

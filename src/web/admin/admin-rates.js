// Numbers over time. The node tells what it counted since its start; two answers make a rate, sixty a line.

/** Answers that are kept: two minutes, one every two seconds. */
const KEPT = 60;
const SVG = "http://www.w3.org/2000/svg";

export class Past {
  #answers = [];

  /** A node that was started anew begins from zero: what was before says nothing of it. */
  add(answer) {
    const last = this.#answers.at(-1);
    if (last && last.node.started_ms !== answer.node.started_ms) this.#answers = [];
    this.#answers.push(answer);
    if (this.#answers.length > KEPT) this.#answers.shift();
  }

  /** How much `read` of an answer rose per second, from each answer to the next. */
  rates(read) {
    const rates = [];
    for (let at = 1; at < this.#answers.length; at += 1) {
      const [before, now] = [this.#answers[at - 1], this.#answers[at]];
      const seconds = Math.max(0.001, (now.time_ms - before.time_ms) / 1000);
      rates.push(Math.max(0, read(now) - read(before)) / seconds);
    }
    return rates;
  }

  values(read) {
    return this.#answers.map(read);
  }

  /** What `read` of an answer rose by in the last minute, or since we look. */
  lastMinute(read) {
    const now = this.#answers.at(-1);
    if (!now) return 0;
    const first = this.#answers.find((answer) => answer.time_ms >= now.time_ms - 60_000);
    return Math.max(0, read(now) - read(first));
  }
}

/** A line of the values from left to right, the newest at the right edge; from zero, so that a wiggle is not a mountain. */
export class Line {
  constructor() {
    this.element = document.createElementNS(SVG, "svg");
    this.element.setAttribute("viewBox", `0 0 ${KEPT - 1} 20`);
    this.element.setAttribute("preserveAspectRatio", "none");
    this.element.setAttribute("aria-hidden", "true");
    this.area = document.createElementNS(SVG, "path");
    this.line = document.createElementNS(SVG, "polyline");
    this.element.append(this.area, this.line);
  }

  draw(values) {
    const top = Math.max(...values, 0) || 1;
    const from = KEPT - values.length;
    const points = values.map((value, at) => `${from + at},${(19.5 - (value / top) * 18.5).toFixed(2)}`);
    this.line.setAttribute("points", points.join(" "));
    this.area.setAttribute("d", points.length > 1 ? `M${from},20 L${points.join(" L")} L${KEPT - 1},20 Z` : "");
  }
}

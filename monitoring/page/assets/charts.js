// Curves as SVG, drawn at the size that they have, and the words that say the same to whoever cannot see them.
import { span } from "/fleet/words.js";

const SVG = "http://www.w3.org/2000/svg";

export function svg(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

function steps(low, high, wanted) {
  const raw = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= raw - 1e-12);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-6; at += step) found.push(at);
  return found;
}

function timeSteps(length, wanted) {
  const nice = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800];
  const step = nice.find((each) => length / each <= wanted) ?? nice.at(-1);
  const found = [];
  for (let at = 0; at <= length; at += step) found.push(at);
  return found;
}

const since = (seconds) => {
  if (seconds === 0) return "start";
  if (seconds < 3600) return `${Math.floor(seconds / 60)}:${String(Math.round(seconds % 60)).padStart(2, "0")}`;
  return span(seconds);
};

export class Curve {
  // options: axes (bool), low and high of the scale or null, format(value), unit words, spark (bool).
  constructor(figure, options) {
    this.figure = figure;
    this.options = options;
    this.canvas = svg("svg", { "aria-hidden": "true" });
    this.hint = document.createElement("div");
    this.hint.className = "hint";
    this.hint.hidden = true;
    figure.append(this.canvas, this.hint);
    this.data = { lines: [], marks: [] };
    new ResizeObserver(() => this.draw()).observe(figure);
    if (!options.spark) {
      figure.addEventListener("pointermove", (event) => this.point(event));
      figure.addEventListener("pointerleave", () => this.point(null));
    }
  }

  // lines: [[[t, y], …], …], the first one filled; marks: times at which the process was started again.
  show(lines, marks = [], range = null) {
    this.data = { lines: lines.map((line) => line.filter(([, y]) => y !== null)), marks, range };
    this.draw();
  }

  scale() {
    const all = this.data.lines.flat();
    if (!all.length) return null;
    const [from, to] = this.data.range ?? [Math.min(...all.map(([t]) => t)), Math.max(...all.map(([t]) => t))];
    const values = all.map(([, y]) => y);
    let low = this.options.low ?? Math.min(...values);
    let high = this.options.high ?? Math.max(...values);
    if (this.options.fit) low = Math.min(this.options.fit, Math.floor(Math.min(...values) * 10) / 10);
    if (high - low < 1e-9) high = low + 1;
    const { width, height } = this.figure.getBoundingClientRect();
    const edge = this.options.spark ? { left: 1, right: 3, top: 3, bottom: 2 } : { left: 42, right: 10, top: 10, bottom: 20 };
    const length = Math.max(1, to - from);
    return {
      from, length, low, high, width, height, edge,
      x: (t) => edge.left + ((t - from) / length) * (width - edge.left - edge.right),
      y: (v) => height - edge.bottom - ((v - low) / (high - low)) * (height - edge.top - edge.bottom),
    };
  }

  draw() {
    const at = this.scale();
    this.at = at;
    const { width, height } = this.figure.getBoundingClientRect();
    this.canvas.setAttribute("viewBox", `0 0 ${width} ${height}`);
    if (!at) {
      const words = this.options.spark ? [] : [svg("text", { x: width / 2, y: height / 2, class: "empty", "text-anchor": "middle" }, this.options.empty ?? "")];
      this.canvas.replaceChildren(...words);
      return;
    }
    this.canvas.replaceChildren(...(this.options.spark ? [] : this.axes(at)), ...this.lines(at));
  }

  axes(at) {
    const made = [];
    for (const value of steps(at.low, at.high, at.height > 120 ? 4 : 2)) {
      const y = at.y(value);
      made.push(svg("line", { x1: at.edge.left, x2: at.width - at.edge.right, y1: y, y2: y, class: "gridline" }));
      made.push(svg("text", { x: at.edge.left - 8, y: y + 4, class: "axis", "text-anchor": "end" }, this.options.format(value)));
    }
    for (const t of timeSteps(at.length, at.width / 90)) {
      const x = at.x(at.from + t);
      made.push(svg("text", { x, y: at.height - 4, class: "axis", "text-anchor": t ? "middle" : "start" }, since(t)));
    }
    for (const t of this.data.marks) {
      if (t < at.from) continue;
      const x = at.x(t);
      made.push(svg("line", { x1: x, x2: x, y1: at.edge.top, y2: at.height - at.edge.bottom, class: "restart" }));
      if (at.height > 120) made.push(svg("text", { x: x + 4, y: at.height - at.edge.bottom - 6, class: "restart-text" }, "aggregator started again"));
    }
    return made;
  }

  lines(at) {
    const made = [];
    this.data.lines.forEach((line, number) => {
      if (!line.length) return;
      const points = line.map(([t, v]) => [at.x(t), at.y(v)]);
      if (number === 0 && !this.options.bare) {
        const floor = at.height - at.edge.bottom;
        const area = `${path(points)}L${points.at(-1)[0].toFixed(1)} ${floor}L${points[0][0].toFixed(1)} ${floor}Z`;
        made.push(svg("path", { d: area, class: "area" }));
      }
      made.push(svg("path", { d: path(points), class: number || this.options.second ? "curve second" : "curve" }));
      if (number === 0) {
        const [cx, cy] = points.at(-1);
        made.push(svg("circle", { cx, cy, r: this.options.spark ? 3 : 4.5, class: this.options.second ? "tip second" : "tip" }));
      }
    });
    return made;
  }

  point(event) {
    this.canvas.querySelector(".cross")?.remove();
    const line = this.data.lines[0];
    this.hint.hidden = !event || !this.at || !line?.length;
    if (this.hint.hidden) return;
    const x = event.clientX - this.figure.getBoundingClientRect().left;
    const nearest = line.reduce((best, each) => (Math.abs(this.at.x(each[0]) - x) < Math.abs(this.at.x(best[0]) - x) ? each : best));
    const px = this.at.x(nearest[0]);
    this.canvas.append(svg("line", { x1: px, x2: px, y1: this.at.edge.top, y2: this.at.height - this.at.edge.bottom, class: "cross" }));
    this.hint.textContent = this.options.words(nearest, nearest[0] - this.at.from);
    this.hint.style.left = `${Math.min(Math.max(px, 60), this.at.width - 60)}px`;
    this.hint.style.top = `${this.at.y(nearest[1])}px`;
  }
}

// A hash as sixteen bars, so that an eye can compare it with its parent's.
export function fingerprint(hash) {
  const made = svg("svg", { class: "print", viewBox: "0 0 64 16", preserveAspectRatio: "none", "aria-hidden": "true" });
  [...hash.slice(0, 16)].forEach((nibble, i) => {
    const height = 1 + parseInt(nibble, 16);
    made.append(svg("rect", { x: 4 * i, y: 16 - height, width: 3, height, rx: 0.6 }));
  });
  return made;
}

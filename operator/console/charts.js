// Small charts of the last minutes, as SVG.

import { el, fill, svg } from "./dom.js";

const POINTS_MAX = 120;
const WIDTH = 240;
const HEIGHT = 48;

/** A chart that grows to the right. `show` writes a value in words. */
export class Chart {
  constructor(title, show) {
    Object.assign(this, { show, values: [] });
    this.figure = el("output", { class: "figure" }, "–");
    this.line = svg("polyline", { class: "line", fill: "none" });
    this.area = svg("polygon", { class: "area" });
    const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, this.area, this.line);
    this.element = el("div", { class: "chart" }, el("h3", {}, title), this.figure, drawing);
  }

  /** Adds a value. */
  add(value) {
    this.values = [...this.values, value].slice(-POINTS_MAX);
    const most = Math.max(1e-9, ...this.values);
    const x = (index) => WIDTH - (this.values.length - 1 - index) * (WIDTH / (POINTS_MAX - 1));
    const y = (of) => HEIGHT - 2 - (of / most) * (HEIGHT - 6);
    const points = this.values.map((of, index) => `${x(index).toFixed(1)},${y(of).toFixed(1)}`);
    this.line.setAttribute("points", points.join(" "));
    this.area.setAttribute("points", [`${x(0)},${HEIGHT}`, ...points, `${WIDTH},${HEIGHT}`].join(" "));
    fill(this.figure, this.show(value));
  }
}

// Line charts of the report and of the studio.

import { $, fill, h, hideTip, isNumber, ratio, showTip, tipTable } from "./common.js";

/** @param {string} tag @param {Record<string, any>} attributes @param {...any} children @returns {any} */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS($("blank").namespaceURI, tag);
  fill(element, attributes, children);
  return element;
}

/** The index of the value that is nearest. */
export const nearest = (tious, value) => tious.reduce((best, one, i) => (Math.abs(one - value) < Math.abs(tious[best] - value) ? i : best), 0);

/**
 * @param {{title: string, series: {name: string, colour: string, xs: number[], ys: (number | null)[]}[], format: (value: number) => string,
 *   xFormat: (value: number) => string, zero?: boolean, ticksX?: number[]}} chart with gaps where a value is null; from 0 on if `zero`
 */
export function lineChart({ title, series, format, xFormat, zero, ticksX }) {
  const width = 380, height = 220, left = 38, right = 8, bottom = 24, up = 8;
  const xs = series.flatMap((one) => one.xs), ys = series.flatMap((one) => one.ys).filter(isNumber);
  const x0 = Math.min(...xs), x1 = Math.max(...xs, x0 + 1e-9), peak = Math.max(...ys);
  const step = niceStep((peak - (zero ? 0 : Math.min(...ys))) / 4);
  const y0 = zero ? 0 : Math.floor(Math.min(...ys) / step - 1e-9) * step, y1 = Math.max(Math.ceil(peak / step - 1e-9) * step, y0 + step);
  const x = (value) => left + ((value - x0) / (x1 - x0)) * (width - left - right);
  const y = (value) => height - bottom - ((value - y0) / (y1 - y0)) * (height - bottom - up);
  const parts = [];
  for (let i = 0; y0 + i * step <= y1 + 1e-9; i++) {
    const value = y0 + i * step;
    parts.push(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    parts.push(svg("text", { x: left - 7, y: y(value) + 4, "text-anchor": "end" }, format(value)));
  }
  for (const value of ticksX ?? niceTicks(x0, x1)) parts.push(svg("text", { x: x(value), y: height - 6, "text-anchor": "middle" }, xFormat(value)));
  for (const one of series) {
    let pen = "M";
    const path = one.xs.map((value, i) => {
      if (!isNumber(one.ys[i])) { pen = "M"; return ""; }
      const piece = `${pen}${x(value).toFixed(1)} ${y(one.ys[i]).toFixed(1)}`;
      pen = "L";
      return piece;
    }).join("");
    parts.push(svg("path", { d: path, style: `stroke:${one.colour}` }));
    if (one.xs.length <= 12) one.xs.forEach((value, i) => isNumber(one.ys[i]) && parts.push(svg("circle", { cx: x(value), cy: y(one.ys[i]), r: 3, style: `fill:${one.colour}` })));
  }
  const cursor = svg("line", { class: "cursor", y1: up, y2: height - bottom, visibility: "hidden" });
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title }, parts, cursor);
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect(), value = x0 + (((event.clientX - box.left) / box.width) * width - left) / (width - left - right) * (x1 - x0);
    const longest = series.reduce((a, b) => (b.xs.length > a.xs.length ? b : a)), at = longest.xs[nearest(longest.xs, value)];
    cursor.setAttribute("visibility", "visible");
    cursor.setAttribute("x1", x(at));
    cursor.setAttribute("x2", x(at));
    const rows = series.map((one) => [one.name, one.ys[one.xs.indexOf(at)]]).filter(([, number]) => isNumber(number));
    showTip(event, [`${title}, ${xFormat(at)}`, tipTable(rows.map(([name, number]) => [name, ratio(number)]))]);
  });
  picture.addEventListener("pointerleave", () => { cursor.setAttribute("visibility", "hidden"); hideTip(); });
  return h("div", { class: "chart" }, h("h3", {}, title), picture);
}

function niceStep(rough) {
  const unit = 10 ** Math.floor(Math.log10(Math.max(rough, 1e-9)));
  return ([1, 2, 2.5, 5].find((one) => one * unit >= rough * 0.999) ?? 10) * unit;
}

function niceTicks(from, to) {
  const step = niceStep((to - from) / 4), ticks = [];
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to + 1e-9; i++) ticks.push(i * step);
  return ticks;
}

// The timeline of the report, of the page of a prediction and of the studio: lanes of bars, points and curves over time.

import {
  clamp, classColour, cut, fitCanvas, font, h, hideTip, isDark, isNumber, onDrag, readColours, showTip, sum, timeTicks, writeTick,
} from "./common.js";

/**
 * A window of time, in seconds.
 * @typedef {{start: number, end: number}} View
 *
 * What is drawn as a bar, or said to be in focus; `label` is the number of its class.
 * @typedef {{label: number, start: number, end: number, [key: string]: any}} Span
 *
 * With `edges`, its start and its end can be dragged; a `hollow` one is an outline.
 * @typedef {{start: number, end: number, top: number, height: number, alpha: number, colour: string, text?: string, span?: any,
 *   tip?: () => any[], edges?: boolean, hollow?: boolean, [key: string]: any}} Bar
 *
 * A moment: a pin with a head, or a `faint` line; `cross` for "nothing here".
 * @typedef {{time: number, colour: string, tip?: () => any[], faint?: boolean, cross?: boolean, text?: string, span?: any,
 *   [key: string]: any}} Tick
 *
 * Values from 0 to 255, every `step` seconds from `start` on, or at `times`; see `drawCurve`.
 * @typedef {{values: any, lows?: any, start?: number, step?: number, times?: any, colour?: string, top?: number, height?: number,
 *   shade?: number}} Curve
 *
 * A lane. `level` is a line that can be dragged, from 0 at the bottom to 1; `washes` colour stretches of the ground.
 * @typedef {{label: string, height: number, note?: string, colour?: string, bars?: Bar[], ticks?: Tick[], curve?: Curve | null,
 *   strip?: any[], washes?: {start: number, end: number, colour: string, alpha: number}[], level?: number | null, key?: any,
 *   tip?: any, about?: () => any[], y?: number}} Lane
 *
 * What a pointer is at: `edge` of a bar that has `edges`, or the `level` of a lane.
 * @typedef {{lane?: Lane, bar: any, edge?: "start" | "end" | null, level?: boolean}} Hit
 *
 * What shows one or several timelines. `press` may take a press of the pointer, and then its moves and its end; others pan.
 * `lit` spans are highlighted.
 * @typedef {{view: View, duration: number, show: (start: number, end: number) => void, zoom: (factor: number, time?: number) => void,
 *   focused: {time: number | null, span: any}, focus: (time: number | null, span: any) => void, click?: (time: number, span: any) => void,
 *   lit?: (span: any) => boolean, press?: (time: number, hit: Hit, event: PointerEvent) => Follow | null}} Host
 * @typedef {{move: (time: number, event: PointerEvent) => void, end?: (moved: boolean) => void}} Follow
 */

/** Base64 of bytes, as many for each key, as a map of arrays. */
export function unpackBytes(keys, text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0)), length = bytes.length / keys.length;
  return new Map(keys.map((key, i) => [key, bytes.subarray(i * length, (i + 1) * length)]));
}

/** Curves by class, as `drawCurve` takes them; a value stands for `stride` seconds. */
export function unpackCurves({ classes, start, stride, data }) {
  return new Map([...unpackBytes(classes, data)].map(([label, values]) => [label, { values, start, step: stride }]));
}

/** Draws within a rectangle. */
export function clipped(context, x, y, width, height, draw) {
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  draw();
  context.restore();
}

/** Draws spans as plain bars, the last on top. */
export function drawSpans(context, spans, toX, top, height, opacity = (/** @type {number} */ _) => 1) {
  for (const span of spans) {
    context.globalAlpha = opacity(span.score);
    context.fillStyle = classColour(span.label);
    context.fillRect(toX(span.start), top, Math.max(1, toX(span.end) - toX(span.start)), height);
  }
  context.globalAlpha = 1;
}

/** The index of the first of rising times that is not before a time. */
export function firstFrom(times, time) {
  let low = 0, high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < time) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * Draws values from 0 to 255, the extreme ones of every pixel.
 * `shade` is the opacity of the area below the curve; with `lows`, the area between these and the values is opaque.
 */
export function drawCurve(context, { values, lows, start = 0, step = 1, times, colour, top, height, shade = 0 }, toX, view, width) {
  const at = (time) => (times ? firstFrom(times, time) : (time - start) / step), y = (value) => top + height - (value / 255) * height;
  const first = Math.max(0, Math.floor(at(view.start)) - 1), last = Math.min(values.length - 1, Math.ceil(at(view.end)) + 1);
  const every = Math.max(1, Math.floor((last - first) / width)), upper = [], lower = [];
  for (let i = first - (first % every); i <= last; i += every) {
    const x = toX(times ? times[i] : start + (i + (every - 1) / 2) * step);
    upper.push([x, y(Math.max(...values.subarray(i, i + every)))]);
    lower.push([x, lows ? y(Math.min(...lows.subarray(i, i + every))) : top + height]);
  }
  if (!upper.length) return;
  // A point between two of its height adds nothing to the picture.
  const trace = (points) => points.forEach(([x, y], i) => {
    if (y !== points[i - 1]?.[1] || y !== points[i + 1]?.[1]) context.lineTo(x, y);
  });
  context.beginPath();
  trace(upper);
  context.lineWidth = shade ? 1.4 : 1.1;
  context.lineJoin = "round";
  context.strokeStyle = context.fillStyle = colour;
  context.stroke();
  if (!lows && !shade) return;
  trace(lower.reverse());
  context.closePath();
  context.globalAlpha = lows ? 1 : shade;
  context.fill();
  if (lows) context.stroke();
  context.globalAlpha = 1;
}

/**
 * A canvas of lanes that share a host's window of time. Bars are drawn in order, the last on top.
 */
export class Timeline {
  /** @type {Lane[]} */
  lanes = [];
  /** Where a press began, and the window then. @type {{x: number, y: number, moved: boolean, spread: number, start: number, end: number} | null} */
  drag = null;
  /** What a host does with the press. @type {Follow | null} */
  follow = null;
  /** @type {Map<number, number>} */
  fingers = new Map();

  /**
   * @param {Host} host
   * @param {() => Lane[]} makeLanes
   * @param {Record<string, any>} attributes of the canvas
   * @param {number} axis the height of the times above the lanes
   * @param {boolean} wheelZooms a plain wheel zooms, too; otherwise it scrolls
   */
  constructor(host, makeLanes, attributes, axis = 24, wheelZooms = false) {
    this.host = host;
    this.makeLanes = makeLanes;
    this.axis = axis;
    this.wheelZooms = wheelZooms;
    /** @type {HTMLCanvasElement} */
    this.canvas = h("canvas", {
      class: "timeline", ...attributes,
      onwheel: (event) => this.wheel(event),
      onpointerdown: (event) => this.press(event),
      onpointermove: (event) => this.move(event),
      onpointerup: (event) => this.release(event, true),
      onpointercancel: (event) => this.release(event, false),
      onpointerleave: () => { hideTip(); host.focus(null, null); },
      ondblclick: (event) => { if (!host.press && !(host.click && this.hit(event).bar)) host.show(0, host.duration); },
    });
    this.toX = this.toX.bind(this);
  }

  update() { this.lanes = this.makeLanes(); }

  /** The width of the canvas when it was last drawn: asking the browser for each of many places would be slow. */
  width = 0;
  get gutter() { return this.width < 620 ? 92 : 172; }
  get room() { return this.width - this.gutter; }
  toX(time) {
    const { start, end } = this.host.view;
    return this.gutter + ((time - start) / (end - start)) * this.room;
  }
  toTime(x) {
    const { start, end } = this.host.view;
    return start + ((x - this.gutter) / this.room) * (end - start);
  }

  // ---- drawing

  draw() {
    const height = this.axis + sum(this.lanes.map((lane) => lane.height + 1));
    const { context, width } = fitCanvas(this.canvas, height), colours = readColours(), top = Math.max(this.axis - 6, 0);
    this.width = width;
    context.font = font(11.5);
    timeTicks(this.host.view, this.room, this.toX, (x, text) => {
      context.fillStyle = colours.grid;
      context.fillRect(Math.round(x), top, 1, height);
      context.fillStyle = colours.muted;
      if (this.axis) writeTick(context, text, x, this.axis - 10, this.gutter, width);
    });
    const { time, span } = this.host.focused;
    if (span) {
      const left = Math.max(this.toX(span.start), this.gutter);
      context.globalAlpha = 0.15;
      context.fillStyle = classColour(span.label);
      context.fillRect(left, this.axis, Math.max(0, this.toX(span.end) - left), height);
      context.globalAlpha = 1;
    }
    let y = this.axis;
    for (const lane of this.lanes) {
      lane.y = y;
      this.drawLane(context, width, lane, colours);
      y += lane.height + 1;
    }
    context.fillStyle = colours.muted;
    if (time !== null && this.toX(time) >= this.gutter) context.fillRect(Math.round(this.toX(time)), top, 1, height);
  }

  drawLane(context, width, lane, colours) {
    const { y, height } = lane, room = this.gutter - 14, indent = lane.colour ? 16 : 0, middle = y + Math.min(height / 2, 13);
    context.fillStyle = colours.line;
    context.fillRect(0, y + height, width, 1);
    context.textBaseline = "middle";
    if (lane.colour) {
      context.fillStyle = lane.colour;
      context.beginPath();
      context.roundRect(0, middle - 5, 10, 10, 3);
      context.fill();
    }
    context.fillStyle = colours.ink;
    context.font = font(height > 24 ? 13 : 12, 550);
    context.fillText(cut(context, lane.label, room - indent), indent, middle);
    if (lane.note) {
      context.fillStyle = colours.muted;
      context.font = font(11.5);
      context.fillText(cut(context, lane.note, room - indent), indent, y + 28);
    }
    clipped(context, this.gutter, y, width - this.gutter, height, () => {
      for (const wash of lane.washes ?? []) {
        context.globalAlpha = wash.alpha;
        context.fillStyle = wash.colour;
        context.fillRect(this.toX(wash.start), y, this.toX(wash.end) - this.toX(wash.start), height);
        context.globalAlpha = 1;
      }
      const bars = (lane.bars ?? []).filter((bar) => this.toX(bar.end) >= this.gutter - 3 && this.toX(bar.start) <= width);
      const drawBars = () => bars.forEach((bar) => this.drawBar(context, y, bar, colours));
      if (!lane.curve?.shade) drawBars(); // a line is drawn over the bars, an area below them
      if (lane.curve) drawCurve(context, { ...lane.curve, top: y + lane.curve.top }, this.toX, this.host.view, width);
      if (lane.curve?.shade) drawBars();
      bars.forEach((bar, i) => bar.text && this.nameBar(context, y, bar, bars.slice(i + 1), colours));
      for (const mark of lane.strip ?? []) this.drawMark(context, y, mark, colours);
      this.drawTicks(context, lane, width, colours);
      if (isNumber(lane.level)) this.drawLevel(context, lane, width, colours);
    });
  }

  drawBar(context, laneY, bar, colours) {
    const left = this.toX(bar.start), width = Math.max(3, this.toX(bar.end) - left), lit = this.host.lit?.(bar.span);
    if (width < 4 && !lit) {
      context.globalAlpha = bar.hollow ? 0.2 : Math.min(1, bar.alpha + 0.2);
      context.fillStyle = bar.colour;
      context.fillRect(left, laneY + bar.top, width, bar.height);
      context.globalAlpha = 1;
      return;
    }
    context.beginPath();
    context.roundRect(left, laneY + bar.top, width, bar.height, Math.min(3, width / 2));
    context.globalAlpha = bar.alpha;
    context.fillStyle = bar.colour;
    if (!bar.hollow) context.fill();
    context.globalAlpha = this.host.lit ? 1 : Math.min(1, bar.alpha + 0.3);
    context.strokeStyle = lit ? colours.ink : bar.colour;
    context.lineWidth = lit ? 2 : 1;
    context.stroke();
    context.globalAlpha = 1;
  }

  /** Writes the class into a bar that has room for it and where no later bar covers it. */
  nameBar(context, laneY, bar, above, colours) {
    const from = Math.max(this.toX(bar.start), this.gutter), room = Math.min(this.toX(bar.end), this.width) - from - 8;
    if (room < 22) return;
    context.font = font(11, 550);
    const text = cut(context, bar.text, room), to = from + 4 + context.measureText(text).width;
    if (above.some((other) => this.toX(other.start) < to && this.toX(other.end) > from)) return;
    context.fillStyle = bar.alpha < 0.62 ? colours.ink : isDark(bar.colour) ? "#ffffff" : "#10141a";
    context.fillText(text, from + 4, laneY + bar.top + bar.height / 2 + 0.5);
  }

  /** Under a round's lane: each annotated instance, solid where the round found it, hollow where it missed it. */
  drawMark(context, laneY, mark, colours) {
    const left = this.toX(mark.start), width = Math.max(3, this.toX(mark.end) - left - 1);
    if (mark.found) {
      context.fillStyle = colours.faint;
      context.fillRect(left, laneY + mark.top, width, 4);
    } else {
      context.strokeStyle = colours.missed;
      context.lineWidth = 1.5;
      context.strokeRect(left + 0.75, laneY + mark.top + 0.75, Math.max(1.5, width - 1.5), 2.5);
    }
  }

  drawTicks(context, lane, width, colours) {
    if (!lane.ticks?.length) return;
    const ticks = this.inSight(lane.ticks, width);
    context.font = font(12, 450);
    ticks.forEach((tick, i) => {
      if (!tick.faint) this.drawTick(context, lane, tick, colours);
      if (!tick.text) return;
      const x = this.toX(tick.time), next = ticks[i + 1], room = (next ? this.toX(next.time) : width) - x - 14;
      if (room < 22) return;
      context.fillStyle = colours.ink;
      context.fillText(cut(context, tick.text, Math.min(room, 220)), x + 10, lane.y + 9);
    });
    this.drawFaint(context, lane, ticks.filter(({ faint }) => faint));
  }

  /** Those that can be seen: of many at the same pixel the first one, and what is lit. */
  inSight(ticks, width) {
    const { start, end } = this.host.view, margin = (160 / this.room) * (end - start);
    let last = -Infinity;
    return ticks.filter((tick) => {
      if (tick.time < start - margin || tick.time > end) return false;
      const x = Math.round(this.toX(tick.time)), seen = x !== last || this.host.lit?.(tick.span);
      last = x;
      return seen && x < width + 10;
    });
  }

  /** Lines without a head, each colour at once. */
  drawFaint(context, { y, height }, ticks) {
    context.lineWidth = 1;
    context.globalAlpha = 0.55;
    for (const colour of new Set(ticks.map((tick) => tick.colour))) {
      context.strokeStyle = colour;
      context.beginPath();
      for (const tick of ticks) {
        if (tick.colour !== colour) continue;
        const x = Math.round(this.toX(tick.time)) + 0.5;
        context.moveTo(x, y);
        context.lineTo(x, y + height);
      }
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  drawTick(context, lane, tick, colours) {
    const x = this.toX(tick.time), { y } = lane, lit = this.host.lit?.(tick.span);
    context.fillStyle = context.strokeStyle = tick.colour;
    context.fillRect(x - (lit ? 1.5 : 1), y + 6, lit ? 3 : 2, lane.height - 6);
    context.beginPath();
    context.arc(x, y + 8, lit ? 7 : 4.5, 0, 7);
    if (tick.cross) context.fillStyle = colours.card;
    context.fill();
    if (tick.cross || lit) {
      context.strokeStyle = lit ? colours.ink : tick.colour;
      context.lineWidth = 2;
      context.stroke();
    }
    if (!tick.cross) return;
    context.strokeStyle = tick.colour;
    context.beginPath();
    for (const side of [-1, 1]) {
      context.moveTo(x - 2, y + 8 - 2 * side);
      context.lineTo(x + 2, y + 8 + 2 * side);
    }
    context.stroke();
  }

  /** The line of a threshold, with a handle at its left end. */
  drawLevel(context, lane, width, colours) {
    const y = lane.y + lane.height * (1 - clamp(lane.level, 0, 1));
    context.strokeStyle = context.fillStyle = colours.accent;
    context.lineWidth = 1.25;
    context.setLineDash([5, 3]);
    context.beginPath();
    context.moveTo(this.gutter, y);
    context.lineTo(width, y);
    context.stroke();
    context.setLineDash([]);
    context.fillRect(this.gutter, y - 4, 5, 8);
  }

  // ---- pointers

  /**
   * @param {{offsetX: number, offsetY: number}} event
   * @returns {Hit}
   */
  hit({ offsetX: x, offsetY: y }) {
    const lane = this.lanes.find(({ y: top = 0, height }) => y >= top && y < top + height + 1);
    if (!lane || x < this.gutter) return { lane, bar: null };
    const at = y - (lane.y ?? 0), near = (a, b) => x >= this.toX(a) - 4 && x <= Math.max(this.toX(b), this.toX(a) + 3) + 4;
    const distance = (tick) => Math.abs(this.toX(tick.time) - x);
    const tick = (lane.ticks ?? []).filter((one) => one.tip && distance(one) < 7).sort((a, b) => distance(a) - distance(b))[0];
    if (tick) return { lane, bar: tick };
    const level = isNumber(lane.level) && Math.abs(lane.height * (1 - clamp(lane.level, 0, 1)) - at) < 4;
    const bar = (lane.bars ?? []).findLast((one) => at >= one.top - 1 && at <= one.top + one.height + 1 && near(one.start, one.end)) ?? null;
    return { lane, bar, edge: bar?.edges ? this.edgeAt(bar, x) : null, level };
  }

  /** The edge of a bar near a place: outside of it and, if it is wide, a little within. */
  edgeAt(bar, x) {
    const left = this.toX(bar.start), right = this.toX(bar.end), within = clamp((right - left) / 4, 1, 5);
    if (x < left + within) return "start";
    return x > right - within ? "end" : null;
  }

  /** The distance of two fingers, and the place between them. */
  pinch() {
    const xs = [...this.fingers.values()];
    return { spread: Math.max(20, Math.abs(xs[0] - xs[1])), middle: sum(xs) / xs.length };
  }

  press(event) {
    if (event.button !== 0) return;
    if (event.pointerType === "mouse") this.canvas.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, event.offsetX);
    const inside = event.offsetX >= this.gutter && this.fingers.size === 1;
    this.follow = inside ? this.host.press?.(this.toTime(event.offsetX), this.hit(event), event) ?? null : null;
    if (this.follow) this.canvas.setPointerCapture(event.pointerId);
    this.drag = { x: event.offsetX, y: event.offsetY, moved: this.fingers.size > 1, spread: this.pinch().spread, ...this.host.view };
  }

  move(event) {
    if (!this.drag) return this.hover(event);
    if (!this.fingers.has(event.pointerId)) return;
    this.fingers.set(event.pointerId, event.offsetX);
    const { x, y, spread, start, end } = this.drag, length = end - start;
    if (this.follow) {
      this.drag.moved ||= Math.hypot(x - event.offsetX, y - event.offsetY) > 2;
      if (this.drag.moved) this.follow.move(this.toTime(event.offsetX), event);
    } else if (this.fingers.size > 1) {
      const now = this.pinch(), factor = spread / now.spread, part = (now.middle - this.gutter) / this.room, time = start + part * length;
      this.host.show(time - part * length * factor, time + (1 - part) * length * factor);
    } else if (this.drag.moved || Math.abs(x - event.offsetX) > 3) {
      const shift = ((x - event.offsetX) / this.room) * length;
      this.drag.moved = true;
      this.canvas.classList.add("dragging");
      hideTip();
      this.host.show(start + shift, end + shift);
    }
  }

  hover(event) {
    const { lane, bar, edge, level } = this.hit(event), inside = event.offsetX >= this.gutter, time = inside ? this.toTime(event.offsetX) : null;
    this.host.focus(time, bar?.span ?? null);
    if (this.host.press) this.canvas.style.cursor = edge ? "ew-resize" : bar ? "pointer" : level ? "ns-resize" : "";
    const rows = bar ? bar.tip?.() : inside ? lane?.tip?.(time) : lane?.about?.();
    if (rows) showTip(event, rows);
    else hideTip();
  }

  release(event, click) {
    this.follow?.end?.(this.drag?.moved ?? false);
    if (this.follow) this.follow = null;
    else if (click && this.drag && !this.drag.moved && event.offsetX >= this.gutter) this.host.click?.(this.toTime(event.offsetX), this.hit(event).bar?.span);
    this.fingers.delete(event.pointerId);
    if (!this.fingers.size) this.drag = null;
    this.canvas.classList.remove("dragging");
  }

  /** Zooms with Ctrl or where a plain wheel does, and pans by a part of the window if the wheel is turned sideways or with Shift. */
  wheel(event) {
    const { start, end } = this.host.view;
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : Math.abs(event.deltaX) > Math.abs(event.deltaY) ? event.deltaX : 0;
    const by = (sideways / this.canvas.clientWidth) * (end - start);
    if (event.ctrlKey || event.metaKey) this.host.zoom(Math.exp(clamp(event.deltaY, -60, 60) * 0.008), this.toTime(Math.max(event.offsetX, this.gutter)));
    else if (sideways) this.host.show(start + by, end + by);
    else if (this.wheelZooms) this.host.zoom(Math.exp(clamp(event.deltaY, -200, 200) * 0.002), this.toTime(Math.max(event.offsetX, this.gutter)));
    else return; // a plain wheel scrolls
    event.preventDefault();
  }
}

/** A strip of the whole recording with the visible window, which can be dragged, as can its ends. */
export class Overview {
  /**
   * @param {Host & {leastSpan: () => number}} host
   * @param {(context: CanvasRenderingContext2D, toX: (time: number) => number, height: number) => void} paint what is in the recording
   */
  constructor(host, paint) {
    this.host = host;
    this.paint = paint;
    /** @type {HTMLCanvasElement} */
    this.canvas = h("canvas", { class: "brush", "aria-hidden": true });
    onDrag(this.canvas, (event) => this.press(event));
  }

  press(event) {
    const { host } = this, timeAt = ({ offsetX }) => (offsetX / this.canvas.clientWidth) * host.duration;
    const { start, end } = host.view, from = timeAt(event), reach = (6 / this.canvas.clientWidth) * host.duration, least = host.leastSpan();
    if (Math.abs(from - start) < reach) return (move) => host.show(Math.min(timeAt(move), host.view.end - least), host.view.end);
    if (Math.abs(from - end) < reach) return (move) => host.show(host.view.start, Math.max(timeAt(move), host.view.start + least));
    const half = (end - start) / 2;
    if (from < start || from > end) host.show(from - half, from + half);
    const first = host.view;
    return (move) => host.show(first.start + timeAt(move) - from, first.end + timeAt(move) - from);
  }

  draw() {
    const height = 26, { context, width } = fitCanvas(this.canvas, height), { view, duration } = this.host, colours = readColours();
    const toX = (time) => (time / duration) * width, left = toX(view.start), right = toX(view.end);
    context.fillStyle = colours.sunken;
    context.fillRect(0, 0, width, height);
    this.paint(context, toX, height);
    context.fillStyle = colours.card;
    context.globalAlpha = 0.7;
    context.fillRect(0, 0, left, height);
    context.fillRect(right, 0, width, height);
    context.globalAlpha = 1;
    context.strokeStyle = context.fillStyle = colours.accent;
    context.lineWidth = 2;
    context.beginPath();
    context.roundRect(left + 1, 1, Math.max(3, right - left - 2), height - 2, 4);
    context.stroke();
    for (const edge of [left + 2, right - 4]) context.fillRect(edge, 9, 2, 8);
  }
}

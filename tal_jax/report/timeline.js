// The timelines of the report and of the page of a prediction: lanes of bars and curves over time.

import {
  clamp, classColour, cut, fitCanvas, font, h, hideTip, isDark, readColours, showTip, sum, timeTicks, writeTick,
} from "./common.js";

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
export function drawSpans(context, spans, toX, top, height, opacity = () => 1) {
  for (const span of spans) {
    context.globalAlpha = opacity(span.score);
    context.fillStyle = classColour(span.label);
    context.fillRect(toX(span.start), top, Math.max(1, toX(span.end) - toX(span.start)), height);
  }
  context.globalAlpha = 1;
}

/**
 * Draws values from 0 to 255, the extreme ones of every pixel.
 * `shade` is the opacity of the area below the curve; with `lows`, the area between these and the values is opaque.
 */
export function drawCurve(context, { values, lows, start, step, colour, top, height, shade = 0 }, toX, view, width) {
  const at = (time) => (time - start) / step, y = (value) => top + height - (value / 255) * height;
  const first = Math.max(0, Math.floor(at(view.start)) - 1), last = Math.min(values.length - 1, Math.ceil(at(view.end)) + 1);
  const every = Math.max(1, Math.floor((last - first) / (1.5 * width))), upper = [], lower = [];
  for (let i = first - (first % every); i <= last; i += every) {
    const x = toX(start + (i + (every - 1) / 2) * step);
    upper.push([x, y(Math.max(...values.subarray(i, i + every)))]);
    lower.push([x, lows ? y(Math.min(...lows.subarray(i, i + every))) : top + height]);
  }
  if (!upper.length) return;
  const trace = (points) => points.forEach(([x, y]) => context.lineTo(x, y));
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
 * A canvas of lanes that share a host's window of time.
 *
 * A host has `view`, `duration`, `show(start, end)`, `zoom(factor, time)`, `focused` {time, span} and `focus(time, span)`; if bars
 * can be clicked, also `click(time, span)` and `lit(span)`, which are highlighted.
 * A lane: {label, note, colour, height, bars, ticks, curve, strip, tip, about}; bars are drawn in order, the last on top.
 */
export class Timeline {
  constructor(host, makeLanes, attributes, axis = 24) {
    Object.assign(this, { host, makeLanes, axis, lanes: [], drag: null, fingers: new Map() });
    this.canvas = h("canvas", {
      class: "timeline", ...attributes,
      onwheel: (event) => this.wheel(event),
      onpointerdown: (event) => this.press(event),
      onpointermove: (event) => this.move(event),
      onpointerup: (event) => this.release(event, true),
      onpointercancel: (event) => this.release(event, false),
      onpointerleave: () => { hideTip(); host.focus(null, null); },
      ondblclick: (event) => { if (!host.click || !this.hit(event).bar) host.show(0, host.duration); },
    });
    this.toX = this.toX.bind(this);
  }

  update() { this.lanes = this.makeLanes(); }

  get gutter() { return this.canvas.clientWidth < 620 ? 92 : 172; }
  get room() { return this.canvas.clientWidth - this.gutter; }
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
      const bars = (lane.bars ?? []).filter((bar) => this.toX(bar.end) >= this.gutter - 3 && this.toX(bar.start) <= width);
      const drawBars = () => bars.forEach((bar) => this.drawBar(context, y, bar, colours));
      if (!lane.curve?.shade) drawBars(); // a line is drawn over the bars, an area below them
      if (lane.curve) drawCurve(context, { ...lane.curve, top: y + lane.curve.top }, this.toX, this.host.view, width);
      if (lane.curve?.shade) drawBars();
      bars.forEach((bar, i) => bar.text && this.nameBar(context, y, bar, bars.slice(i + 1), colours));
      for (const mark of lane.strip ?? []) this.drawMark(context, y, mark, colours);
      for (const tick of lane.ticks ?? []) this.drawTick(context, y, tick, lane);
    });
  }

  drawBar(context, laneY, bar, colours) {
    const left = this.toX(bar.start), width = Math.max(3, this.toX(bar.end) - left), lit = this.host.lit?.(bar.span);
    context.beginPath();
    context.roundRect(left, laneY + bar.top, width, bar.height, Math.min(3, width / 2));
    context.globalAlpha = bar.alpha;
    context.fillStyle = bar.colour;
    context.fill();
    context.globalAlpha = this.host.lit ? 1 : Math.min(1, bar.alpha + 0.3);
    context.strokeStyle = lit ? colours.ink : bar.colour;
    context.lineWidth = lit ? 2 : 1;
    context.stroke();
    context.globalAlpha = 1;
  }

  /** Writes the class into a bar that has room for it and where no later bar covers it. */
  nameBar(context, laneY, bar, above, colours) {
    const from = Math.max(this.toX(bar.start), this.gutter), room = Math.min(this.toX(bar.end), this.canvas.clientWidth) - from - 8;
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

  drawTick(context, laneY, tick, lane) {
    const x = this.toX(tick.time);
    context.fillStyle = context.strokeStyle = tick.colour;
    context.globalAlpha = tick.faint ? 0.55 : 1;
    context.lineWidth = tick.faint ? 1 : 2;
    context.setLineDash(tick.faint ? [2, 3] : []);
    context.beginPath();
    context.moveTo(x, laneY + (tick.faint ? 0 : 6));
    context.lineTo(x, laneY + lane.height);
    context.stroke();
    context.setLineDash([]);
    if (!tick.faint) {
      context.beginPath();
      context.arc(x, laneY + 7, 4, 0, 7);
      context.fill();
    }
    context.globalAlpha = 1;
  }

  // ---- pointers

  hit({ offsetX: x, offsetY: y }) {
    const lane = this.lanes.find((one) => y >= one.y && y < one.y + one.height + 1);
    if (!lane || x < this.gutter) return { lane, bar: null };
    const at = y - lane.y, near = (a, b) => x >= this.toX(a) - 2 && x <= Math.max(this.toX(b), this.toX(a) + 3) + 2;
    const tick = (lane.ticks ?? []).find((one) => one.tip && Math.abs(this.toX(one.time) - x) < 6);
    const bar = tick ?? (lane.bars ?? []).findLast((one) => at >= one.top - 1 && at <= one.top + one.height + 1 && near(one.start, one.end));
    return { lane, bar };
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
    this.drag = { x: event.offsetX, moved: this.fingers.size > 1, spread: this.pinch().spread, ...this.host.view };
  }

  move(event) {
    if (!this.drag) return this.hover(event);
    if (!this.fingers.has(event.pointerId)) return;
    this.fingers.set(event.pointerId, event.offsetX);
    const { x, spread, start, end } = this.drag, length = end - start;
    if (this.fingers.size > 1) {
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
    const { lane, bar } = this.hit(event), inside = event.offsetX >= this.gutter, time = inside ? this.toTime(event.offsetX) : null;
    this.host.focus(time, bar?.span ?? null);
    const rows = bar ? bar.tip() : inside ? lane?.tip?.(time) : lane?.about?.();
    if (rows) showTip(event, rows);
    else hideTip();
  }

  release(event, click) {
    if (click && this.drag && !this.drag.moved && event.offsetX >= this.gutter) this.host.click?.(this.toTime(event.offsetX), this.hit(event).bar?.span);
    this.fingers.delete(event.pointerId);
    if (!this.fingers.size) this.drag = null;
    this.canvas.classList.remove("dragging");
  }

  /** Zooms with Ctrl, and pans by a part of the window if the wheel is turned sideways or with Shift. */
  wheel(event) {
    const { start, end } = this.host.view;
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : Math.abs(event.deltaX) > Math.abs(event.deltaY) ? event.deltaX : 0;
    const by = (sideways / this.canvas.clientWidth) * (end - start);
    if (event.ctrlKey || event.metaKey) this.host.zoom(Math.exp(clamp(event.deltaY, -60, 60) * 0.008), this.toTime(Math.max(event.offsetX, this.gutter)));
    else if (sideways) this.host.show(start + by, end + by);
    else return; // a plain wheel scrolls
    event.preventDefault();
  }
}

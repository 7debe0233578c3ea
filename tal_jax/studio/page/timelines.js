// The timelines of the recording: its signal, its labels, and what is predicted.

import { ask } from "./api.js";
import { $, clamp, clock, css, fitCanvas, groupBy, h, plural, ratio, readColours, tipTime, tipTitle } from "./common.js";
import { confirmed, exact, nudge, rejected, select, withEdge } from "./labels.js";
import { isSame, prediction, thresholdOf, tryThreshold } from "./predictions.js";
import { Overview, Timeline } from "./timeline.js";
import { askedStretch, changed, classOf, colourOf, doneShare, hasPoint, on, showNotice, state, timeOf } from "./state.js";
import { isVideo, leastSpan, now, seek, show, showAll, zoom } from "./time.js";

/** @import {Found, Recording, Selection} from "./state.js" */
/** @import {Bar, Follow, Hit, Lane, Tick} from "./timeline.js" */

const LABELS = 62, DONE = 15, EVENT = 5, ABOVE = 5;
/** Detections below this part of the threshold are not drawn. */
const FAINTEST = 0.25;
let palette = readColours();

/** What the timelines ask for; see `Host` of timeline.js. */
const host = {
  get view() { return state.current?.view ?? { start: 0, end: 1 }; },
  get duration() { return state.current?.duration ?? 1; },
  get focused() { return { time: null, span: focusedSpan() }; },
  show, zoom, leastSpan, press,
  focus() {},
  lit: isLit,
};

const labelled = new Timeline(host, labelLanes, { id: "timeline", role: "slider", tabindex: 0, "aria-label": "Time", "aria-valuemin": 0 }, 24, true);
const predicted = new Timeline(host, predictionLanes, { id: "predictions", role: "img", "aria-label": "Predictions, a lane for each class" }, 0);
const signal = new Timeline(host, signalLanes, { id: "signal", role: "img", "aria-label": "Plot of the signal" }, 0, true);
const overview = new Overview(host, paintOverview);
overview.canvas.id = "overview";
$("whole").prepend(overview.canvas);
const marks = h("canvas", { id: "marks", "aria-hidden": true, hidden: true });
$("lanes").prepend(signal.canvas, marks, labelled.canvas, predicted.canvas);

// ---------------------------------------------------------------- lanes

const segmentOf = (one) => (state.dragged?.of === one ? state.dragged?.segment : Array.isArray(one) ? one : one.segment);

/** A stretch of time that can be selected, and dragged at its edges. @param {Selection} pick @returns {Bar} */
function bar(pick, values) {
  const [start, end] = segmentOf(pick.one);
  return { start, end, alpha: 0.5, edges: true, ...values, span: pick.one, pick };
}

/** @returns {Lane[]} */
function labelLanes() {
  const { current } = state;
  if (!current) return [{ label: "", height: LABELS }];
  const { annotations, background, done } = current.labels, points = annotations.filter(hasPoint);
  const segments = annotations.filter((one) => one.segment), { duration } = current;
  /** @type {Tick[]} */
  const ticks = [
    ...points.map((one) => ({ time: Number(one.point), colour: colourOf(one.label), text: one.label, span: one, pick: { what: "label", one }, tip: () => labelTip(one) })),
    ...background.map((time) => ({ time, colour: palette.muted, cross: true, text: "", span: time, pick: { what: "background", one: time }, tip: () => [`background, ${exact(time)}`] })),
  ].sort((a, b) => a.time - b.time);
  const bars = segments.map((one) => bar({ what: "label", one }, {
    top: LABELS - 23, height: 19, alpha: 0.6, colour: colourOf(one.label), text: hasPoint(one) ? "" : one.label, tip: () => labelTip(one),
  }));
  if (state.doneFrom !== null) ticks.push({ time: state.doneFrom, colour: palette.good, faint: true });
  const stretches = (done ?? [[0, duration]]).map((one) => (done
    ? bar({ what: "done", one }, { top: 3, height: DONE - 6, alpha: 0.75, colour: palette.good, tip: () => [`done, ${one.map(exact).join(" – ")}`] })
    : { start: 0, end: duration, top: 3, height: DONE - 6, alpha: 0.75, colour: palette.good }));
  const asked = askedStretch();
  if (asked) stretches.push({ start: asked[0], end: asked[1], top: 3, height: DONE - 6, alpha: 0.5, colour: palette.good, hollow: true });
  const washes = (done ?? []).map(([start, end]) => ({ start, end, colour: palette.good, alpha: 0.07 }));
  const note = [points.length && plural(points.length, "point"), segments.length && plural(segments.length, "segment")].filter(Boolean).join(", ");
  return [
    { label: "labels", note, height: LABELS, ticks, bars, washes },
    { label: done ? `done, ${Math.round(100 * doneShare(current.labels, duration))} %` : "done, all of it", height: DONE, bars: stretches },
  ];
}

const labelTip = (one) => [
  tipTitle(classOf(one.label), ""), hasPoint(one) ? exact(one.point) : "", one.segment ? tipTime({ start: one.segment[0], end: one.segment[1] }) : "",
  one.source ? `${one.source.kind} by ${one.source.by}` : "",
].filter(Boolean);

/** A lane for each class that is predicted; the height of a block is its score, as is that of the line of the threshold. */
function predictionLanes() {
  const { current } = state, one = prediction();
  if (!current || !one) return [];
  const byClass = groupBy(one.found, ({ label }) => label), events = groupBy(one.events ?? [], ({ label }) => label);
  const labels = state.classes.filter((label) => one.curves.has(label) || byClass.has(label));
  const height = labels.length > 8 ? 36 : 48;
  // The score at the upper end of a lane.
  const top = (one.found.reduce((most, { score }) => Math.max(most, score), 1) * height) / (height - ABOVE);
  return labels.map((label) => {
    const colour = colourOf(label), least = thresholdOf(label), curve = one.curves.get(label), found = byClass.get(label) ?? [];
    const blocks = found.filter(({ score }) => score >= FAINTEST * least).sort((a, b) => a.score - b.score).map((each) => foundBar(each, { top: height * (1 - Math.max(each.score, 0.02) / top), height: height * Math.max(each.score, 0.02) / top }, least));
    const merged = (events.get(label) ?? []).map((each) => ({ ...foundBar(each, { top: height - EVENT - 1, height: EVENT }, -Infinity), alpha: 1 }));
    return {
      label, colour, height, key: label, bars: [...blocks, ...merged], level: least / top,
      note: height > 40 ? plural((events.get(label) ?? found.filter(({ score }) => score >= least)).length, "event") : "",
      curve: curve ? { ...curve, colour, top: height * (1 - 1 / top), height: height / top, shade: 0.12 } : null,
      tip: curve && ((time) => curveTip(label, curve, time)),
      about: () => [tipTitle(classOf(label), `threshold ${ratio(least, 2)}`)],
      scale: top,
    };
  });
}

/** @param {Found} one */
function foundBar(one, place, least) {
  const labels = /** @type {Recording} */ (state.current).labels, wrong = rejected(one, labels), sure = !wrong && confirmed(one, labels);
  return bar({ what: "found", one }, {
    ...place, colour: wrong ? palette.faint : colourOf(one.label), hollow: wrong || one.score < least, alpha: one.score < least ? 0.35 : sure ? 0.75 : 0.4,
    tip: () => [tipTitle(classOf(one.label), wrong ? "marked as wrong" : sure ? "confirmed" : ""), tipTime({ start: one.segment[0], end: one.segment[1] }), `score ${ratio(one.score)}`],
  });
}

function curveTip(label, { values, start, step }, time) {
  const value = values[Math.floor((time - start) / step + 0.5)];
  return value === undefined ? null : [tipTitle(classOf(label), `${ratio(value / 255, 2)} at ${clock(time, 1)}`)];
}

/** Whether something drawn is what is selected. */
function isLit(span) {
  const { selected } = state;
  if (!selected || span === undefined) return false;
  return span === selected.one || (selected.what === "found" && Array.isArray(span.segment) && !span.source && isSame(span, selected.one));
}

function focusedSpan() {
  const { selected } = state;
  if (selected?.what !== "found") return null;
  const [start, end] = segmentOf(selected.one);
  return { start, end, label: classOf(selected.one.label) };
}

// ---------------------------------------------------------------- the signal

/** The samples of the window, as the server sends them. @type {{index: number, key: string, numbers: Float64Array, count: number} | null} */
let plot = null;
let plotting = 0;

function plotSoon() {
  clearTimeout(plotting);
  if (state.current && !isVideo()) plotting = setTimeout(loadPlot, plot ? 60 : 0);
}

async function loadPlot() {
  const recording = state.current, width = signal.room;
  if (!recording || isVideo() || width <= 0) return;
  const { view, duration } = recording, span = view.end - view.start;
  // A margin on both sides, so that panning does not show gaps.
  const from = Math.max(view.start - span / 4, 0), to = Math.min(view.end + span / 4, duration);
  const bins = clamp(Math.round((width * (to - from)) / span), 1, 4000), key = `${from} ${to} ${bins}`;
  if (plot?.index === recording.index && plot.key === key) return;
  try {
    const answer = await ask(`signal/${recording.index}?start=${from}&end=${to}&bins=${bins}`);
    const numbers = new Float64Array(await answer.arrayBuffer()), count = numbers.length / (1 + 2 * recording.channels.length);
    if (recording !== state.current) return;
    plot = { index: recording.index, key, numbers, count };
    signal.canvas.dataset.drawn = String(recording.index);
    draw(signal);
  } catch (error) {
    if (recording === state.current) showNotice(/** @type {Error} */ (error).message);
  }
}

/** @returns {Lane[]} */
function signalLanes() {
  const { current } = state;
  if (!current || isVideo()) return [];
  const { channels, ranges } = current, height = clamp(Math.floor((innerHeight * 0.5) / channels.length), 34, 150);
  const number = (value) => String(Number(value.toPrecision(3)));
  return channels.map((label, channel) => {
    const [low, high] = ranges[channel];
    return { label, note: `${number(low)} … ${number(high)}`, height, curve: channelCurve(channel, height) };
  });
}

function channelCurve(channel, height) {
  const { current } = state;
  if (!current || plot?.index !== current.index) return null;
  const { numbers, count } = plot, { channels, ranges } = current, [least, greatest] = ranges[channel];
  const scale = (value) => (greatest > least ? (255 * (value - least)) / (greatest - least) : 127.5);
  const part = (index) => numbers.subarray(count * index, count * (index + 1));
  return {
    times: part(0), lows: part(1 + channel).map(scale), values: part(1 + channels.length + channel).map(scale),
    colour: css("--accent"), top: 5, height: height - 10,
  };
}

/** Draws the points over the signal, on a canvas of their own so that the signal need not be drawn again. */
function drawMarks() {
  const { current } = state;
  marks.hidden = signal.canvas.hidden;
  if (!current || marks.hidden) return;
  const { context } = fitCanvas(marks, signal.canvas.clientHeight), { start, end } = current.view;
  let last = -1;
  for (const { label, point } of current.labels.annotations) {
    if (typeof point !== "number" || point < start || point > end) continue;
    const x = Math.round(signal.toX(point));
    if (x === last) continue; // of several at one pixel, the first
    last = x;
    context.fillStyle = colourOf(label);
    context.fillRect(x - 1, 0, 2, signal.canvas.clientHeight);
  }
}

// ---------------------------------------------------------------- drawing

/** Timelines whose lanes have changed, and those to be drawn. @type {Set<Timeline>} */
const stale = new Set(), waiting = new Set();
let frame = 0;

/** Draws timelines with new lanes. @param {...Timeline} timelines */
function draw(...timelines) {
  for (const one of timelines) stale.add(one);
  redraw(...timelines);
}

/** Draws timelines as they are, at most once a frame. @param {...Timeline} timelines */
function redraw(...timelines) {
  for (const one of timelines) waiting.add(one);
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    for (const one of stale) one.update();
    for (const one of waiting) {
      one.canvas.hidden = !one.lanes.length;
      if (one.lanes.length) one.draw();
    }
    stale.clear();
    waiting.clear();
    drawMarks();
    overview.draw();
    placeHead();
  });
}

function paintOverview(context, toX, height) {
  const { current } = state;
  if (!current) return;
  context.fillStyle = palette.good;
  context.globalAlpha = 0.3;
  for (const [start, end] of current.labels.done ?? []) context.fillRect(toX(start), 0, Math.max(toX(end) - toX(start), 1), height);
  context.globalAlpha = 1;
  let last = -1;
  for (const one of current.labels.annotations) {
    const time = timeOf(one), x = Math.round(toX(time));
    if (time === Infinity || x === last) continue; // of several at one pixel, the first
    last = x;
    context.fillStyle = colourOf(one.label);
    context.fillRect(x - 1, 6, 2, height - 12);
  }
}

/** Moves the playhead, which lies over the canvases so that they need not be drawn again. */
function placeHead() {
  const { current } = state, x = labelled.toX(now()), inside = current && x >= labelled.gutter - 1 && x <= labelled.canvas.clientWidth + 1;
  $("head").style.visibility = inside ? "visible" : "hidden";
  $("head").style.transform = `translateX(${x}px)`;
  $("mark").style.transform = `translateX(${(now() / host.duration) * overview.canvas.clientWidth}px)`;
  if (!current) return;
  const slider = labelled.canvas;
  slider.setAttribute("aria-valuemax", current.duration.toFixed(3));
  slider.setAttribute("aria-valuenow", now().toFixed(3));
  slider.setAttribute("aria-valuetext", exact(now()));
}

// ---------------------------------------------------------------- the pointer

/**
 * Drags an edge or a threshold, selects, or moves the playhead.
 *
 * @param {number} time
 * @param {Hit} hit
 * @returns {Follow | null}
 */
function press(time, { lane, bar: target, edge, level }) {
  if (!state.current) return null;
  if (target?.pick && edge) return dragEdge(target.pick, edge);
  if (target?.pick && !(level && target.pick.what === "found")) {
    select(target.pick);
    return { move() {} };
  }
  if (level && lane) return dragLevel(lane);
  state.selected = null;
  changed("selection");
  seek(time);
  return { move: (/** @type {number} */ to) => seek(to) };
}

/** @param {Selection} pick @param {"start" | "end"} edge */
function dragEdge(pick, edge) {
  const first = segmentOf(pick.one), point = pick.what === "label" ? pick.one.point ?? null : null;
  /** @type {number | null} */
  let at = null;
  if (state.selected?.one !== pick.one) select(pick);
  return {
    move(/** @type {number} */ time) {
      at = time;
      state.dragged = { of: pick.one, segment: withEdge(first, edge, time, point) };
      draw(labelled, predicted);
    },
    end() {
      state.dragged = null;
      if (at !== null) nudge(edge, at);
    },
  };
}

/** @param {Lane & {scale?: number}} lane */
function dragLevel(lane) {
  return {
    move(_, /** @type {PointerEvent} */ event) {
      const part = 1 - (event.offsetY - (lane.y ?? 0)) / lane.height;
      tryThreshold(lane.key, clamp(part, 0, 1) * (lane.scale ?? 1));
    },
  };
}

// ---------------------------------------------------------------- when

/** What the predictions are compared with: segments and background points. @type {any[]} */
let compared = [];

/** Whether a change of labels changes how predictions are drawn. */
function concernsPredictions() {
  const { annotations = [], background = [] } = state.current?.labels ?? {}, now = [background, ...annotations.filter((one) => one.segment)];
  const same = now.length === compared.length && now.every((one, i) => one === compared[i]);
  compared = now;
  return !same;
}

let wasFound = false;

/** Whether a prediction is selected, or was. */
function selectsPrediction() {
  const isFound = state.selected?.what === "found", either = isFound || wasFound;
  wasFound = isFound;
  return either;
}

on("recording", () => {
  plot = null;
  delete signal.canvas.dataset.drawn;
});
on("recording classes", () => draw(signal, labelled, predicted));
on("queue", () => draw(labelled));
on("labels", () => draw(labelled, ...(concernsPredictions() ? [predicted] : [])));
on("selection", () => redraw(labelled, ...(selectsPrediction() ? [predicted] : [])));
on("window", () => redraw(signal, labelled, predicted));
on("window recording", plotSoon);
on("predictions settings", () => draw(predicted));
on("time", placeHead);
on("colours", () => {
  palette = readColours();
  draw(signal, labelled, predicted);
});
new ResizeObserver(() => {
  draw(signal, labelled, predicted);
  plotSoon();
}).observe($("lanes"));
for (const [id, act] of Object.entries({ "zoom-in": () => zoom(0.5), "zoom-out": () => zoom(2), "zoom-all": showAll })) $(id).addEventListener("click", act);

// The page of a prediction: the recording above its detections.

import {
  $, clamp, classColour, className, clock, Clock, countFrom, css, cut, defineClasses, fillLegend, fitCanvas, fitWindow, font, groupBy, h,
  hiddenClasses, isDark, onDrag, plural, ratio, readColours, swatch, timeTicks, tipTime, tipTitle, writeTick, zoomButtons,
  zoomWindow,
} from "./common.js";
import { drawCurve, drawSpans, Timeline, unpackBytes, unpackCurves } from "./timeline.js";

const DATA = JSON.parse($("data").textContent);
defineClasses(DATA.classes, DATA.colours);

/* The data, as written by tal_jax/report/player.py: detections [class, start, end, score, …] in seconds, best first;
   signals.data holds one byte a step, the lowest samples of each channel, then the highest;
   curves.data one byte a snippet, class after class, the class −1 is the foreground. */

const DURATION = Math.max(DATA.duration, 0.1), LEAST_SPAN = Math.min(DURATION, 0.5);
const MOST_LISTED = 1000, LEAD_S = 1, FRAME_S = 0.04, RULER = 26, STRIP = 22;

// ---------------------------------------------------------------- data

const spans = [];
for (let i = 0; i < DATA.detections.length; i += 4) {
  const [label, start, end, score] = DATA.detections.slice(i, i + 4);
  spans.push({ label, start, end, score });
}
const byTime = (a, b) => a.start - b.start || a.end - b.end;

const curves = DATA.curves ? unpackCurves(DATA.curves) : new Map();

const channels = [];
if (DATA.signals) {
  const { names, ranges, step, data } = DATA.signals, parts = unpackBytes(names.flatMap((_, i) => [`low ${i}`, `high ${i}`]), data);
  names.forEach((name, i) => {
    channels.push({ name, range: ranges[i], curve: { lows: parts.get(`low ${i}`), values: parts.get(`high ${i}`), step, start: step / 2 } });
  });
}

// ---------------------------------------------------------------- what is shown

/** @type {any} */
const state = { threshold: DATA.threshold, view: { start: 0, end: DURATION }, order: "time", loop: false, curves: true, query: "", chosen: null };
/** @type {any[]} */
let shown = [];
/** @type {{label: number, found: any[]}[]} */
let rows = [];
let current = new Set();

const wanted = (label) => !hiddenClasses.has(label) && className(label).toLowerCase().includes(state.query);

/** The video, or a clock in its place. @type {any} */
let player = new Clock(DURATION);
const video = DATA.media === null ? null : h("video", { id: "video", controls: true, preload: "auto", playsinline: true, "aria-label": `Video ${DATA.name}` });

function startVideo() {
  const fail = () => {
    const time = player.currentTime;
    player = new Clock(DURATION);
    player.currentTime = time;
    screen.replaceWith(h("p", { class: "trouble", id: "trouble", role: "alert" },
      `The video ${DATA.mediaName} cannot be played: it is not where this page looks for it, or this browser cannot decode it. The timeline works without it.`), chips);
    tick();
  };
  video.addEventListener("error", fail);
  video.addEventListener("loadedmetadata", () => { if (!video.videoWidth) fail(); }); // the sound alone could be decoded
  for (const name of ["play", "seeking", "seeked", "pause", "timeupdate"]) video.addEventListener(name, () => (name === "play" ? wake() : tick()));
  player = video;
  countFrom(video, DATA.mediaOrigin);
  video.src = DATA.media;
}

function seek(time) {
  player.currentTime = clamp(time, 0, DURATION);
  tick();
}

function play() {
  player.play().catch(() => {}); // a later seek, or the error event, reports it
  wake();
}

function pause() {
  player.pause();
  tick();
}

/** Moves the playhead to the start of a detection, or plays from a second before it. */
function choose(span, andPlay = false) {
  state.chosen = span;
  if (span.start < state.view.start || span.start > state.view.end) show(span.start - (state.view.end - state.view.start) / 3);
  seek(andPlay && !state.loop ? span.start - LEAD_S : span.start);
  if (andPlay) play();
  drawLanes();
  markList(true);
}

function step(direction) {
  const order = [...shown].sort(byTime), now = player.currentTime, { chosen } = state;
  const at = order.indexOf(chosen), near = at >= 0 && Math.abs(now - chosen.start) < LEAD_S + 0.05;
  const next = near ? order[at + direction]
    : direction > 0 ? order.find((span) => span.start > now + 0.001) : order.findLast((span) => span.start < now - 0.001);
  if (next) choose(next);
}

// ---------------------------------------------------------------- the parts of the page

const screen = h("div", { class: "screen" }), chips = h("div", { class: "chips", id: "chips" });
const host = {
  get view() { return state.view; },
  get focused() { return { time: null, span: state.chosen }; },
  duration: DURATION, show, zoom, focus() {},
  lit: (span) => current.has(span) || span === state.chosen,
  click(time, span) {
    if (span) return choose(span);
    state.chosen = null;
    seek(time);
    drawLanes();
    markList(false);
  },
};
const signalTimeline = new Timeline(host, signalLanes, { id: "signals", role: "img", "aria-label": `Signals: ${channels.map(({ name }) => name).join(", ")}` }, 0);
const timeline = new Timeline(host, classLanes, {
  id: "timeline", tabindex: 0, role: "slider", "aria-label": "Playhead on the timeline of the detections, one row a class",
  "aria-valuemin": 0, "aria-valuemax": DURATION.toFixed(1),
}, 0);
const signalRows = signalTimeline.canvas, classRows = timeline.canvas;
const whole = h("canvas", { class: "whole", "aria-hidden": true, onwheel: (event) => timeline.wheel(event) });
const head = h("div", { class: "head" });
const lanes = h("div", { class: "lanes" }, whole, channels.length && !video ? signalRows : null, classRows, head);
const folded = h("p", { class: "folded" });
const playButton = h("button", { type: "button", id: "play", onclick: () => (player.paused ? play() : pause()) }, "Play");
const timeText = h("span", { class: "time", id: "time" });
const count = h("output", { id: "count" });
const legend = h("div", { class: "legend", role: "group", "aria-label": "Classes shown" });
const list = h("ol", { id: "list", "aria-label": "Shown detections" });
/** @type {any[]} */
let legendItems = [];
let listItems = new Map();

function build() {
  document.title = `${DATA.name} · tal_jax prediction`;
  const found = new Set(spans.map(({ label }) => label)).size;
  $("top").append(h("h1", {}, DATA.name), h("p", { class: "lead" },
    `${clock(DURATION, DURATION < 60 ? 1 : 0)} · ${plural(spans.length, "detection")}${spans.length ? ` of ${found} of ${DATA.classes.length} class${DATA.classes.length === 1 ? "" : "es"}` : ""}`));
  if (video) screen.append(video, chips);
  $("main").append(
    h("div", { class: "card" }, video ? screen : chips, tools(), h("div", { class: "classes" }, legend), lanes, folded),
    h("section", { class: "card side", "aria-label": "Detections" }, h("div", {}, listHead(), list)));
  buildLegend();
  buildFooter();
  onDrag(whole, dragWhole);
}

function tools() {
  const least = spans.reduce((low, span) => Math.min(low, span.score), Math.min(0, DATA.threshold));
  const most = spans.reduce((high, span) => Math.max(high, span.score), Math.max(0.01, DATA.threshold));
  const slider = h("input", { type: "range", id: "threshold", min: least, max: most, step: "any", value: DATA.threshold, "aria-label": "Least score shown",
    oninput: () => { state.threshold = Number(slider.value); refresh(); } });
  slider.addEventListener("pointerup", () => slider.blur());
  const box = (text, key, act) => {
    const input = h("input", { type: "checkbox", id: key, checked: state[key], onchange: () => { state[key] = input.checked; act(); } });
    return h("label", {}, input, text);
  };
  const zooms = h("span", { class: "group", role: "group", "aria-label": "Zoom" },
    zoomButtons((factor) => zoom(factor)), h("button", { type: "button", onclick: () => show(0, DURATION) }, "all"));
  const search = h("input", { type: "search", placeholder: "filter classes", "aria-label": "Filter classes by name",
    oninput: () => { state.query = search.value.trim().toLowerCase(); refresh(); } });
  return h("div", { class: "tools" }, h("span", { class: "group" }, playButton), timeText,
    spans.length ? h("label", {}, "score ≥", slider, count) : null,
    DATA.curves ? box("score curves", "curves", updateLanes) : null, zooms, DATA.classes.length > 12 ? search : null);
}

function listHead() {
  const orders = ["time", "score"].map((order) => h("button", { type: "button", "aria-pressed": String(order === state.order),
    onclick: () => { state.order = order; orders.forEach((one) => one.setAttribute("aria-pressed", one.textContent === order)); buildList(); } }, order));
  const loop = h("input", { type: "checkbox", id: "loop", onchange: () => { state.loop = loop.checked; } });
  return h("div", { class: "top" }, h("h2", {}, "Detections"), h("span", { class: "group", role: "group", "aria-label": "Order" }, orders),
    h("p", {}, "Click: play from a second before the start."), h("label", { style: "font-size:13px" }, loop, " loop the selected detection"));
}

function buildLegend() {
  const labels = [...new Set(spans.map(({ label }) => label))].sort((a, b) => a - b);
  legendItems = fillLegend(legend, labels, refresh);
  if (labels.length < 2) legend.remove();
}

function buildFooter() {
  const keys = [["space", "play or pause"], ["← →", "1 s"], ["shift ← →", "0.04 s"], ["n p", "next, previous detection"], ["+ − 0", "zoom"]];
  $("about").append(
    h("p", {}, keys.flatMap(([key, what], i) => [i ? " · " : "", h("kbd", {}, key), ` ${what}`]),
      ". Ctrl + wheel or pinch: zoom. Drag or Shift + wheel: pan. Click: move the playhead; on a bar, to its start."),
    DATA.leftOut.length ? h("div", { style: "margin-top:10px" }, "Left out of this page:", h("ul", {}, DATA.leftOut.map((line) => h("li", {}, line)))) : "");
}

function buildList() {
  const kept = shown.slice(0, MOST_LISTED); // best first
  if (state.order === "time") kept.sort(byTime);
  listItems = new Map(kept.map((span) => [span, h("button", { type: "button", style: `--colour:${classColour(span.label)}`, title: className(span.label), onclick: () => choose(span, true) },
    h("b", {}, swatch(classColour(span.label)), className(span.label)), h("span", {}, ratio(span.score, 2)), h("small", {}, tipTime(span)))]));
  list.replaceChildren(...[...listItems.values()].map((button) => h("li", {}, button)));
  if (shown.length > kept.length) list.append(h("li", { class: "more" }, `and ${(shown.length - kept.length).toLocaleString("en")} more, with lower scores`));
  if (!shown.length) list.append(h("li", { class: "more" }, spans.length ? "No detection of these classes reaches this score." : "Nothing was detected in this recording."));
  markList(false);
}

function markList(scroll) {
  for (const [span, button] of listItems) {
    button.classList.toggle("now", current.has(span));
    if (span === state.chosen) button.setAttribute("aria-current", true);
    else button.removeAttribute("aria-current");
  }
  const button = scroll && listItems.get(state.chosen);
  if (!button) return;
  const top = button.offsetTop - list.offsetTop; // scrollIntoView would move the whole page
  if (top < list.scrollTop || top + button.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top - list.clientHeight / 3;
}

// ---------------------------------------------------------------- drawing

const wholeX = (time) => timeline.gutter + (time / DURATION) * timeline.room;
const opacity = (score) => 0.3 + 0.7 * clamp((score - scale.low) / (scale.high - scale.low || 1), 0, 1);
const scale = spans.reduce(({ low, high }, { score }) => ({ low: Math.min(low, score), high: Math.max(high, score) }), { low: 0, high: 0.01 });

function refresh() {
  shown = spans.filter((span) => span.score >= state.threshold && wanted(span.label));
  if (!shown.includes(state.chosen)) state.chosen = null;
  count.textContent = `${ratio(state.threshold)}: ${shown.length.toLocaleString("en")} of ${plural(spans.length, "detection")}`;
  const byClass = groupBy(shown, ({ label }) => label);
  rows = [...byClass.entries()].sort(([a], [b]) => a - b).map(([label, found]) => ({ label, found: found.reverse() })); // the best on top
  const without = DATA.classes.length - rows.length;
  folded.hidden = !without;
  folded.textContent = !spans.length ? "Nothing was detected in this recording."
    : `${rows.length ? "Folded: " : ""}${without} class${without === 1 ? "" : "es"} without a shown detection.`;
  for (const item of legendItems) {
    item.setAttribute("aria-pressed", !hiddenClasses.has(item.label));
    item.hidden = !className(item.label).toLowerCase().includes(state.query);
  }
  current = new Set();
  buildList();
  updateLanes();
  tick();
}

/** Draws again after a change of the window or of the highlighted detections. */
function drawLanes() {
  if (signalRows.isConnected) signalTimeline.draw();
  timeline.draw();
  drawWhole(readColours());
  placeHead();
}

/** Draws again after a change of the rows, their curves or the colours. */
function updateLanes() {
  signalTimeline.update();
  timeline.update();
  drawLanes();
}

/** The ruler, and above it the whole recording with the visible window. */
function drawWhole(colours) {
  const { context, width } = fitCanvas(whole, STRIP + RULER + 10), { start, end } = state.view;
  const top = 8, left = timeline.gutter, foreground = state.curves ? curves.get(-1) : null;
  context.fillStyle = colours.sunken;
  context.fillRect(left, top, width - left, STRIP);
  if (foreground) drawCurve(context, { ...foreground, colour: colours.faint, top, height: STRIP, shade: 0.3 }, wholeX, { start: 0, end: DURATION }, width);
  drawSpans(context, [...shown].reverse(), wholeX, top + 6, STRIP - 12, opacity);
  if (end - start < DURATION * 0.9999) {
    context.globalAlpha = 0.75;
    context.fillStyle = colours.line;
    context.fillRect(left, top, wholeX(start) - left, STRIP);
    context.fillRect(wholeX(end), top, width - wholeX(end), STRIP);
    context.globalAlpha = 1;
    context.strokeStyle = colours.accent;
    context.lineWidth = 2;
    context.strokeRect(wholeX(start) + 1, top - 1, Math.max(2, wholeX(end) - wholeX(start) - 2), STRIP + 2);
  }
  context.font = font(11.5);
  context.fillStyle = colours.muted;
  context.textBaseline = "middle";
  context.fillText(cut(context, foreground ? "all, with actionness" : "whole recording", left - 12), 0, top + STRIP / 2);
  timeTicks(state.view, timeline.room, timeline.toX, (x, text) => writeTick(context, text, x, top + STRIP + 15, left, width));
  context.fillStyle = colours.line;
  context.fillRect(0, STRIP + RULER + 9, width, 1);
}

function signalLanes() {
  const number = (value) => String(Number(value.toPrecision(3)));
  return channels.map(({ name, range: [low, high], curve }) => ({
    label: name, note: `${number(low)} … ${number(high)}`, height: 53, curve: { ...curve, colour: css("--accent"), top: 5, height: 43 },
  }));
}

function classLanes() {
  const height = rows.length > 40 ? 19 : 27;
  if (!rows.length) return [{ label: "", height }];
  return rows.map(({ label, found }) => ({
    label: className(label), colour: classColour(label), height,
    about: () => [tipTitle(label, plural(found.length, "detection"))],
    bars: found.map((span) => ({
      ...span, span, top: 4, height: height - 8, alpha: opacity(span.score), colour: classColour(label),
      tip: () => [tipTitle(label), tipTime(span), `score ${ratio(span.score)}`],
    })),
    curve: state.curves && curves.has(label) ? { ...curves.get(label), colour: css("--muted"), top: 2, height: height - 4 } : null,
  }));
}

function placeHead() {
  const x = timeline.toX(player.currentTime), inside = x >= timeline.gutter - 1 && x <= classRows.clientWidth + 1;
  head.style.height = `${lanes.scrollHeight - STRIP - 10}px`;
  head.style.visibility = inside ? "visible" : "hidden";
  head.style.transform = `translate(${classRows.offsetLeft + x}px, ${STRIP + 10}px)`;
}

// ---------------------------------------------------------------- playback

let awake = false;
function wake() {
  if (awake) return;
  awake = true;
  const frame = () => {
    tick();
    awake = !player.paused;
    if (awake) requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}

function tick() {
  let now = player.currentTime;
  const { chosen, view } = state;
  if (state.loop && chosen && !player.paused && now >= Math.min(chosen.end, DURATION - 0.02)) now = player.currentTime = chosen.start;
  if (player instanceof Clock && !player.paused && now >= DURATION) player.pause();
  if (!player.paused && now > view.end && view.end < DURATION) show(now - 0.1 * (view.end - view.start));
  playButton.textContent = player.paused ? "Play" : "Pause";
  timeText.replaceChildren(clock(now, 2), h("small", {}, ` / ${clock(DURATION, 1)}`));
  classRows.setAttribute("aria-valuenow", now.toFixed(2));
  classRows.setAttribute("aria-valuetext", clock(now, 1));
  placeHead();
  const active = shown.filter((span) => span.start <= now && now < span.end);
  if (active.length === current.size && active.every((span) => current.has(span))) return;
  current = new Set(active);
  const labels = [...new Set(active.map(({ label }) => label))], most = 6;
  chips.replaceChildren(...labels.slice(0, most).map((label) => h("span", { style: `background:${classColour(label)};color:${isDark(classColour(label)) ? "#fff" : "#10141a"}` }, className(label))),
    labels.length > most ? h("span", { style: "background:#444;color:#fff" }, `+${labels.length - most}`) : "");
  markList(false);
  drawLanes();
}

function show(start, end = start + state.view.end - state.view.start) {
  state.view = fitWindow(start, end, LEAST_SPAN, DURATION);
  drawLanes();
}

/** Zooms about a time; by default about the playhead if it is visible. */
function zoom(factor, about) {
  const { start, end } = state.view, now = player.currentTime;
  const time = about ?? (now >= start && now <= end ? now : (start + end) / 2);
  state.view = zoomWindow(state.view, factor, time, LEAST_SPAN, DURATION);
  drawLanes();
}

// ---------------------------------------------------------------- pointers and keys

/** Dragging moves the playhead on the ruler, and the window on the strip above it. */
function dragWhole(event) {
  if (event.offsetX < timeline.gutter) return null;
  const onRuler = ({ offsetX }) => seek(timeline.toTime(clamp(offsetX, timeline.gutter, whole.clientWidth)));
  const onStrip = ({ offsetX }) => {
    const time = ((offsetX - timeline.gutter) / timeline.room) * DURATION, length = state.view.end - state.view.start;
    if (length < DURATION * 0.9999) show(time - length / 2);
    else seek(time);
  };
  const move = event.offsetY > STRIP + 9 ? onRuler : onStrip;
  move(event);
  return move;
}

function key(event) {
  const { target } = event, typing = target.matches("input[type=search]"), sliding = target.matches("input[type=range]") && event.key.startsWith("Arrow");
  const pressing = event.key === " " && target.matches("button, input[type=checkbox]");
  if (typing || sliding || pressing || event.ctrlKey || event.metaKey || event.altKey) return;
  const move = event.shiftKey ? FRAME_S : 1;
  const acts = {
    " ": () => playButton.click(),
    ArrowLeft: () => seek(player.currentTime - move), ArrowRight: () => seek(player.currentTime + move),
    Home: () => seek(0), End: () => seek(DURATION),
    n: () => step(1), p: () => step(-1),
    "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1 / 0.6), 0: () => show(0, DURATION),
  };
  if (!Object.hasOwn(acts, event.key)) return;
  acts[event.key]();
  event.preventDefault();
  event.stopPropagation(); // the video element has other keys
}

build();
if (video) startVideo();
refresh();
document.addEventListener("keydown", key, true);
// A clicked control does not keep the keyboard focus.
document.addEventListener("click", (event) => { if (event.detail && /** @type {any} */ (event.target).closest("button, label, input[type=checkbox]")) /** @type {any} */ (document.activeElement)?.blur(); });
new ResizeObserver(drawLanes).observe(lanes);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", updateLanes);
document.body.dataset.ready = "";

// What all pages share: elements, numbers, times, canvases, colours, tips, and a clock for recordings without a video.

/** @param {string} id @returns {any} an element of the page */
export const $ = (id) => document.getElementById(id);

/**
 * Makes an element. Strings become text nodes, so that no name can become markup.
 *
 * @param {string} tag
 * @param {Record<string, any>} attributes those that begin with "on" are listeners
 * @param {...any} children
 * @returns {any} the element
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  fill(element, attributes, children);
  return element;
}

export function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") element.style.cssText = value; // the attribute is refused where styles need a nonce
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
}

/** @returns {value is number} */
export const isNumber = (/** @type {any} */ value) => typeof value === "number" && isFinite(value);
export const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
export const sum = (values) => values.reduce((a, b) => a + b, 0);
export const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

/**
 * Items by a key, in the order of their first ones: `Map.groupBy`, which browsers have since 2024.
 *
 * @template T, K
 * @param {Iterable<T>} items
 * @param {(item: T) => K} keyOf
 */
export function groupBy(items, keyOf) {
  /** @type {Map<K, T[]>} */
  const groups = new Map();
  for (const item of items) {
    const key = keyOf(item), group = groups.get(key);
    if (group) group.push(item);
    else groups.set(key, [item]);
  }
  return groups;
}

/** .842, without the leading zero. */
export function ratio(value, digits = 3) {
  if (!isNumber(value)) return "–";
  return value.toFixed(digits).replace(/^(-?)0\./, "$1.");
}

/** Seconds as m:ss, h:mm:ss from an hour on. */
export function clock(seconds, digits = 0) {
  const unit = 10 ** digits, total = Math.round(seconds * unit) / unit;
  const hours = Math.floor(total / 3600), minutes = Math.floor(total / 60) % 60;
  const rest = (total % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

export const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** The colours of the page, light or dark, that canvases use. */
export const readColours = () =>
  Object.fromEntries(["ink", "muted", "faint", "grid", "line", "sunken", "accent", "card", "missed", "good"].map((name) => [name, css(`--${name}`)]));

export const swatch = (colour) => h("span", { class: "swatch", style: `background:${colour}` });
/** @type {{classes: string[], colours: string[]}} */
const known = { classes: [], colours: [] };

/** Sets the names and the colours of the classes, whose numbers are labels of spans. */
export function defineClasses(classes, colours) {
  Object.assign(known, { classes, colours });
}

export const className = (label) => known.classes[label] ?? `class ${label}`;
export const classColour = (label) => (label < 0 ? "#888888" : known.colours[label % known.colours.length] ?? "#888888");
export const isDark = (colour) => {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16) / 255);
  return 0.299 * r + 0.587 * g + 0.114 * b < 0.6;
};

export function fitCanvas(canvas, height) {
  const scale = window.devicePixelRatio || 1, width = canvas.clientWidth, size = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== size[0] || canvas.height !== size[1]) { // even the same size would make a new picture
    canvas.style.height = `${height}px`;
    [canvas.width, canvas.height] = size;
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width };
}

export const font = (size, weight = 400) => `${weight} ${size}px ${getComputedStyle(document.body).fontFamily}`;

/** The text, cut with an ellipsis if it is wider than `room`; empty if only a few letters fit. */
export function cut(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  let [low, high] = [0, text.length];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (context.measureText(text.slice(0, middle) + "…").width <= room) low = middle;
    else high = middle - 1;
  }
  return low > 4 ? text.slice(0, low) + "…" : "";
}

/** Calls `draw` with the place and the time of each tick of an axis that is `width` pixels long. */
export function timeTicks({ start, end }, width, toX, draw) {
  const steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400];
  const step = steps.find((one) => (one / (end - start)) * width >= 70) ?? 28800;
  const digits = step < 0.1 ? 2 : step < 1 ? 1 : 0;
  for (let i = Math.ceil(start / step - 1e-9); i * step <= end; i++) draw(toX(i * step), clock(i * step, digits));
}

/** Writes the time of a tick at `x`, or as near to it as it fits between `left` and `right`. */
export function writeTick(context, text, x, y, left, right) {
  const half = context.measureText(text).width / 2;
  context.textAlign = "center";
  context.fillText(text, clamp(x, left + half, right - half), y);
  context.textAlign = "left";
}

/** The window from `start` to `end`, made to lie within the recording and to last `least` seconds. */
export function fitWindow(start, end, least, duration) {
  const span = clamp(end - start, least, duration), from = clamp(start, 0, duration - span);
  return { start: from, end: from + span };
}

/** A window zoomed about a time, which keeps its place. */
export function zoomWindow({ start, end }, factor, time, least, duration) {
  const span = clamp((end - start) * factor, least, duration), from = time - ((time - start) / (end - start)) * span;
  return fitWindow(from, from + span, least, duration);
}

/** A clock with the interface of a video, for recordings without one. */
export class Clock {
  paused = true;
  #time = 0;
  #since = 0;
  #rate = 1;
  constructor(duration) { this.duration = duration; }
  get currentTime() { return Math.min(this.duration, this.#time + (this.paused ? 0 : ((performance.now() - this.#since) / 1000) * this.#rate)); }
  set currentTime(time) { this.#time = time; this.#since = performance.now(); }
  set playbackRate(rate) { this.#settle(); this.#rate = rate; }
  async play() {
    this.currentTime = this.currentTime >= this.duration ? 0 : this.currentTime;
    this.paused = false;
  }
  pause() { this.#settle(); this.paused = true; }
  #settle() { this.currentTime = Number(this.currentTime); }
}

/** Where a press starts a drag, `press` returns what is called with each move of it. */
export function onDrag(canvas, press) {
  /** @type {((event: PointerEvent) => void) | null} */
  let follow = null;
  canvas.addEventListener("pointerdown", (event) => {
    follow = event.button === 0 ? press(event) : null;
    if (follow) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => follow?.(event));
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { follow = null; });
}

const tip = $("tip");

export function showTip(event, rows) {
  tip.replaceChildren(...rows.map((row) => (row instanceof Node ? row : h("div", {}, row))));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = event.clientX + 16 + width > innerWidth ? event.clientX - width - 12 : event.clientX + 16;
  const top = event.clientY + 18 + height > innerHeight ? event.clientY - height - 12 : event.clientY + 18;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, top)}px`;
}

export const hideTip = () => { tip.hidden = true; };
export const tipTitle = (label, what) => h("div", {}, swatch(classColour(label)), h("b", {}, className(label)), what ? ` · ${what}` : "");
export const tipTime = (span) => `${clock(span.start, 1)} – ${clock(span.end, 1)} (${(span.end - span.start).toFixed(1)} s)`;
export const tipTable = (rows) => h("table", {}, rows.map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell)))));

// ---------------------------------------------------------------- controls

export const hiddenClasses = new Set();

/** Fills `box` with buttons that hide and show classes, and calls `changed` after each click; returns them. */
export function fillLegend(box, labels, changed) {
  const hide = (hidden) => { hiddenClasses.clear(); hidden.forEach((label) => hiddenClasses.add(label)); changed(); };
  const buttons = labels.map((label) => {
    const button = h("button", {
      type: "button", title: `${className(label)} (click: show or hide; double click: this class alone)`,
      onclick: () => hide(hiddenClasses.has(label) ? [...hiddenClasses].filter((one) => one !== label) : [...hiddenClasses, label]),
      ondblclick: () => hide(known.classes.map((_, i) => i).filter((one) => one !== label)),
    }, swatch(classColour(label)), className(label));
    button.label = label;
    return button;
  });
  if (labels.length) box.append(...buttons, h("button", { type: "button", onclick: () => hide([]) }, "show all"));
  return buttons;
}

export const zoomButtons = (zoom) => [["−", "Zoom out", 1 / 0.6], ["+", "Zoom in", 0.6]].map(([text, label, factor]) =>
  h("button", { type: "button", "aria-label": label, onclick: () => zoom(factor) }, text));

/**
 * Makes `currentTime` of a video count from `origin`, a timestamp of the file: browsers count from
 * 0 and begin at the first sound or frame (Chromium), or from that on (Firefox).
 */
export function countFrom(video, origin) {
  delete video.currentTime; // of the video before
  if (!(origin > 0.001)) return;
  const native = /** @type {any} */ (Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, "currentTime"));
  const get = () => (shift === null ? waiting : native.get.call(video) - shift);
  const set = (time) => { if (shift === null) waiting = time; else native.set.call(video, time + shift); };
  const isCurrent = () => Object.getOwnPropertyDescriptor(video, "currentTime")?.get === get;
  /** @type {number | null} */
  let shift = null;
  let waiting = 0;
  Object.defineProperty(video, "currentTime", { configurable: true, get, set });
  video.addEventListener("loadeddata", () => {
    if (!isCurrent()) return;
    video.addEventListener("seeked", () => {
      if (!isCurrent()) return;
      shift = native.get.call(video) > origin / 2 ? origin : 0;
      set(waiting);
    }, { once: true });
    native.set.call(video, 0); // goes to the earliest time that there is
  }, { once: true });
}

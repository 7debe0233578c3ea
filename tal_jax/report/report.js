// The report of a run: its figures, its recordings and its losses.

import { lineChart, nearest } from "./charts.js";
import {
  $, clamp, classColour, className, clock, css, defineClasses, fillLegend, fitCanvas, fitWindow, h, hiddenClasses, isNumber,
  plural, ratio, sum, swatch, tipTable, tipTime, tipTitle, zoomButtons, zoomWindow,
} from "./common.js";
import { drawSpans, Overview, Timeline, unpackCurves } from "./timeline.js";

const DATA = JSON.parse($("data").textContent);
defineClasses(DATA.classes, DATA.colours);

/* The data, as written by tal_jax/report/html.py. Times are whole milliseconds, scores thousandths, lists flat:
   truth [class, start, length, …], points [class, time, …], rounds[i] [class, start, length, score, …] of the i-th of
   DATA.rounds or, in training recordings, of DATA.proposals; pseudo [class, start, length, source, …], see SOURCES;
   curves.data holds one byte a snippet, class after class; the class −1 is the background.
   instances [count, median length in s] of each class, over all test recordings;
   thresholds.test and .train: least scores shown at first, of each of DATA.rounds and DATA.proposals. */
const FOUND_TIOU = 0.5;
/* Where a pseudo segment comes from; in the order of tal_jax.training.pseudo_segments.SOURCES. */
const SOURCES = ["annotated", "fused from the proposals of all rounds", "median length of its class: the point has no proposal"];
const MEDIAN = 2;
const hasDetector = DATA.rounds.some(({ name }) => name === "detector");

// ---------------------------------------------------------------- small helpers

function signed(value, digits = 3) {
  if (!isNumber(value)) return "–";
  return (value < 0 ? "−" : "+") + ratio(Math.abs(value), digits);
}

function roundColour(index, count = DATA.rounds.length) {
  const part = count > 1 ? Math.round((100 * index) / (count - 1)) : 100;
  return `color-mix(in oklab, var(--last-round) ${part}%, var(--first-round))`;
}

// ---------------------------------------------------------------- data

function unpackSpans(numbers, stride) {
  const spans = [];
  for (let i = 0; i < numbers.length; i += stride) {
    const start = numbers[i + 1] / 1000;
    spans.push({ label: numbers[i], start, end: start + numbers[i + 2] / 1000, score: stride > 3 ? numbers[i + 3] / 1000 : null });
  }
  return spans;
}

const unpacked = new Map();

function unpack(recording) {
  if (!unpacked.has(recording)) {
    const points = [];
    for (let i = 0; i < recording.points.length; i += 2) {
      const time = recording.points[i + 1] / 1000;
      points.push({ label: recording.points[i], time, start: time, end: time });
    }
    unpacked.set(recording, {
      truth: unpackSpans(recording.truth, 3),
      points,
      rounds: recording.rounds.map((numbers) => unpackSpans(numbers, 4)),
      pseudo: unpackSpans(recording.pseudo ?? [], 4).map(({ score, ...span }) => ({ ...span, source: Math.round(1000 * score) })),
      curves: recording.curves ? unpackCurves(recording.curves) : null,
    });
  }
  return unpacked.get(recording);
}

function iou(a, b) {
  const inside = Math.max(0, Math.min(a.end, b.end) - Math.max(a.start, b.start));
  const union = a.end - a.start + b.end - b.start - inside;
  return union > 0 ? inside / union : 0;
}

/** The span of the same class that overlaps most; null where none does. @returns {{span: any, iou: number} | null} */
function bestOverlap(span, others) {
  /** @type {{span: any, iou: number} | null} */
  let best = null;
  for (const other of others) {
    const value = other.label === span.label ? iou(span, other) : 0;
    if (value > (best ? best.iou : 0)) best = { span: other, iou: value };
  }
  return best;
}

/** Matches as the evaluation: by falling score, each detection takes the free instance of highest tIoU. */
function match(truth, detections) {
  const found = new Set();
  for (const one of [...detections].sort((a, b) => b.score - a.score)) {
    const best = bestOverlap(one, truth.filter((instance) => !found.has(instance)));
    if (best && best.iou >= FOUND_TIOU) found.add(best.span);
  }
  return { found, extra: detections.length - found.size };
}

// ---------------------------------------------------------------- timelines

/** @type {Explorer[]} */
const explorers = [];
const initialThreshold = (kind) => DATA.thresholds[kind].at(-1) ?? 0;

/** A list of recordings, and the timelines of the selected one. `kind` is "test" or "train". */
class Explorer {
  /** @type {any[]} buttons of the recordings */
  items = [];
  /** @type {any[]} buttons of the classes */
  legendItems = [];
  /** @type {Timeline[]} */
  timelines = [];
  /** @type {Overview | undefined} */
  overview;
  highest = 0;
  stale = true;
  waiting = false;

  constructor(kind, section) {
    this.kind = kind;
    this.recordings = DATA[kind];
    this.threshold = initialThreshold(kind);
    this.index = this.firstIndex();
    this.view = { start: 0, end: this.duration };
    this.focused = { time: null, span: null };
    this.curves = true;
    this.build(section);
    this.pick(this.index);
    new ResizeObserver(() => this.redraw()).observe(this.stage);
    explorers.push(this);
  }

  get recording() { return this.recordings[this.index]; }
  get duration() { return Math.max(this.recording.duration, 0.1); }
  get data() { return unpack(this.recording); }
  get isTest() { return this.kind === "test"; }
  get annotated() { return this.recordings.some((one) => one.truth.length); }

  /** Opens on the recording with the most classes. */
  firstIndex() {
    const classes = this.recordings.map((one) => new Set([...unpack(one).truth, ...unpack(one).points].map((span) => span.label)).size);
    return Math.max(0, classes.indexOf(Math.max(...classes)));
  }

  /** The least score of a round or stage, by default the last: in proportion, since their scores mean different things. */
  least(index) {
    const initial = DATA.thresholds[this.kind], last = initial.at(-1);
    return index === undefined || !(last > 0) ? this.threshold : (this.threshold * initial[index]) / last;
  }
  shown(spans, index) {
    const least = this.least(index);
    return spans.filter((span) => span.score >= least && !hiddenClasses.has(span.label));
  }
  visible(spans) {
    return spans.filter((span) => !hiddenClasses.has(span.label));
  }

  // ---- controls

  build(section) {
    this.list = h("div", {});
    this.title = h("span", { class: "title" });
    this.ranges = h("span", { class: "group", role: "group", "aria-label": "Length of the window" });
    this.legend = h("div", { class: "legend", role: "group", "aria-label": "Classes shown" });
    this.overview = new Overview(this, (context, toX) => this.paintOverview(context, toX));
    this.table = h("details", {}, h("summary", {}, `The shown ${this.isTest ? "detections" : "proposals"} as a table`));
    this.table.addEventListener("toggle", () => this.fillTable());
    const timeline = (makeLanes, label) =>
      new Timeline(this, makeLanes, { tabindex: 0, role: "img", "aria-label": `Timeline of ${label}`, onkeydown: (event) => this.key(event) });
    this.timelines = this.isTest
      ? [timeline(() => this.classLanes(), "the detections, one lane a class")]
      : [timeline(() => this.pointLanes(), "the points, the proposals and the pseudo segments")];
    if (this.isTest && DATA.rounds.length) this.timelines.push(timeline(() => this.roundLanes(), "every round and stage, one lane each"));
    this.stage = h("div", { class: "stage" }, this.tools(), this.legend, this.overview.canvas, this.panels(),
      h("p", { class: "hint" }, "Ctrl + wheel or pinch: zoom. Drag or Shift + wheel: pan. Double click: show all. Keys, with the timeline focused: ← → + − 0."),
      this.table);
    section.append(h("div", { class: "card explorer" }, h("nav", { class: "list", "aria-label": "Recordings" }, this.list), this.stage));
    this.buildList();
    this.buildLegend();
  }

  panels() {
    const [byClass, byRound] = this.timelines.map((timeline) => timeline.canvas), several = DATA.rounds.length > 1;
    const panel = (title, note, canvas) => (canvas ? [h("h3", {}, title, h("small", {}, note)), canvas] : []);
    const learns = this.recordings.some((one) => one.pseudo?.length);
    if (!this.isTest) {
      return panel(learns ? "Points, proposals and pseudo segments" : "Points and proposals",
        `the proposals of a round are the pseudo instances of the next${learns ? "; the detector learns from the pseudo segments" : ""}`, byClass);
    }
    const curves = hasDetector && this.recordings.some((one) => one.curves) ? "; score curves: the mean of the rounds" : "";
    const bars = this.annotated ? "upper bars: ground truth; lower bars: detections, the higher the score the stronger" : "the higher the score the stronger";
    const marks = (this.annotated ? "marks under a lane: instance found at tIoU .5 (solid) or missed (hollow)" : "")
      + (hasDetector ? "; the least score is that of all stages, of the others in proportion" : "");
    return [
      ...panel(several ? `Class by class, ${DATA.rounds[DATA.rounds.length - 1].name}` : "Class by class", bars + curves, byClass),
      ...panel(several ? `Detections of each round${hasDetector ? " and stage" : ""}` : "All classes", marks, byRound),
    ];
  }

  tools() {
    const scores = this.recordings.flatMap((one) => unpack(one).rounds.flat().map((span) => span.score));
    const low = Math.floor(100 * scores.reduce((a, b) => Math.min(a, b), 0)) / 100;
    const high = Math.ceil(100 * scores.reduce((a, b) => Math.max(a, b), 0.01)) / 100;
    this.highest = high;
    this.output = h("output", {});
    this.slider = h("input", {
      type: "range", min: low, max: high, step: 0.01, value: this.threshold, "aria-label": "Least score shown",
      oninput: () => { this.threshold = Number(this.slider.value); this.refresh(); },
    });
    const toggle = h("input", { type: "checkbox", checked: true, onchange: () => { this.curves = toggle.checked; this.refresh(); } });
    const zooms = h("span", { class: "group" }, zoomButtons((factor) => this.zoom(factor)));
    return h("div", { class: "tools" }, this.title,
      this.isTest && this.recordings.some((one) => one.curves) ? h("label", {}, toggle, "score curves") : null,
      scores.length ? h("label", {}, "score ≥", this.slider, this.output) : null, this.ranges, zooms);
  }

  buildList() {
    const draw = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const item = this.items.find((one) => one === target);
        item.seen = isIntersecting;
        if (isIntersecting) this.drawStrip(item);
      }
    }, { rootMargin: "200px" });
    this.items = this.recordings.map((recording, i) => {
      const strip = h("canvas", { "aria-hidden": true }), note = h("i", {});
      const button = h("button", { type: "button", onclick: () => this.pick(i) },
        h("span", {}, h("b", { title: recording.name }, recording.name), note), strip);
      Object.assign(button, { recording, strip, note });
      draw.observe(button);
      return button;
    });
    this.list.append(...this.items);
  }

  drawStrip({ recording, strip, note }) {
    const { truth, points, rounds } = unpack(recording), found = this.shown(rounds[rounds.length - 1] ?? []);
    const instances = this.visible(truth);
    if (instances.length) note.textContent = `${match(instances, found).found.size} of ${instances.length} found`;
    else note.textContent = points.length ? plural(this.visible(points).length, "point") : clock(recording.duration);
    const { context, width } = fitCanvas(strip, 15), x = (time) => (time / Math.max(recording.duration, 0.1)) * width;
    context.fillStyle = css("--grid");
    context.fillRect(0, 0, width, 15);
    drawSpans(context, truth.length ? instances : this.visible(points), x, 0, 7);
    drawSpans(context, [...found].reverse(), x, 8, 7, (score) => this.alpha(score));
  }

  buildLegend() {
    const used = new Set(this.recordings.flatMap((one) => {
      const { truth, points, rounds, pseudo } = unpack(one);
      return [...truth, ...points, ...rounds.flat(), ...pseudo].map((span) => span.label);
    }));
    this.legendItems = fillLegend(this.legend, [...used].sort((a, b) => a - b), () => explorers.forEach((one) => one.refresh()));
  }

  // ---- actions

  pick(index) {
    this.index = index;
    this.items.forEach((item, i) => item.setAttribute("aria-current", i === index));
    this.view = { start: 0, end: this.duration };
    this.title.replaceChildren(this.recording.name, h("small", {}, clock(this.duration)));
    const lengths = [600, 300, 120, 60, 30, 10].filter((seconds) => seconds < this.duration * 0.9).slice(0, 4);
    const windows = [{ name: "all", seconds: this.duration }, ...lengths.map((s) => ({ name: s < 60 ? `${s} s` : `${s / 60} min`, seconds: s }))];
    this.ranges.replaceChildren(...windows.map(({ name, seconds }) => {
      const button = h("button", { type: "button", onclick: () => this.zoom(seconds / (this.view.end - this.view.start)) }, name);
      button.seconds = seconds;
      return button;
    }));
    this.refresh();
  }

  leastSpan() { return Math.min(this.duration, 1); }

  show(start, end) {
    this.view = fitWindow(start, end, this.leastSpan(), this.duration);
    this.redraw();
  }

  zoom(factor, time = (this.view.start + this.view.end) / 2) {
    this.view = zoomWindow(this.view, factor, time, this.leastSpan(), this.duration);
    this.redraw();
  }

  key(event) {
    const { start, end } = this.view, shift = (end - start) * 0.2;
    const acts = {
      ArrowLeft: () => this.show(start - shift, end - shift), ArrowRight: () => this.show(start + shift, end + shift),
      "+": () => this.zoom(0.7), "=": () => this.zoom(0.7), "-": () => this.zoom(1 / 0.7), 0: () => this.show(0, this.duration),
    };
    if (!acts[event.key] || event.ctrlKey || event.metaKey) return;
    acts[event.key]();
    event.preventDefault();
  }

  focus(time, span) {
    if (time === this.focused.time && span === this.focused.span) return;
    this.focused = { time, span };
    this.redraw();
  }

  /** Draws again after a change of the threshold, the classes or the recording. */
  refresh() {
    this.output.textContent = ratio(this.threshold, 2);
    this.legendItems.forEach((item) => item.setAttribute("aria-pressed", !hiddenClasses.has(item.label)));
    this.stale = true;
    this.items.filter((item) => item.seen).forEach((item) => this.drawStrip(item));
    this.fillTable();
    this.redraw();
  }

  /** Draws again after a change of the time window, at most once a frame. */
  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      if (this.stale) this.timelines.forEach((timeline) => timeline.update());
      this.timelines.forEach((timeline) => timeline.draw());
      this.stale = false;
      this.overview?.draw();
      const span = this.view.end - this.view.start;
      [...this.ranges.children].forEach((button) => button.setAttribute("aria-pressed", Math.abs(button.seconds - span) < 0.01));
    });
  }

  paintOverview(context, toX) {
    const { truth, points, rounds } = this.data;
    const spans = truth.length ? truth : points.length ? points : this.shown(rounds[rounds.length - 1] ?? []);
    drawSpans(context, this.visible(spans), toX, 6, 14);
  }

  // ---- lanes

  alpha(score) {
    return 0.2 + 0.75 * clamp(score / this.highest, 0, 1) ** 0.8;
  }

  truthBar(span, top, height, text) {
    const tip = () => [
      tipTitle(span.label, "ground truth"), tipTime(span),
      DATA.rounds.length ? tipTable(DATA.rounds.map(({ name }, i) => {
        const best = bestOverlap(span, this.shown(this.data.rounds[i], i));
        return [name, best ? `tIoU ${ratio(best.iou, 2)}, score ${ratio(best.span.score, 2)}` : "missed"];
      })) : "",
    ];
    return { ...span, span, top, height, alpha: 1, colour: classColour(span.label), text: text ? className(span.label) : "", tip };
  }

  foundBar(span, top, height, text) {
    const tip = () => {
      const { truth, points } = this.data, best = bestOverlap(span, truth);
      const inside = points.filter((point) => point.label === span.label && point.time >= span.start && point.time < span.end);
      const rows = [tipTitle(span.label), tipTime(span), `score ${ratio(span.score)}`];
      if (best) rows.push(`tIoU ${ratio(best.iou, 2)} with ${clock(best.span.start, 1)} – ${clock(best.span.end, 1)}`);
      else if (truth.length) rows.push("no ground truth of this class here");
      if (!truth.length && points.length) rows.push(`${plural(inside.length, "point")} of this class inside`);
      return rows;
    };
    return { ...span, span, top, height, alpha: this.alpha(span.score), colour: classColour(span.label), text: text ? className(span.label) : "", tip };
  }

  pseudoBar(span, top, height) {
    const tip = () => [tipTitle(span.label, "pseudo segment"), tipTime(span), SOURCES[span.source]];
    return { ...span, span, top, height, alpha: span.source === MEDIAN ? 0.3 : 0.85, colour: classColour(span.label), text: className(span.label), tip };
  }

  pointTicks(points) {
    return points.map((point) => ({
      ...point, colour: classColour(point.label), tip: () => [tipTitle(point.label, "point"), clock(point.time, 1)],
    }));
  }

  /** By rising score, so that the best is on top. */
  foundBars(spans, top, height, text, index) {
    return [...this.shown(spans, index)].sort((a, b) => a.score - b.score).map((span) => this.foundBar(span, top, height, text));
  }

  classLanes() {
    const { truth, points, rounds, curves } = this.data, found = this.shown(rounds[rounds.length - 1] ?? []);
    const labels = [...new Set([...this.visible(truth), ...found].map((span) => span.label))].sort((a, b) => a - b);
    const of = (spans, label) => spans.filter((span) => span.label === label);
    const truthHeight = this.annotated ? 12 : 0;
    /** @type {any[]} */
    const lanes = labels.map((label) => {
      const instances = of(truth, label), detections = of(found, label), { found: matched, extra } = match(instances, detections);
      const bars = [...instances.map((span) => this.truthBar(span, 4, 9)), ...this.foundBars(detections, 4 + truthHeight, 11)];
      const curve = this.laneCurve(curves, label, truthHeight + 18);
      return {
        label: className(label), colour: classColour(label), bars, curve, height: Math.max(36, truthHeight + 20 + (curve ? 22 : 4)),
        note: this.annotated ? `${matched.size} of ${instances.length} found, ${extra} extra` : plural(detections.length, "detection"),
        ticks: this.pointTicks(of(points, label)), tip: curve && ((time) => this.curveTip(label, curves, time)),
      };
    });
    const background = this.laneCurve(curves, -1, 3);
    if (background) lanes.push({ label: "background", height: 27, curve: { ...background, colour: css("--muted") }, tip: (time) => this.curveTip(-1, curves, time) });
    return lanes.length ? lanes : [{ label: "nothing shown", height: 30 }];
  }

  laneCurve(curves, label, top) {
    const curve = this.curves ? curves?.get(label) : null;
    return curve ? { ...curve, colour: classColour(label), top, height: 20, shade: 0.22 } : null;
  }

  curveTip(label, curves, time) {
    const at = Math.floor(time / curves.get(-1).step), score = (one) => curves.get(one)?.values[at];
    if (score(-1) === undefined) return null;
    const value = (one) => (curves.has(one) ? ratio(score(one) / 255, 2) : "–");
    const best = [...curves.keys()].filter((one) => one >= 0 && one !== label).sort((a, b) => score(b) - score(a)).slice(0, 2);
    const rows = [...(label >= 0 ? [label] : []), ...best].map((one) => [h("span", {}, swatch(classColour(one)), className(one)), value(one)]);
    return [`score at ${clock(time, 1)}`, tipTable([...rows, ["background", value(-1)]])];
  }

  roundLanes() {
    const { truth, points, rounds } = this.data, instances = this.visible(truth), lanes = [];
    if (this.annotated) {
      lanes.push({
        label: "ground truth", note: plural(instances.length, "instance"), height: 36,
        bars: instances.map((span) => this.truthBar(span, 7, 22, true)), ticks: this.pointTicks(this.visible(points)),
      });
    }
    DATA.rounds.forEach(({ name }, i) => {
      const shown = this.shown(rounds[i], i), { found, extra } = match(instances, shown);
      lanes.push({
        label: name, height: 38, bars: this.foundBars(rounds[i], 5, 20, true, i),
        note: this.annotated ? `${found.size} of ${instances.length} found, ${extra} extra` : plural(shown.length, "detection"),
        strip: instances.map((span) => ({ ...span, top: 29, found: found.has(span) })),
      });
    });
    return lanes;
  }

  pointLanes() {
    const points = this.visible(this.data.points);
    const guides = points.map((point) => ({ ...point, colour: classColour(point.label), faint: true }));
    const lanes = [{ label: "points", note: `${points.length} labelled`, height: 36, ticks: this.pointTicks(points) }];
    const pseudo = this.visible(this.data.pseudo);
    DATA.proposals.forEach((name, i) => {
      const shown = this.shown(this.data.rounds[i], i);
      const covered = points.filter((point) => shown.some((span) => span.label === point.label && span.start <= point.time && point.time < span.end));
      lanes.push({
        label: name, note: `${covered.length} of ${points.length} points covered`, height: 38,
        bars: this.foundBars(this.data.rounds[i], 7, 24, true, i), ticks: guides,
      });
    });
    if (this.recordings.some((one) => one.pseudo?.length)) {
      // After the rounds that they come from, before what was learned from them.
      lanes.splice(1 + DATA.proposals.filter((name) => name.startsWith("round ")).length, 0, {
        label: "pseudo segments", note: plural(pseudo.length, "segment"), height: 38,
        bars: pseudo.map((span) => this.pseudoBar(span, 7, 24)), ticks: guides,
      });
    }
    return lanes;
  }

  fillTable() {
    if (!this.table.open) return;
    const { truth, rounds } = this.data, spans = this.shown(rounds[rounds.length - 1] ?? []).sort((a, b) => a.start - b.start);
    const head = ["class", "start", "end", "score", ...(truth.length ? ["tIoU with ground truth"] : [])];
    const rows = spans.map((span) => [
      h("span", {}, swatch(classColour(span.label)), className(span.label)), clock(span.start, 1), clock(span.end, 1), ratio(span.score),
      ...(truth.length ? [ratio(bestOverlap(span, truth)?.iou, 2)] : []),
    ]);
    this.table.replaceChildren(this.table.firstChild, h("div", { class: "scroll" }, makeTable([head], rows)));
  }
}

// ---------------------------------------------------------------- tables and charts

function makeTable(heads, rows, rowClass = (/** @type {number} */ _) => /** @type {string | null} */ (null)) {
  const cell = (tag) => (content) => (content instanceof HTMLTableCellElement ? content : h(tag, {}, content));
  return h("table", {}, h("thead", {}, heads.map((cells) => h("tr", {}, cells.map(cell("th"))))),
    h("tbody", {}, rows.map((cells, i) => h("tr", { class: rowClass(i) }, cells.map(cell("td"))))));
}

/** A cell shaded by its value, 0 to 1. */
function heat(value, attributes = {}) {
  if (!isNumber(value)) return h("td", attributes, "–");
  return h("td", { ...attributes, class: `heat ${attributes.class ?? ""}`, style: `--heat:${Math.round(30 * value ** 2)}%` }, ratio(value));
}

/** The usual averages over ranges of tIoU that the evaluation covers, and the average over all. */
function averages({ tious, map }) {
  const at = (value) => tious.findIndex((one) => Math.abs(one - value) < 1e-6);
  const mean = (from, to) => sum(map.slice(from, to + 1)) / (to + 1 - from);
  const name = (from, to) => `${ratio(from, decimals(from))}–${ratio(to, decimals(to))}`;
  const whole = { name: name(tious[0], tious[tious.length - 1]), value: mean(0, tious.length - 1) };
  const parts = [[0.1, 0.5], [0.3, 0.7]].filter(([a, b]) => at(a) >= 0 && at(b) >= 0 && at(b) - at(a) < tious.length - 1);
  return [...parts.map(([a, b]) => ({ name: name(a, b), value: mean(at(a), at(b)) })), whole];
}

const decimals = (tiou) => (Math.abs(tiou * 10 - Math.round(tiou * 10)) < 1e-6 ? 1 : 2);

const roundKeys = (rounds) => h("div", { class: "keys" }, rounds.map(({ name }, i) =>
  h("span", {}, h("i", { style: `background:${roundColour(i, rounds.length)}` }), name)));

// ---------------------------------------------------------------- the page

const evaluated = DATA.rounds.map((round, i) => ({ ...round, index: i })).filter(({ evaluation }) => evaluation?.tious?.length && evaluation.map);
const lastEvaluation = evaluated[evaluated.length - 1]?.evaluation;

function section(title, lead) {
  const element = h("section", {}, h("h2", {}, title), h("p", { class: "lead" }, lead));
  $("main").append(element);
  return element;
}

/** A name for the width of a bar. */
function shortName(name, i) {
  if (i === evaluated.length - 1 && name.startsWith("all ")) return "all";
  return name.replace("round ", "R").replace("all rounds", "rounds").replace("detector", "det.");
}

function buildHeader() {
  const { data = {}, seed } = DATA.card, last = evaluated[evaluated.length - 1];
  const instances = lastEvaluation?.num_ground_truth ?? data.test_instances ?? sum(DATA.test.map((one) => one.truth.length / 3));
  const points = data.points ?? sum(DATA.train.map((one) => one.points.length / 2));
  const tests = data.test_recordings ?? DATA.test.length, trains = data.train_recordings ?? DATA.train.length;
  const count = (value, word) => (typeof value === "number" ? plural(value, word) : `${value} ${word}s`);
  const lead = [
    trains ? `Trained on ${count(trains, "recording")}${points ? ` with ${count(points, "point label")}` : ""}, without starts and ends.` : null,
    tests ? (instances ? `Tested on ${count(tests, "recording")} with ${count(instances, "annotated instance")}.` : `Detections in ${count(tests, "recording")}.`) : null,
  ].filter(Boolean).join(" ");
  document.title = `${DATA.name} · tal_jax report`;
  const headline = last && h("div", { class: "headline" },
    h("div", {}, h("small", {}, `average mAP, tIoU ${averages(last.evaluation).at(-1)?.name}`), h("b", {}, ratio(last.evaluation.average_map))),
    evaluated.length > 1 ? h("div", { class: "steps", "aria-hidden": true }, evaluated.map(({ evaluation, name }, i) => h("div", {},
      ratio(evaluation.average_map, 2), h("i", { style: `height:${Math.round(4 + 40 * evaluation.average_map)}px;background:${roundColour(i, evaluated.length)}` }), shortName(name, i))))
      : null);
  const half = lastEvaluation && nearest(lastEvaluation.tious, 0.5);
  const tiles = [
    lastEvaluation && ["mAP at tIoU .5", ratio(lastEvaluation.map[half])],
    isNumber(lastEvaluation?.short_recall?.[half]) && ["recall of short at .5", ratio(lastEvaluation.short_recall[half])],
    DATA.classes.length && ["classes", DATA.classes.length], tests && [instances ? "test recordings" : "recordings", tests], instances && ["test instances", instances],
    trains && ["training recordings", trains], points && ["points", points], seed !== undefined && seed !== null && ["seed", seed],
  ].filter(Boolean);
  $("top").append(
    h("div", { class: "hero" }, h("div", {}, h("p", { class: "eyebrow" }, "tal_jax · weakly supervised temporal action localization"), h("h1", {}, DATA.name), h("p", { class: "lead" }, lead)), headline),
    h("div", { class: "tiles" }, tiles.map(([name, value]) => h("div", {}, h("b", {}, typeof value === "number" ? value.toLocaleString("en") : String(value)), h("span", {}, name)))));
}

function buildResults() {
  if (!evaluated.length) return;
  const { tious } = lastEvaluation, half = nearest(tious, 0.5), means = averages(lastEvaluation);
  const part = section("Results", "Mean average precision over the classes at each tIoU threshold.");
  const apart = (tag, text, attributes = {}) => h(tag, { class: "apart", ...attributes }, text);
  const heads = [
    [h("th", {}), apart("th", "mAP at tIoU", { colspan: tious.length, style: "text-align:center" }), apart("th", "average", { colspan: means.length, style: "text-align:center" }),
      apart("th", `recall at ${ratio(tious[half], decimals(tious[half]))}`, { colspan: 2, style: "text-align:center" }), apart("th", "")],
    ["", ...tious.map((tiou, i) => h("th", i ? {} : { class: "apart" }, ratio(tiou, decimals(tiou)))), ...means.map(({ name }, i) => h("th", i ? {} : { class: "apart" }, name)),
      apart("th", "short"), "long", apart("th", "detections")],
  ];
  const rows = evaluated.map(({ name, evaluation }, i) => [
    h("td", {}, swatch(roundColour(i, evaluated.length)), name),
    ...evaluation.map.map((value, j) => heat(value, j ? {} : { class: "apart" })), ...averages(evaluation).map(({ value }, j) => heat(value, j ? {} : { class: "apart" })),
    heat(evaluation.short_recall?.[half], { class: "apart" }), heat(evaluation.long_recall?.[half]),
    apart("td", isNumber(evaluation.num_detections) ? evaluation.num_detections.toLocaleString("en") : "–"),
  ]);
  if (evaluated.length > 1) {
    const [first, last] = [evaluated[0].evaluation, lastEvaluation], change = (a, b, attributes) => h("td", attributes, signed(b - a));
    const [firstMeans, lastMeans] = [averages(first), averages(last)];
    rows.push(["change", ...last.map.map((value, j) => change(first.map[j], value, j ? {} : { class: "apart" })),
      ...lastMeans.map(({ value }, j) => change(firstMeans[j].value, value, j ? {} : { class: "apart" })),
      change(first.short_recall?.[half] ?? NaN, last.short_recall?.[half] ?? NaN, { class: "apart" }), change(first.long_recall?.[half] ?? NaN, last.long_recall?.[half] ?? NaN), apart("td", "")]);
  }
  const below = isNumber(lastEvaluation.short_s) ? ` (under ${lastEvaluation.short_s.toFixed(1)} s)` : "";
  const counts = [[lastEvaluation.num_videos, "recording", ""], [lastEvaluation.num_ground_truth, "annotated instance", ""], [lastEvaluation.num_short, "short instance", below], [lastEvaluation.num_long, "long instance", ""]]
    .filter(([count]) => isNumber(count)).map(([count, word, more]) => plural(count, word) + more).join(", ");
  const notes = [...new Set([...(lastEvaluation.notes ?? []), ...(DATA.card.data?.notes ?? [])])];
  const chart = lineChart({
    title: "mAP per tIoU", format: (value) => ratio(value, 2), xFormat: (value) => ratio(value, decimals(value)), ticksX: tious.length > 7 ? tious.filter((_, i) => i % 2 === 0) : tious,
    series: evaluated.map(({ name, evaluation }, i) => ({ name, colour: roundColour(i, evaluated.length), xs: evaluation.tious, ys: evaluation.map })),
  });
  part.append(h("div", { class: "card split" },
    h("div", {}, h("div", { class: "scroll" }, makeTable(heads, rows, (i) => (i === evaluated.length - 1 ? "last" : i >= evaluated.length ? "change" : null))),
      h("ul", { class: "notes" }, h("li", {}, `Counted: ${counts}.`), notes.length ? notes.map((note) => h("li", {}, note)) : h("li", {}, "All annotations and detections are included."))),
    h("div", {}, chart, evaluated.length > 1 ? roundKeys(evaluated) : null)));
  buildClassTable(part);
}

function buildClassTable(part) {
  const { tious, ap, classes } = lastEvaluation, first = evaluated[0].evaluation;
  if (!ap || !classes) return;
  const mean = (values) => (values.every(isNumber) && values.length ? sum(values) / values.length : null);
  const column = (evaluation, c) => evaluation.ap.map((row) => row[c]);
  const heads = [["class", "instances", "median length", ...tious.map((tiou, i) => h("th", i ? {} : { class: "apart" }, ratio(tiou, decimals(tiou)))), h("th", { class: "apart" }, "average"),
    ...(evaluated.length > 1 ? [`change since ${evaluated[0].name}`] : [])]];
  const rows = classes.map((name, c) => {
    const values = column(lastEvaluation, c), before = first.ap ? column(first, first.classes.indexOf(name)) : [];
    const [count, length] = DATA.instances[DATA.classes.indexOf(name)] ?? [0, null];
    return [h("td", {}, swatch(classColour(DATA.classes.indexOf(name))), name), count.toLocaleString("en"), length === null ? "–" : `${length.toFixed(1)} s`,
      ...values.map((value, j) => heat(value, j ? {} : { class: "apart" })), heat(mean(values), { class: "apart" }), ...(evaluated.length > 1 ? [signed((mean(values) ?? NaN) - (mean(before) ?? NaN))] : [])];
  });
  part.append(h("div", { class: "card", style: "margin-top:16px" },
    h("h3", { style: "margin-top:0" }, `Average precision of each class, ${evaluated[evaluated.length - 1].name}`), h("div", { class: "scroll" }, makeTable(heads, rows))));
}

function buildTest() {
  if (!DATA.test.length) return;
  const annotated = DATA.test.some((one) => one.truth.length), start = ratio(initialThreshold("test"), 2);
  const lead = !DATA.rounds.length ? "The annotated instances of the test recordings." : annotated
    ? `Detections and ground truth. The initial score threshold, ${start}, keeps as many detections as there are annotated instances${lastEvaluation ? "; the tables above use all detections" : ""}.`
    : `Detections.${initialThreshold("test") ? ` The initial score threshold, ${start}, is half of the highest score.` : ""}`;
  new Explorer("test", section(annotated ? "Test recordings" : "Recordings", lead));
}

function buildTrain() {
  if (!DATA.train.length) return;
  const lead = "Training uses one point label for each action, without a start or an end. The next round also uses the proposals of a round."
    + (DATA.proposals.length ? ` The initial score threshold, ${ratio(initialThreshold("train"), 2)}, keeps as many proposals as there are points.` : "");
  const part = section("Training recordings", lead);
  buildQuality(part);
  new Explorer("train", part);
}

/** Of each round and of the detector: the pseudo segments of the points, against the true segments. */
function buildQuality(part) {
  const measured = DATA.rounds.filter(({ pseudo_segments: quality }) => quality?.bins?.length && quality.total);
  if (!measured.length) return;
  const lengths = (quality) => [...quality.bins, quality.total], first = measured[0].pseudo_segments, all = lengths(first);
  const apart = (tag, text, attributes = {}) => h(tag, { class: "apart", ...attributes }, text);
  const names = all.map(({ shortest_s: low, longest_s: high }, i) => (i === all.length - 1 ? "all" : isNumber(high) ? (low ? `${low}–${high} s` : `< ${high} s`) : `≥ ${low} s`));
  const group = (title, count) => apart("th", title, { colspan: count, style: "text-align:center" });
  const heads = [
    ["", group("mean tIoU at true length", all.length), group("median length / true length", all.length), group("share with tIoU", 2), apart("th", "")],
    ["", ...[0, 1].flatMap(() => names.map((name, i) => h("th", i ? {} : { class: "apart" }, name))), apart("th", "≥ .5"), "≥ .7", apart("th", "missing")],
  ];
  const times = (value, i) => h("td", i ? {} : { class: "apart" }, isNumber(value) ? value.toFixed(2) : "–");
  const rows = measured.map(({ name, pseudo_segments: quality }) => [name,
    ...lengths(quality).map((one, i) => heat(one.mean_iou, i ? {} : { class: "apart" })), ...lengths(quality).map((one, i) => times(one.length_ratio, i)),
    heat(quality.total.recall_50, { class: "apart" }), heat(quality.total.recall_70), apart("td", quality.total.missing.toLocaleString("en"))]);
  const counts = all.map((one, i) => `${names[i]}: ${one.instances.toLocaleString("en")}`).join(", ");
  part.append(h("div", { class: "card", style: "margin-bottom:16px" }, h("h3", { style: "margin-top:0" }, "Pseudo segments of the points, by true length"),
    h("div", { class: "scroll" }, makeTable(heads, rows)),
    h("ul", { class: "notes" }, h("li", {}, `Instances: ${counts}.`), h("li", {}, "Evaluation only: true segments of training recordings are not used in training."))));
}

function buildLosses() {
  if (!DATA.losses.length) return;
  const part = section("Losses", "The total loss and its parts by update, for each round and stage.");
  for (const stage of new Set(DATA.losses.map((one) => one.stage))) part.append(lossCard(DATA.losses.filter((one) => one.stage === stage)));
}

/** The charts of the rounds, or of a stage, whose losses are others. */
function lossCard(losses) {
  const names = [...new Set(losses.flatMap(({ parts }) => Object.keys(parts)))].sort((a, b) => (a === "loss" ? -1 : b === "loss" ? 1 : 0));
  const charts = names.map((name) => {
    const series = losses.map(({ name: title, steps, parts }, i) => ({ name: title, colour: roundColour(i, losses.length), xs: steps, ys: parts[name] ?? [] }));
    const drawn = series.filter(({ ys }) => ys.some(isNumber));
    return drawn.length ? lineChart({ title: name === "loss" ? "total loss" : name.replace("loss_", "L_"), series: drawn, zero: true, format: (value) => String(Number(value.toPrecision(3))), xFormat: (value) => value.toLocaleString("en") }) : null;
  });
  const title = losses[0].stage ? h("h3", { style: "margin-top:0" }, losses[0].stage) : null;
  return h("div", { class: "card", style: losses[0].stage ? "margin-top:16px" : "" }, title, losses.length > 1 ? roundKeys(losses) : null, h("div", { class: "charts" }, charts));
}

function buildFooter() {
  const { versions = {}, git_commit: commit, machine } = DATA.card;
  const facts = [Object.entries(versions).map(([name, version]) => `${name} ${version}`).join(", "), commit && `commit ${String(commit).slice(0, 12)}`,
    machine && (typeof machine === "string" ? machine : JSON.stringify(machine))].filter(Boolean);
  const dump = (title, value) => (Object.keys(value).length ? h("details", {}, h("summary", {}, title), h("pre", {}, JSON.stringify(value, null, 2))) : null);
  $("about").append(
    ...(DATA.notes.length ? [h("p", {}, "Left out of this page:"), h("ul", { class: "notes", style: "margin:0 0 12px" }, DATA.notes.map((note) => h("li", {}, note)))] : []),
    h("p", {}, facts.join(" · ")), ...[dump("Run card", DATA.card), dump("Configuration", DATA.config)].filter(Boolean));
}

buildHeader();
buildResults();
buildTest();
buildTrain();
buildLosses();
buildFooter();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => explorers.forEach((one) => one.refresh()));

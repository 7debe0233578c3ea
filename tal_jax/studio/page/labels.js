// Changes of labels. Each can be undone, is saved, and keeps who made it, when and how.

import { post } from "./api.js";
import { clamp, clock, groupBy } from "./common.js";
import { open } from "./recordings.js";
import { save } from "./saving.js";
import { firstFrom } from "./timeline.js";
import { askedStretch, changed, hasPoint, lastChanged, remember, say, state, timeOf } from "./state.js";
import { now, pause, reveal, seek } from "./time.js";

/** @import {Annotation, Found, Labels, Recording, Selection} from "./state.js" */

const SAME_TIOU = 0.5, SHORTEST_S = 0.02;

export const exact = (seconds) => clock(seconds, 3);

const source = (kind) => ({ by: state.user, at: new Date().toISOString().replace(/\.\d+Z/, "Z"), kind });
/** @param {number | null | undefined} time @param {number[]} segment */
const inside = (time, [start, end]) => typeof time === "number" && start <= time && time < end;
/** The snippet of a time; before there are features, the time itself. */
const snippetOf = (time) => (state.grid ? Math.floor(time * state.grid.fps / state.grid.stride_frames) : time);
const rounded = (time) => Math.round(time * 1000) / 1000;

/** @type {Set<(kind: string) => void>} */
export const answers = new Set();

// ---------------------------------------------------------------- one change

/**
 * @param {Partial<Labels>} changes of the labels of the recording that is shown
 * @param {{text: string, kind?: string, select?: Selection | null}} what it is, for the reader; the kind of an answer; what is selected then
 */
function change(changes, { text, kind, select }) {
  const recording = state.current;
  if (!recording) return;
  remember(recording);
  if (select !== undefined) state.selected = select;
  put({ ...recording.labels, ...changes });
  say(text);
  if (kind) for (const answered of answers) answered(kind);
}

/** @param {Labels} labels */
function put(labels) {
  const recording = state.current;
  if (!recording) return;
  recording.labels = labels;
  dropSelection();
  changed("labels", "selection");
  save(recording);
}

/** Selects nothing if what was selected is gone. */
export function dropSelection() {
  const { selected, current } = state, labels = current?.labels;
  if (!selected || !labels || selected.what === "found") return;
  const all = { label: labels.annotations, background: labels.background, done: labels.done ?? [] };
  if (!(/** @type {any[]} */ (all[selected.what]).includes(selected.one))) state.selected = null;
}

/** Exchanges labels for those of the undo or redo history, in the recording of the last change. @param {"undo" | "redo"} from @param {"undo" | "redo"} to */
async function travel(from, to, text) {
  const index = lastChanged(from);
  if (index === undefined) return;
  if (index !== state.current?.index) await open(index);
  const labels = state.current?.index === index ? state.current[from].pop() : undefined;
  if (!state.current || !labels) return;
  state.history[from].pop();
  state.history[to].push(index);
  state.current[to].push(state.current.labels);
  put(labels);
  say(`${text} in ${state.current.name}`);
}

export const undo = () => travel("undo", "redo", "undone");
export const redo = () => travel("redo", "undo", "done again");

/** @param {Annotation[]} annotations */
const sorted = (annotations) => [...annotations].sort((a, b) => timeOf(a) - timeOf(b));

// ---------------------------------------------------------------- points

/** The time of a new point: whole milliseconds, within the recording, which ends before its duration. */
function pointTime() {
  const last = Math.ceil((state.current?.duration ?? 0) * 1000 - 1) / 1000;
  return clamp(rounded(now()), 0, Math.max(last, 0));
}

/** Places a point of a class at the playhead. @param {string | null} label @param {string} kind */
export function place(label, kind = "click") {
  if (!state.current || !label) return;
  state.chosen = label;
  const time = pointTime(), { annotations } = state.current.labels;
  const same = annotations.find((one) => one.label === label && one.point === time);
  if (same) {
    select({ what: "label", one: same });
    say(`${label} is there already`);
    return;
  }
  const around = annotations.find((one) => one.label === label && !hasPoint(one) && one.segment && inside(time, one.segment));
  const point = { source: source(kind), ...(around ?? { label }), point: time };
  change({ annotations: sorted([...annotations.filter((one) => one !== around), point]), ...withoutBackground(point) },
    { text: `${label} at ${exact(time)}`, kind, select: { what: "label", one: point } });
}

/** Places a background point at the playhead, or in the middle of the selected detection. */
export function placeBackground() {
  const { current, selected } = state;
  if (!current) return;
  const found = selected?.what === "found" ? selected.one : null;
  const time = found ? rounded((found.segment[0] + found.segment[1]) / 2) : pointTime();
  const { annotations, background, sources } = current.labels;
  const around = annotations.find((one) => contradicts(time, one));
  if (around) {
    say(`${around.label} is labelled here: remove it first`);
    return;
  }
  if (background.includes(time)) {
    say(`background at ${exact(time)} already`);
    return;
  }
  const kind = found ? "wrong" : "click";
  change({ background: [...background, time].sort((a, b) => a - b), sources: { ...sources, [String(time)]: source(kind) } },
    { text: `background at ${exact(time)}`, kind, select: found ? null : { what: "background", one: time } });
}

/** Removes what is selected; of a point with a known start and end, the point alone. */
export function remove(selection = state.selected) {
  if (!state.current || !selection) return;
  const { annotations, background, sources, done } = state.current.labels;
  if (selection.what === "label") {
    const { one } = selection, { point: _, ...rest } = one;
    const left = hasPoint(one) && one.segment ? [rest] : [];
    change({ annotations: annotations.flatMap((other) => (other === one ? left : [other])) }, { text: `removed ${one.label} at ${exact(timeOf(one))}` });
  } else if (selection.what === "background") {
    const { [String(selection.one)]: _, ...others } = sources;
    change({ background: background.filter((time) => time !== selection.one), sources: others }, { text: `removed background at ${exact(selection.one)}` });
  } else if (selection.what === "done") {
    change({ done: (done ?? []).filter((one) => one !== selection.one) }, { text: "no longer done" });
  }
}

// ---------------------------------------------------------------- segments

/** @param {number[]} one @param {number[]} other */
const iou = ([a, b], [c, d]) => Math.max(0, Math.min(b, d) - Math.max(a, c)) / (Math.max(b, d) - Math.min(a, c));

/** Labelled segments of each class by their starts, and the length of the longest. @type {WeakMap<Labels, Map<string, {starts: number[], all: Annotation[], longest: number}>>} */
const indexes = new WeakMap();

/** @param {Labels} labels */
function segmentsByClass(labels) {
  let index = indexes.get(labels);
  if (!index) {
    index = new Map();
    for (const [label, group] of groupBy(labels.annotations.filter((one) => one.segment), (one) => one.label)) {
      const all = group.sort((a, b) => (a.segment?.[0] ?? 0) - (b.segment?.[0] ?? 0)), segments = all.map((one) => one.segment ?? [0, 0]);
      index.set(label, { all, starts: segments.map(([start]) => start), longest: Math.max(...segments.map(([start, end]) => end - start)) });
    }
    indexes.set(labels, index);
  }
  return index;
}

/** The labelled instance that a detection is, if any. @param {Found} found @param {Labels} labels */
export function confirmed(found, labels) {
  const index = segmentsByClass(labels).get(found.label);
  if (!index) return null;
  for (let i = firstFrom(index.starts, found.segment[0] - index.longest); i < index.all.length && index.starts[i] < found.segment[1]; i++) {
    if (iou(index.all[i].segment ?? [0, 0], found.segment) >= SAME_TIOU) return index.all[i];
  }
  return null;
}

/** Whether a background point contradicts a detection. @param {Found} found @param {Labels} labels */
export const rejected = ({ segment }, { background }) => inside(background[firstFrom(background, segment[0])], segment);

/** Makes the selected detection a segment label, with another class or other edges if they are given. */
export function accept(kind = "accept", changes = {}) {
  const { current, selected } = state;
  if (!current || selected?.what !== "found") return;
  const { label, segment } = { label: selected.one.label, segment: selected.one.segment.map(rounded), ...changes };
  const { annotations } = current.labels, known = confirmed({ ...selected.one, label, segment }, current.labels);
  if (known) {
    select({ what: "label", one: known });
    say("labelled already");
    return;
  }
  // A click within it, without a start and an end so far, is the same instance.
  const clicks = annotations.filter((one) => one.label === label && !one.segment && hasPoint(one) && inside(one.point, segment));
  const click = clicks.length === 1 ? clicks[0] : null;
  const one = { ...(click ?? { label }), segment, source: source(kind) };
  change({ annotations: sorted([...annotations.filter((other) => other !== click), one]), ...withoutBackground(one) },
    { text: `${label} from ${exact(segment[0])} to ${exact(segment[1])}`, kind, select: { what: "label", one } });
}

/** Whether there is an action at a background point, or in its snippet: training refuses both. @param {number} time @param {Annotation} one */
function contradicts(time, { point, segment }) {
  const at = point ?? (segment ? (segment[0] + segment[1]) / 2 : null);
  return (at !== null && snippetOf(at) === snippetOf(time)) || Boolean(segment && inside(time, segment));
}

/** The later decision holds: background points that contradict an instance go. @param {Annotation} one */
function withoutBackground(one) {
  const { background, sources } = /** @type {Recording} */ (state.current).labels;
  const kept = background.filter((time) => !contradicts(time, one));
  if (kept.length === background.length) return {};
  return { background: kept, sources: Object.fromEntries(Object.entries(sources).filter(([time]) => kept.includes(Number(time)))) };
}

/** Start and end of what is selected, if it has them. @returns {number[] | null} */
export function selectedSegment() {
  const { selected } = state;
  if (selected?.what === "done") return selected.one;
  return selected?.what === "label" || selected?.what === "found" ? selected.one.segment ?? null : null;
}

/** The segment with an edge moved to a time, as far as it may. @param {number[]} segment @param {"start" | "end"} edge @param {number} time @param {number | null} point */
export function withEdge(segment, edge, time, point = null) {
  const [start, end] = segment, duration = state.current?.duration ?? 0;
  if (edge === "start") return [rounded(clamp(time, 0, point ?? end - SHORTEST_S)), end];
  return [start, rounded(clamp(time, (point ?? start) + SHORTEST_S, duration))];
}

/** Moves an edge of what is selected to a time: a nudged detection is an accepted one. @param {"start" | "end"} edge */
export function nudge(edge, time) {
  const { current, selected } = state, segment = selectedSegment();
  if (!current || !selected || !segment) return;
  if (selected.what === "found") {
    accept("nudge", { segment: withEdge(segment.map(rounded), edge, time) });
  } else if (selected.what === "done") {
    const stretch = withEdge(segment, edge, time), others = (current.labels.done ?? []).filter((one) => one !== segment);
    setDone([...others, stretch], "done stretch moved", { selected: stretch });
  } else if (selected.what === "label") {
    const { one } = selected, moved = { ...one, segment: withEdge(segment, edge, time, one.point ?? null), source: source("nudge") };
    replace(one, moved, `${edge} at ${exact(moved.segment[edge === "start" ? 0 : 1])}`);
  }
}

/** @param {Annotation} one @param {Annotation} by @param {string} text @param {string} [kind] */
function replace(one, by, text, kind) {
  const annotations = /** @type {Recording} */ (state.current).labels.annotations.map((other) => (other === one ? by : other));
  change({ annotations: sorted(annotations), ...withoutBackground(by) }, { text, kind, select: { what: "label", one: by } });
}

/** Gives what is selected another class. @param {string | undefined} label */
export function setClass(label) {
  const { selected } = state;
  state.classNext = false;
  if (label && selected?.what === "found") accept("class", { label });
  else if (label && selected?.what === "label") replace(selected.one, { ...selected.one, label, source: source("class") }, `now ${label}`, "class");
  changed("selection");
}

// ---------------------------------------------------------------- done stretches

/** The first call marks the start of a done stretch, the second its end; a stretch that the queue asks about is done at once. */
export function markDone() {
  const { current } = state, asked = askedStretch();
  if (!current) return;
  if (!current.labels.done) {
    say("the whole recording is done");
    return;
  }
  if (asked && state.doneFrom === null) {
    const stretch = asked.map(rounded);
    setDone([...current.labels.done, stretch], `done: ${stretch.map(exact).join(" – ")}`, { kind: "done" });
    return;
  }
  if (state.doneFrom === null) {
    state.doneFrom = rounded(now());
    say(`done from ${exact(state.doneFrom)}: go to its end`);
    changed("labels");
    return;
  }
  const [start, end] = [state.doneFrom, rounded(now())].sort((a, b) => a - b);
  state.doneFrom = null;
  if (end - start < SHORTEST_S) changed("labels");
  else setDone([...current.labels.done, [start, end]], `done from ${exact(start)} to ${exact(end)}`);
}

/** Marks the whole recording as done, or none of it. */
export function markAllDone() {
  if (!state.current) return;
  const whole = state.current.labels.done === null;
  state.doneFrom = null;
  change({ done: whole ? [] : null }, { text: whole ? "nothing is done" : "the whole recording is done" });
}

/** Joins stretches that overlap or touch. @param {number[][]} stretches @param {string} text @param {{selected?: number[], kind?: string}} [what] is selected; the kind of an answer */
function setDone(stretches, text, { selected, kind } = {}) {
  /** @type {number[][]} */
  const done = [];
  for (const one of [...stretches].sort((a, b) => a[0] - b[0])) {
    const last = done.at(-1);
    if (last && one[0] <= last[1]) done[done.length - 1] = [last[0], Math.max(last[1], one[1])];
    else done.push(one);
  }
  const one = selected && done.find(([start, end]) => start <= selected[0] && selected[0] <= end);
  change({ done }, { text, kind, ...(one ? { select: { what: "done", one } } : {}) });
}

// ---------------------------------------------------------------- selection

/** Selects, and moves the playhead there. @param {Selection | null} selection */
export function select(selection) {
  state.selected = selection;
  state.classNext = false;
  if (selection) {
    pause();
    const time = placeOf(selection);
    seek(time);
    reveal(time);
  }
  changed("selection");
}

/** All that can be selected with the brackets, in time: points, background points and labelled segments. @returns {Selection[]} */
export function stops() {
  if (!state.current) return [];
  const { annotations, background } = state.current.labels;
  /** @type {Selection[]} */
  const all = [
    ...annotations.filter((one) => timeOf(one) < Infinity).map((one) => /** @type {Selection} */ ({ what: "label", one })),
    ...background.map((one) => /** @type {Selection} */ ({ what: "background", one })),
  ];
  return all.sort((a, b) => placeOf(a) - placeOf(b));
}

/** @param {Selection} selection @returns {number} */
export const placeOf = ({ one }) => (typeof one === "number" ? one : Array.isArray(one) ? one[0] : "point" in one && typeof one.point === "number" ? one.point : one.segment?.[0] ?? Infinity);

/** Whether the playhead is still at what is selected. */
function isAtSelection(time) {
  const [start, end] = selectedSegment() ?? [Infinity, -Infinity], place = state.selected ? placeOf(state.selected) : Infinity;
  return Math.min(start, place) - 0.01 <= time && time <= Math.max(end, place < Infinity ? place : -Infinity) + 0.01;
}

/** Selects the previous or the next of some: from what is selected on, or from the playhead if that is elsewhere. @param {Selection[]} all @param {number} direction */
export function walk(all, direction) {
  const time = now(), at = isAtSelection(time) ? all.findIndex(({ one }) => one === state.selected?.one) : -1;
  const next = at >= 0 ? all[at + direction]
    : direction > 0 ? all.find((one) => placeOf(one) > time + 5e-4) : all.findLast((one) => placeOf(one) < time - 5e-4);
  if (next) select(next);
}

/** @param {string} name */
export function addClass(name) {
  const label = name.trim();
  if (!label) return;
  if (!state.classes.includes(label)) {
    state.classes.push(label);
    post("classes", { add: label }).catch((error) => say(error.message)); // it goes with the next label, too
  }
  state.chosen = label;
  changed("classes");
}

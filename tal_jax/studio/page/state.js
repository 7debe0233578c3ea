// What the page shows, and who draws again when a part of it changes.

import { $, plural } from "./common.js";

/**
 * Who made a label, when, and how.
 * @typedef {{by: string, at: string, kind: string}} Source
 *
 * An instance of the annotation file. Times are in seconds.
 * @typedef {{label: string, point?: number | null, segment?: number[] | null, source?: Source, [key: string]: any}} Annotation
 *
 * All that is known of a recording; never changed in place. `done` null: the whole recording.
 * @typedef {{annotations: Annotation[], background: number[], sources: Record<string, Source>, done: number[][] | null}} Labels
 *
 * A detection, or an event made of detections.
 * @typedef {{label: string, score: number, segment: number[]}} Found
 *
 * @typedef {{run: number, threshold: any, curves: Map<string, any>, found: Found[], leftOut: number, events: Found[] | null,
 *   counts: {below: number, merged: number, short: number} | null, of: string}} Prediction `of`: the settings that its events were asked for with
 *
 * An opened recording. `stored` are the labels in the file, as far as is known; unsaved while they are not `labels`.
 * @typedef {{index: number, name: string, kind: string, duration: number, frame_rate: number, origin: number, channels: string[],
 *   ranges: number[][], revision: string, notice: string, skeleton?: boolean, labels: Labels, stored: Labels, undo: Labels[], redo: Labels[],
 *   time: number, view: {start: number, end: number}, saving?: boolean, failed?: string | null, conflict?: boolean, left?: boolean, retry?: any}} Recording
 *
 * @typedef {{what: "label", one: Annotation} | {what: "found", one: Found} | {what: "background", one: number}
 *   | {what: "done", one: number[]}} Selection
 *
 * @typedef {{name: string, kind: string, duration: number | null, points: number, background: number, segments: number, done_share: number, features: string,
 *   gone: boolean, note: string}} Row
 *
 * @typedef {{recording: number, time: number, segment: number[] | null, label: string | null, reason: string,
 *   priority: number}} Place
 */

const MOST_UNDO = 500; // of a recording

export const state = {
  file: "",
  user: "person",
  /** @type {any} */
  project: null,
  /** @type {string[]} */
  classes: [],
  /** @type {string[]} */
  colours: [],
  /** @type {Row[]} */
  recordings: [],
  /** @type {any} */
  run: null,
  /** @type {any} */
  job: null,
  /** @type {string | null} */
  canTrain: null,
  /** Answers after which a training starts by itself. @type {number | null} */
  auto: null,
  /** What events can be exported to. @type {{name: string, title: string}[]} */
  formats: [],
  /** Of the features: where their snippets are. @type {{fps: number, stride_frames: number} | null} */
  grid: null,
  answers: 0,
  /** What labels would help most. @type {string | null} */
  advice: null,
  /** A run that was stopped, which the next training continues. @type {number | null} */
  stopped: null,
  /** @type {{threshold: any, min_duration_s: any, merge_gap_s: any}} */
  settings: { threshold: null, min_duration_s: null, merge_gap_s: null },

  /** Index of the recording that is shown, or is being opened. */
  at: 0,
  /** @type {Recording | null} */
  current: null,
  /** @type {Map<number, Recording>} */
  opened: new Map(),
  /** Recordings whose labels were changed, the last one last; the labels before stand in their own histories.
   * @type {{undo: number[], redo: number[]}} */
  history: { undo: [], redo: [] },
  /** The class that Enter places. @type {string | null} */
  chosen: null,
  /** @type {Selection | null} */
  selected: null,
  /** While an edge is dragged: of what, and where it is now. @type {{of: any, segment: number[]} | null} */
  dragged: null,
  /** The beginning of a done stretch whose end is not set yet. @type {number | null} */
  doneFrom: null,
  /** The next number chooses the class of the selection. */
  classNext: false,
  /** Place of the queue that was asked for. @type {Place | null} */
  asked: null,
};

/** The stretch of which a place asks whether all of it is labelled, if it does. @param {Place} place */
export const stretchOf = ({ label, segment }) => (label ? null : segment);

/** The stretch of the recording that is shown of which the queue asks that. @returns {number[] | null} */
export const askedStretch = () => (state.asked?.recording === state.at ? stretchOf(state.asked) : null);

/** @type {Map<string, Set<() => void>>} */
const listeners = new Map();

/**
 * Calls `act` when one of the topics changes: state, recording, labels, selection, classes, window, time, predictions, settings,
 * job, run, queue, saved, colours.
 *
 * @param {string} topics separated by spaces
 * @param {() => void} act
 */
export function on(topics, act) {
  for (const topic of topics.split(" ")) {
    if (!listeners.has(topic)) listeners.set(topic, new Set());
    listeners.get(topic)?.add(act);
  }
}

/** @param {...string} topics that have changed */
export function changed(...topics) {
  const acts = new Set(topics.flatMap((topic) => [...(listeners.get(topic) ?? [])]));
  for (const act of acts) act();
}

/** Tells those who cannot see it. @param {string} text */
export const say = (text) => { $("said").textContent = text; };

/** @param {string} message shown above the recording; none if empty */
export function showNotice(message) {
  $("notice").textContent = message;
  $("notice").hidden = !message;
}

/** Keeps the labels of a recording, so that undo brings them back; what was undone before is gone. @param {Recording} recording */
export function remember(recording) {
  recording.undo.push(recording.labels);
  if (recording.undo.length > MOST_UNDO) recording.undo.shift();
  state.history.undo.push(recording.index);
  state.history.redo = [];
  for (const one of state.opened.values()) one.redo = [];
}

/** The recording of the last change that can be undone, or done again. @param {"undo" | "redo"} way */
export function lastChanged(way) {
  const order = state.history[way], has = (index) => state.opened.get(index)?.[way].length;
  while (order.length && !has(order[order.length - 1])) order.pop(); // another page has changed it since
  return order.at(-1);
}

/** @param {Annotation} one */
export const hasPoint = (one) => one.point !== null && one.point !== undefined;
/** @param {Annotation} one */
export const timeOf = (one) => one.point ?? one.segment?.[0] ?? Infinity;
export const classOf = (label) => state.classes.indexOf(label);
export const colourOf = (label) => state.colours[Math.max(classOf(label), 0) % state.colours.length] ?? "#888888";

/** @param {Labels} labels @returns {number} the part of a recording that is done, 0 to 1 */
export function doneShare(labels, duration) {
  if (!labels.done) return 1;
  return labels.done.reduce((total, [start, end]) => total + end - start, 0) / duration;
}

/** @param {Labels} labels */
export function countsOf(labels) {
  const points = labels.annotations.filter(hasPoint).length, segments = labels.annotations.filter((one) => one.segment).length;
  return [points && plural(points, "point"), segments && plural(segments, "segment"), labels.background.length && `${labels.background.length} background`]
    .filter(Boolean).join(", ");
}

// What the last run predicts, and which of it are events with the settings at hand.

import { get, post, Refused } from "./api.js";
import { unpackCurves } from "./timeline.js";
import { changed, on, say, showNotice, state } from "./state.js";

/** @import {Found, Prediction} from "./state.js" */

/** By index of the recording. @type {Map<number, Prediction | null>} */
const known = new Map();

/** Settings that are tried, and not applied yet. @type {typeof state.settings | null} */
let tried = null;
export const settings = () => tried ?? state.settings;
export const isTried = () => tried !== null;

/** Of the recording that is shown. @returns {Prediction | null} */
export const prediction = () => (state.run && state.current ? known.get(state.current.index) ?? null : null);

/** A setting of a class: one for all, or by class. @param {any} setting @param {string} label @returns {number | null} */
export const ofClass = (setting, label) => (setting !== null && typeof setting === "object" ? setting[label] ?? null : setting ?? null);

/** The least score of events of a class. @param {string} label @returns {number} */
export const thresholdOf = (label) => ofClass(settings().threshold, label) ?? prediction()?.threshold ?? 0;

/** Whether two are the same detection, read at different times. @param {Found} one @param {Found} other */
export const isSame = (one, other) => one.label === other.label && one.segment[0] === other.segment[0] && one.segment[1] === other.segment[1];

/** What is above the threshold, in time. @returns {Found[]} */
export function shownFound() {
  const one = prediction();
  const found = one?.events ?? one?.found.filter(({ label, score }) => score >= thresholdOf(label)) ?? [];
  return [...found].sort((a, b) => a.segment[0] - b.segment[0]);
}

/** Reads the prediction of the recording that is shown. */
async function load() {
  const { run, current } = state, index = current?.index;
  if (!run || index === undefined || known.get(index)?.run === run.number) return;
  try {
    const received = await get(`prediction/${index}`), curves = new Map();
    for (const [label, curve] of unpackCurves(received)) curves.set(label < 0 ? "" : received.labels[label], curve);
    known.set(index, { run: received.run, threshold: received.threshold, curves, found: received.detections, leftOut: received.left_out ?? 0, events: null, counts: null, of: "" });
  } catch (error) {
    known.set(index, null);
    if (!(error instanceof Refused)) showNotice(/** @type {Error} */ (error).message);
  }
  changed("predictions");
  await preview();
}

/** Why the settings leave no events. */
let refused = "";
export const trouble = () => refused;

function refuse(error) {
  refused = /** @type {Error} */ (error).message;
  say(refused);
  changed("predictions");
}

/** Asks which events the settings leave, unless they were asked for with these settings. */
async function preview() {
  const one = prediction(), index = state.current?.index, wanted = settings(), of = JSON.stringify(wanted);
  if (!one || index === undefined || one.of === of) return;
  Object.assign(one, { of, events: null }); // meanwhile the detections above the threshold
  try {
    const { events, below, merged, short } = await post("preview", { recording: index, settings: wanted });
    if (one.of !== of) return;
    Object.assign(one, { events, counts: { below, merged, short } });
    refused = "";
    changed("predictions");
  } catch (error) {
    if (one.of !== of) return;
    one.of = ""; // to be asked for again
    refuse(error);
  }
}

let waiting = 0;

/** Shows what other settings would do, without applying them. @param {Partial<typeof state.settings>} values */
export function tryOut(values) {
  tried = { ...settings(), ...values };
  const one = prediction();
  if (one) Object.assign(one, { of: "", events: null });
  clearTimeout(waiting);
  waiting = setTimeout(preview, 120);
  changed("settings", "predictions");
}

/** Tries another threshold of a class. @param {string} label @param {number} value */
export function tryThreshold(label, value) {
  const { threshold } = settings(), isForAll = typeof threshold === "number";
  // Classes without a threshold of their own keep that of the run, whatever it is after the next training.
  const others = isForAll ? Object.fromEntries(state.classes.map((name) => [name, threshold])) : threshold;
  tryOut({ threshold: { ...others, [label]: Math.round(value * 1000) / 1000 } });
}

/** Keeps the settings that are tried, for all recordings. */
export async function apply() {
  if (!tried) return;
  try {
    await post("settings", tried);
  } catch (error) {
    return refuse(error);
  }
  state.settings = tried;
  discard();
  say("applied to all recordings");
}

export function discard() {
  clearTimeout(waiting);
  tried = null;
  refused = "";
  preview();
  changed("settings", "predictions");
}

/** A class has another name: the settings keep theirs, predictions are read again. */
export function renameClass(before, now) {
  const named = (setting) => (setting === null || typeof setting !== "object" ? setting
    : Object.fromEntries(Object.entries(setting).map(([label, value]) => [label === before ? now : label, value])));
  const take = (/** @type {any} */ all) => Object.fromEntries(Object.entries(all).map(([key, setting]) => [key, named(setting)]));
  state.settings = /** @type {any} */ (take(state.settings));
  tried = tried && /** @type {any} */ (take(tried));
  known.clear();
}

on("recording run", load);
on("recording state", preview);

// Saves labels until the file equals the page: one request at a time, tried again after a failure.

import { $, h } from "./common.js";
import { get, post, Refused } from "./api.js";
import { changed, on, remember, state } from "./state.js";

/** @import {Labels, Recording} from "./state.js" */

const RETRY_MS = 3000;
let lastSaved = "";

/** The labels of a recording, as the server sends them. @returns {Labels} */
export const labelsOf = ({ annotations, background, background_sources, done }) =>
  ({ annotations, background: [...(background ?? [])].sort((a, b) => a - b), sources: background_sources ?? {}, done: done ?? null });

/** @param {Recording} recording */
export async function save(recording) {
  if (recording.saving || recording.conflict) return;
  clearTimeout(recording.retry);
  recording.saving = true;
  while (recording.labels !== recording.stored) {
    const { labels, revision } = recording, { annotations, background, sources, done } = labels;
    changed("saved");
    try {
      const received = await post(`save/${recording.index}`, { revision, annotations, background, background_sources: sources, done, classes: state.classes });
      Object.assign(recording, { revision: received.revision, stored: labels, failed: null });
      lastSaved = received.saved;
    } catch (error) {
      recording.failed = /** @type {Error} */ (error).message;
      recording.conflict = error instanceof Refused && error.status === 409;
      recording.left = error instanceof Refused && error.status === 403;
      if (!recording.conflict && !recording.left) recording.retry = setTimeout(() => save(recording), RETRY_MS);
      break;
    }
  }
  recording.saving = false;
  changed("saved");
}

/** @param {Recording} recording */
const isUnsaved = (recording) => recording.labels !== recording.stored;

/** Resolves when nothing is being saved; what failed is not waited for. */
export async function allSaved() {
  while ([...state.opened.values()].some((one) => one.saving)) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** Another page has saved a recording: takes over its labels unless there are changes here, which then conflict when saved. */
export async function adopt({ recording: index, revision }) {
  await allSaved();
  const recording = state.opened.get(index);
  if (!recording || revision === recording.revision || isUnsaved(recording)) return;
  const known = recording.revision, received = await get(`recording/${index}`).catch(() => null);
  // What was saved here while the answer was on its way is newer: the event may have been one of this page's own.
  if (received && recording.revision === known && received.revision !== known && !isUnsaved(recording)) {
    recording.undo = []; // with the labels before, undo would take back what the other page has saved
    take(recording, received);
  }
}

/** @param {Recording} recording */
function take(recording, received) {
  const labels = labelsOf(received);
  Object.assign(recording, { labels, stored: labels, revision: received.revision, redo: [], conflict: false, failed: null });
  for (const { label } of labels.annotations) if (!state.classes.includes(label)) state.classes.push(label);
  if (recording === state.current) state.selected = null;
  changed("labels", "selection", "classes", "saved");
}

/** A class has another name: in all labels that this page holds, also in those that can come back. */
export async function rename({ before, now, revisions }) {
  await allSaved();
  /** What was the same stays the same. @type {Map<Labels, Labels>} */
  const taken = new Map();
  const take = (/** @type {Labels} */ labels) => {
    const named = () => labels.annotations.map((one) => (one.label === before ? { ...one, label: now } : one));
    if (!taken.has(labels)) taken.set(labels, { ...labels, annotations: named() });
    return /** @type {Labels} */ (taken.get(labels));
  };
  for (const recording of state.opened.values()) {
    const { labels, stored, undo, redo } = recording, [old, revision] = revisions[recording.index] ?? [];
    Object.assign(recording, { labels: take(labels), stored: take(stored), undo: undo.map(take), redo: redo.map(take) });
    if (recording.revision === old) recording.revision = revision;
  }
  state.classes = [...new Set(state.classes.map((label) => (label === before ? now : label)))];
  if (state.chosen === before) state.chosen = now;
  const { asked } = state;
  if (asked && asked.label === before) asked.label = now;
  state.selected = null;
}

/** Ends a conflict: takes the labels of the file, or saves those of the page over them. @param {Recording} recording */
async function settle(recording, takeTheirs) {
  try {
    const received = await get(`recording/${recording.index}`);
    if (takeTheirs) {
      remember(recording);
      return take(recording, received);
    }
    Object.assign(recording, { revision: received.revision, conflict: false, failed: null });
    save(recording);
  } catch (error) {
    recording.failed = /** @type {Error} */ (error).message;
  }
  changed("saved");
}

function show() {
  const all = [...state.opened.values()], box = $("saved"), failed = all.find((one) => one.failed && isUnsaved(one));
  let mood = "idle";
  /** @type {(string | HTMLElement)[]} */
  let parts = [`labels go to ${state.file}`];
  if (failed?.conflict) {
    mood = "failed";
    parts = [
      h("span", {}, `not saved: ${failed.failed}`),
      h("button", { class: "plain", onclick: () => settle(failed, true) }, "Take theirs"),
      h("button", { class: "plain", onclick: () => settle(failed, false) }, "Keep mine"),
    ];
  } else if (failed?.left) {
    [mood, parts] = ["failed", ["not saved: the program has another address since it was started again; open that one, and place there what is missing"]];
  } else if (failed) {
    [mood, parts] = ["failed", [`could not save: ${failed.failed} – the labels are still here, trying again`]];
  } else if (all.some(isUnsaved)) {
    [mood, parts] = ["saving", ["saving…"]];
  } else if (lastSaved) {
    [mood, parts] = ["saved", [`saved ${lastSaved}`]];
  }
  box.dataset.state = mood;
  box.title = state.file;
  box.replaceChildren(...parts);
}

on("saved state", show);
addEventListener("beforeunload", (event) => {
  if ([...state.opened.values()].some(isUnsaved)) event.preventDefault();
});

// The recordings: opening one, and the list of all.

import { get } from "./api.js";
import { $, clock, h, plural } from "./common.js";
import { labelsOf } from "./saving.js";
import { Rows } from "./rows.js";
import { changed, countsOf, doneShare, lastChanged, on, say, showNotice, state } from "./state.js";
import { isVideo, pause, showMedia } from "./time.js";

/** @import {Row} from "./state.js" */

/** Opens a recording; resolves when it is shown. @param {number} index */
export async function open(index) {
  if (index < 0 || index >= state.recordings.length) return;
  pause();
  state.at = index;
  history.replaceState(null, "", `#${index + 1}`); // a reload comes back to it
  try {
    if (!state.opened.has(index)) {
      state.current = null; // keys must not change the previous recording while this one is read
      changed("recording", "labels");
      $("what").textContent = "reading…";
      const received = await get(`recording/${index}`), labels = labelsOf(received), { duration } = received;
      state.opened.set(index, { ...received, index, labels, stored: labels, undo: [], redo: [], time: 0, view: { start: 0, end: duration } });
    }
  } catch (error) {
    if (state.at === index) showBroken(/** @type {Error} */ (error).message);
    return;
  }
  if (state.at !== index) return; // another recording was selected meanwhile
  Object.assign(state, { current: state.opened.get(index), selected: null, doneFrom: null, classNext: false });
  showMedia();
  showNotice(state.current?.notice ?? "");
  changed("recording", "labels", "selection", "window", "time", "saved");
  say(state.recordings[index].name);
}

function showBroken(message) {
  state.current = null;
  showMedia();
  showNotice(message);
  changed("recording", "labels", "selection");
}

// ---------------------------------------------------------------- what is shown

const rows = new Rows($("recordings"), "", (/** @type {Row} */ row) => {
  const index = state.recordings.indexOf(row);
  return {
    current: index === state.at,
    parts: [h("button", { title: [row.name, describe(row, index), row.note].filter(Boolean).join("\n"), onclick: () => open(index) },
      featureMark(row), h("b", {}, row.name), h("i", {}, row.gone ? "gone" : short(row, index)))],
  };
});

const MARKS = { none: "no features yet", waiting: "waits for its features", running: "features are being extracted", ready: "features are ready", failed: "features failed" };

function featureMark(row) {
  if (!state.project || !MARKS[row.features]) return null;
  return h("span", { class: "mark", "data-features": row.features, role: "img", "aria-label": MARKS[row.features], title: MARKS[row.features] });
}

/** Points, background points, segments and done share: as in the file, or as changed since. @param {Row} row */
function counts(row, index) {
  const labels = state.opened.get(index)?.labels;
  if (!labels) return row;
  const { annotations, background } = labels, duration = state.opened.get(index)?.duration ?? 1;
  return {
    points: annotations.filter((one) => one.point !== null && one.point !== undefined).length,
    background: background.length, segments: annotations.filter((one) => one.segment).length, done_share: doneShare(labels, duration),
  };
}

function short(row, index) {
  const { points, background, segments, done_share: done } = counts(row, index), total = Math.max(points, segments) + background;
  const part = state.project && done > 0 ? ` · ${done > 0.995 ? "done" : `${Math.round(100 * done)} %`}` : "";
  const length = row.duration ? `${clock(row.duration)} · ` : "";
  return `${length}${total || "–"}${part}`;
}

function describe(row, index) {
  const { points, background, segments } = counts(row, index);
  return [plural(points, "point"), plural(segments, "segment"), plural(background, "background point"), row.duration && `length ${clock(row.duration)}`].filter(Boolean).join(", ");
}

function showList() {
  const gone = state.recordings.filter((row) => row.gone).length;
  $("recordings-count").textContent = `${state.at + 1} of ${state.recordings.length}${gone ? `, ${gone} gone` : ""}`;
  $("all").hidden = state.recordings.length < 2 && !state.project;
  rows.fill(state.recordings, state.at);
}

function showHeader() {
  const { current } = state, name = current?.name ?? state.recordings[state.at]?.name ?? "";
  $("name").textContent = $("name").title = name;
  document.title = `${name} – tal_jax ${state.project ? "studio" : "label"}`;
  const rate = current && Math.round(current.frame_rate * 1000) / 1000;
  $("what").textContent = current ? `${isVideo() ? "video" : "signal"}, ${clock(current.duration, 1)}, ${rate} ${isVideo() ? "frames" : "samples"} a second` : "";
}

function showUndo() {
  $("undo").disabled = lastChanged("undo") === undefined;
  $("redo").disabled = lastChanged("redo") === undefined;
}

on("recording state", showHeader);
on("recording state", showList);
on("labels", showUndo);
on("labels", () => {
  const counted = state.current ? countsOf(state.current.labels) : "";
  $("points-count").textContent = counted;
  rows.draw();
});

// What is selected, and what can be done with it: accept, move an edge, change the class, reject.

import { $, h, ratio, swatch } from "./common.js";
import {
  accept, exact, markAllDone, markDone, nudge, place, placeBackground, remove, selectedSegment, setClass, walk,
} from "./labels.js";
import { prediction, shownFound, thresholdOf } from "./predictions.js";
import { askedStretch, changed, colourOf, hasPoint, on, say, state } from "./state.js";
import { now, pause, playStretch, reveal, seek } from "./time.js";

const STEP_S = 0.1;

/** Moves an edge of what is selected by a step, and shows the moment there. @param {"start" | "end"} edge @param {number} direction */
export function nudgeBy(edge, direction) {
  const segment = selectedSegment(), index = edge === "start" ? 0 : 1;
  if (!segment || !state.current) return;
  const step = Math.max(STEP_S, 1 / state.current.frame_rate);
  nudge(edge, segment[index] + direction * step);
  const moved = selectedSegment();
  if (!moved) return;
  pause();
  seek(moved[index]);
  reveal(moved[index]);
}

/** Moves an edge of what is selected to the playhead. @param {"start" | "end"} edge */
export const nudgeHere = (edge) => nudge(edge, now());

export function playSelected() {
  const segment = selectedSegment();
  if (segment) playStretch(segment);
}

/** Selects the previous or the next event. */
export const stepFound = (direction) => walk(shownFound().map((one) => ({ what: /** @type {const} */ ("found"), one })), direction);

/** Whether there is a prediction, and no event of a class at the playhead. */
function isMissed(label) {
  const time = now();
  return Boolean(prediction()) && !shownFound().some((one) => one.label === label && one.segment[0] <= time && time < one.segment[1]);
}

/** Places a point of a class: where nothing of it is predicted, it was missed. @param {string | null | undefined} label */
export const placePoint = (label) => label && place(label, isMissed(label) ? "missed" : "click");

// ---------------------------------------------------------------- the bar

const button = (text, key, act, more = {}) => h("button", { class: "plain", title: `${text} (${key})`, "aria-keyshortcuts": key, onclick: act, ...more }, text, h("kbd", {}, key));

/** The keys belong to the page again: in a list that has the focus they would change the class once more. @param {HTMLSelectElement} choice */
function choose(choice) {
  choice.blur();
  setClass(choice.value);
}

/** A choice of the class of what is selected. */
function classChoice(label) {
  const choice = h("select", { "aria-label": "Class of the selection", onchange: () => choose(choice) },
    state.classes.map((one) => h("option", { value: one, selected: one === label }, one)));
  return h("label", { class: "choice" }, state.classNext ? "press its number" : h("kbd", {}, "C"), choice);
}

function edges() {
  const move = (/** @type {"start" | "end"} */ edge, text, keys) => h("span", { class: "group", role: "group", "aria-label": `Move the ${edge}` },
    h("button", { title: `${text} earlier (${keys[0]})`, "aria-label": `${text} earlier`, onclick: () => nudgeBy(edge, -1) }, "‹"),
    h("span", { class: "what" }, text, " ", h("kbd", {}, keys)),
    h("button", { title: `${text} later (${keys[1]})`, "aria-label": `${text} later`, onclick: () => nudgeBy(edge, 1) }, "›"));
  return [move("start", "start", "QW"), move("end", "end", "ER"), button("play", "V", playSelected)];
}

/** @returns {any[]} */
function parts() {
  const { selected } = state;
  if (selected?.what === "found") {
    const { label, score } = selected.one, below = score < thresholdOf(label);
    return [about(label, `score ${ratio(score, 2)}${below ? ", below the threshold" : ""}`), button("accept", "A", () => accept()),
      button("wrong here", "X", placeBackground), classChoice(label), ...edges()];
  }
  if (selected?.what === "label") {
    const { one } = selected, what = [hasPoint(one) && "point", one.segment && "segment"].filter(Boolean).join(" and ");
    return [about(one.label, what), classChoice(one.label), ...(one.segment ? edges() : []), button("remove", "Del", () => remove())];
  }
  if (selected?.what === "background") return [about("background", exact(selected.one)), button("remove", "Del", () => remove())];
  if (selected?.what === "done") return [about("done stretch", selected.one.map(exact).join(" – ")), ...edges(), button("remove", "Del", () => remove())];
  return [
    h("span", { class: "about" }, state.doneFrom === null ? "here:" : `done from ${exact(state.doneFrom)} …`),
    prediction() && state.chosen ? button(`missed ${state.chosen}`, "Enter", () => placePoint(state.chosen)) : null,
    button("background", "0", placeBackground), button(doneText(), "D", markDone),
    button(state.current?.labels.done === null ? "not all is done" : "all is done", "Shift+D", markAllDone),
  ];
}

/** What D does here. */
function doneText() {
  if (state.doneFrom !== null) return "done until here";
  return askedStretch() ? "all is labelled" : "done from here";
}

const about = (label, text) => h("span", { class: "about" }, swatch(state.classes.includes(label) ? colourOf(label) : "var(--muted)"), h("b", {}, label), ` ${text}`);

/** Draws the bar again; the button with the focus keeps it. */
function show() {
  const box = $("selection"), focused = box.contains(document.activeElement) ? document.activeElement?.getAttribute("aria-label") ?? document.activeElement?.textContent : null;
  box.replaceChildren(...(state.current ? parts() : []).filter(Boolean));
  if (!focused) return;
  const again = [...box.querySelectorAll("button")].find((one) => (one.getAttribute("aria-label") ?? one.textContent) === focused);
  /** @type {HTMLElement | undefined} */ (again)?.focus();
}

/** Gives the keyboard to the choice of the class: the next number, or an arrow, chooses. */
export function askClass() {
  state.classNext = state.selected?.what === "found" || state.selected?.what === "label";
  if (state.classNext) say("class: press its number");
  changed("selection");
}

on("queue selection labels classes predictions settings recording", show);

// Where to click next: places that the program would like to know more about. Each answer is one key.

import { get } from "./api.js";
import { $, clock, h, swatch } from "./common.js";
import { answers } from "./labels.js";
import { open } from "./recordings.js";
import { prediction, shownFound } from "./predictions.js";
import { Rows } from "./rows.js";
import { allSaved } from "./saving.js";
import { changed, colourOf, on, say, state, stretchOf } from "./state.js";
import { goTo, show } from "./time.js";

/** @import {Place} from "./state.js" */

const COUNT = 20, FEW = 5, CONTEXT_S = 20;
const COMPLETE = "Is every action in this stretch labelled? D if so, else click one that is missing";
const REASONS = {
  unconfirmed: "predicted, confirmed by nobody", uncertain: "two answers are about as likely", disagreement: "two trainings disagree",
  complete: `what is predicted in it is labelled. ${COMPLETE}`, far: "far from any label", spread: `a sample of everything. ${COMPLETE}`,
};

/** @type {Place[]} */
let places = [];

/** @param {Place} place */
const nameOf = (place) => state.recordings[place.recording]?.name ?? "";

/** @param {Place} place */
const questionOf = (place) => (place.label ? `${place.label}?` : stretchOf(place) ? "complete?" : null);

const rows = new Rows($("queue"), "Nothing is open: all of it is labelled, or near to a label.", (/** @type {Place} */ place) => ({
  current: place === state.asked,
  parts: [h("button", { onclick: () => go(place), title: `${nameOf(place)}, ${clock(place.time, 1)}: ${REASONS[place.reason] ?? place.reason}` },
    swatch(place.label ? colourOf(place.label) : stretchOf(place) ? "var(--good)" : "var(--faint)"), h("b", {}, questionOf(place) ?? nameOf(place)), h("i", {}, clock(place.time, 1)))],
}));

export async function refresh() {
  if (!state.project) return;
  try {
    const received = await get(`queue?count=${COUNT}`), asked = state.asked;
    places = received;
    // The place at hand stays where it is, whatever is more useful now.
    if (asked) places = [asked, ...places.filter((one) => one.recording !== asked.recording || Math.abs(one.time - asked.time) > 1e-3)];
  } catch (error) {
    say(/** @type {Error} */ (error).message);
  }
  showQueue();
}

/** Shows a place: its recording, its time, and what is predicted there. @param {Place | undefined} place */
async function go(place) {
  state.asked = place ?? null;
  showQueue();
  if (!place) return changed("queue");
  if (state.at !== place.recording || !state.current) await open(place.recording);
  if (!state.current) return;
  const { time, segment, label } = place, around = Math.max(CONTEXT_S, segment ? 3 * (segment[1] - segment[0]) : 0);
  show(time - around / 2, time + around / 2);
  // Within an event a number places its point; a stretch is looked through from its start.
  goTo(stretchOf(place)?.[0] ?? time);
  const one = label ? (segment ? foundAt(label, segment) : eventAt(label, time)) : null;
  state.selected = one ? { what: "found", one } : null;
  changed("selection", "queue");
  say(`${questionOf(place) ?? "which class?"} ${nameOf(place)} at ${clock(time, 1)}: ${REASONS[place.reason] ?? place.reason}`);
}

/** The detection that a place asks about, or one made of it. */
function foundAt(label, segment) {
  const same = (one) => one.label === label && Math.abs(one.segment[0] - segment[0]) + Math.abs(one.segment[1] - segment[1]) < 2e-3;
  return prediction()?.found.find(same) ?? { label, segment, score: 1 };
}

/** The event of a class around a time, if there is one. */
const eventAt = (label, time) => shownFound().find((one) => one.label === label && one.segment[0] <= time && time < one.segment[1]) ?? null;

/** The next place, after the one at hand. */
export function next() {
  const at = state.asked ? places.indexOf(state.asked) : -1;
  if (!places.length) return refresh().then(() => places.length ? go(places[0]) : undefined);
  return go(places[at + 1] ?? (at > 0 ? places[0] : undefined));
}

export function leave() {
  state.asked = null;
  showQueue();
  changed("queue");
}

/** An answer: the place is done, the next one comes. */
async function answered(kind) {
  const { asked } = state;
  if (!asked || kind === "nudge" || state.at !== asked.recording) return;
  const at = places.indexOf(asked);
  places = places.filter((one) => one !== asked);
  await go(places[at] ?? places[0]);
  if (places.length > FEW) return;
  await allSaved();
  await refresh();
  if (!state.asked && places.length) go(places[0]);
}

function showQueue() {
  $("queue-card").hidden = !state.project;
  rows.fill(places, state.asked ? places.indexOf(state.asked) : -1);
  $("queue-reason").textContent = state.asked ? `${nameOf(state.asked)}: ${REASONS[state.asked.reason] ?? state.asked.reason}` : "The most useful places first.";
  $("queue-next").firstChild.textContent = state.asked ? "Skip " : "Go to the next ";
  $("queue-leave").hidden = !state.asked;
}

answers.add(answered);
on("state", () => (places.length ? showQueue() : refresh()));
on("run", refresh);
$("queue-next").addEventListener("click", next);
$("queue-leave").addEventListener("click", leave);

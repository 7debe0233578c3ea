// The keys, and the help that lists them.

import { $, h } from "./common.js";
import { accept, markAllDone, markDone, placeBackground, redo, remove, select, setClass, stops, undo, walk } from "./labels.js";
import { leave, next } from "./queue.js";
import { open } from "./recordings.js";
import { askClass, nudgeBy, nudgeHere, placePoint, playSelected, stepFound } from "./selection.js";
import { changed, state } from "./state.js";
import { changeSpeed, goTo, isPlaying, pause, play, stepFrame, stepSecond, toggle } from "./time.js";
import { toggleTraining } from "./train.js";

const slower = () => changeSpeed(-1), faster = () => changeSpeed(1), openHelp = () => $("help").showModal();

function escape() {
  if (state.doneFrom !== null) {
    state.doneFrom = null;
    changed("labels");
  } else if (state.selected) select(null);
  else if (state.asked) leave();
  changed("selection");
}

/** A key for both cases of a letter. */
const letter = (name, act) => ({ [name]: act, [name.toUpperCase()]: act });

/** @typedef {[string, string, Record<string, (event: KeyboardEvent) => void>?, boolean?]} Key what the help shows, what it does, with training only */
/** Ctrl and numbers are handled below. @type {Key[]} */
const KEYS = [
  ["1 – 9", "choose a class and place a point of it at the current time"],
  ["Enter", "place a point of the chosen class", { Enter: () => placePoint(state.chosen) }],
  ["0", "background point: nothing is here"],
  ["D", "start of a done stretch, then its end; with Shift the whole recording", letter("d", (event) => (event.shiftKey ? markAllDone() : markDone()))],
  ["Space", "play, pause", { " ": toggle }],
  ["← →", "a frame (a sample of a signal) back, on; with Shift a second", {
    ArrowLeft: (event) => (event.shiftKey ? stepSecond(-1) : stepFrame(-1)),
    ArrowRight: (event) => (event.shiftKey ? stepSecond(1) : stepFrame(1)),
  }],
  ["Home, End", "to the start, to the end", { Home: () => goTo(0), End: () => goTo(state.current?.duration ?? 0) }],
  ["− +", "slower, faster", { "-": slower, "−": slower, "+": faster, "=": faster }],
  ["[ ]", "previous, next label", { "[": () => walk(stops(), -1), "]": () => walk(stops(), 1) }],
  ["J K", "previous, next prediction", { ...letter("j", () => stepFound(-1)), ...letter("k", () => stepFound(1)) }, true],
  ["A", "accept the selected prediction: it becomes a segment label", letter("a", () => accept()), true],
  ["X", "the selected prediction is wrong: a background point in its middle", letter("x", placeBackground), true],
  ["Q W, E R", "move the start, the end of the selection earlier, later", {
    ...letter("q", () => nudgeBy("start", -1)), ...letter("w", () => nudgeBy("start", 1)), ...letter("e", () => nudgeBy("end", -1)), ...letter("r", () => nudgeBy("end", 1)),
  }],
  ["I, O", "start, end of the selection at the current time", { ...letter("i", () => nudgeHere("start")), ...letter("o", () => nudgeHere("end")) }],
  ["C, then 1 – 9", "another class for the selection", letter("c", askClass)],
  ["V", "play the selection", letter("v", playSelected)],
  ["G", "go to the next place of the queue, or skip it", letter("g", next), true],
  ["T", "train, or stop", letter("t", toggleTraining), true],
  ["Delete", "remove the selected label", { Delete: () => remove(), Backspace: () => remove() }],
  ["Ctrl + Z", "undo; with Shift redo"],
  ["P N", "previous, next recording", { ...letter("p", () => open(state.at - 1)), ...letter("n", () => open(state.at + 1)) }],
  ["Esc", "select nothing; leave the queue", { Escape: escape }],
];
/** Those that go on while they are held; another one held too long would answer places that nobody has seen. */
const HELD = new Set(["ArrowLeft", "ArrowRight", ..."[]jkqwerpn-−+=", ..."JKQWERPN"]);
/** @type {Record<string, (event: KeyboardEvent) => void>} */
const acts = Object.assign({ "?": openHelp }, ...KEYS.map(([, , act]) => act));

/** The digit of a key: as typed or, without modifiers, as it lies on the keyboard. @param {KeyboardEvent} event */
function digitOf(event) {
  const typed = /^\d$/.exec(event.key)?.[0];
  return typed ?? (event.shiftKey || event.altKey ? undefined : /^Digit(\d)$/.exec(event.code)?.[1]);
}

/** @param {string} digit */
function number(digit) {
  const label = state.classes[Number(digit) - 1];
  if (digit === "0") placeBackground();
  else if (state.classNext) setClass(label);
  else placePoint(label);
}

addEventListener("keydown", (event) => {
  const target = /** @type {HTMLElement} */ (event.target);
  if (document.querySelector("dialog[open]") || event.isComposing || target.closest?.("input, textarea, select, [contenteditable]")) {
    if (event.key === "Escape") target.blur?.();
    return;
  }
  const command = event.ctrlKey || event.metaKey, key = event.key.toLowerCase();
  if (command && !event.altKey && (key === "z" || key === "y")) {
    event.preventDefault();
    return key === "y" || event.shiftKey ? redo() : undo();
  }
  // On some keyboards brackets need AltGr, which is also Ctrl and Alt.
  if ((command || event.altKey) && !event.getModifierState("AltGraph")) return;
  if (target.closest?.("button, summary, a") && (event.key === "Enter" || event.key === " ")) {
    if (event.repeat) event.preventDefault();
    return;
  }
  const digit = digitOf(event), act = digit ? () => number(digit) : acts[event.key];
  if (!act) return;
  event.preventDefault();
  if (!event.repeat || HELD.has(event.key)) act(event);
});

/** Buttons that have a key; those clicked with the mouse do not keep the focus, so that Space goes on to play. */
const BUTTONS = {
  "play": () => (isPlaying() ? pause() : play()), "second-back": () => stepSecond(-1), "second-on": () => stepSecond(1),
  "frame-back": () => stepFrame(-1), "frame-on": () => stepFrame(1), "slower": slower, "faster": faster, "undo": undo, "redo": redo, "help-open": openHelp,
};
for (const [id, act] of Object.entries(BUTTONS)) $(id).addEventListener("click", act);
addEventListener("click", (event) => {
  const button = /** @type {HTMLElement} */ (event.target).closest?.("button");
  if (button && event.detail && !button.closest("dialog")) button.blur();
});

/** Fills the help; without training, its keys are left out. */
export function fillHelp() {
  $("keys").replaceChildren(...KEYS.filter(([, , , training]) => !training || state.project).map(([key, what]) =>
    h("tr", {}, h("td", {}, h("kbd", {}, key)), h("td", {}, what))));
}
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}
$("help-close").addEventListener("click", () => $("help").close());

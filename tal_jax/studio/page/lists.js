// The classes, and the labels of the recording that is shown.

import { post } from "./api.js";
import { $, h, swatch } from "./common.js";
import { addClass, exact, place, placeOf, remove, select, stops } from "./labels.js";
import { Rows } from "./rows.js";
import { allSaved } from "./saving.js";
import { changed, colourOf, hasPoint, on, state } from "./state.js";

/** @import {Selection} from "./state.js" */

function showClasses() {
  if (!state.classes.includes(state.chosen ?? "")) state.chosen = state.classes[0] ?? null;
  const counts = new Map();
  for (const one of state.current?.labels.annotations ?? []) counts.set(one.label, (counts.get(one.label) ?? 0) + 1);
  classes.fill(state.classes.map((label) => ({ label, count: counts.get(label) ?? 0 })), state.classes.indexOf(state.chosen ?? ""));
  const { chosen } = state, short = chosen && chosen.length > 18 ? `${chosen.slice(0, 17)}…` : chosen;
  $("place").disabled = !state.current || !chosen;
  $("place").textContent = chosen ? `Place “${short}” here (Enter)` : "Place a point (Enter)";
}

const classes = new Rows($("classes"), "None yet: add the first one below.", (/** @type {{label: string, count: number}} */ { label, count }) => {
  const number = state.classes.indexOf(label) + 1, isChosen = label === state.chosen;
  const choose = () => {
    state.chosen = label;
    changed("classes");
  };
  return {
    current: isChosen,
    parts: [h("button", { "aria-pressed": String(isChosen), title: label, onclick: choose },
      swatch(colourOf(label)), h("b", {}, label), h("i", {}, String(count)), number < 10 ? h("kbd", {}, String(number)) : null),
    h("button", { class: "rename", title: "Rename", "aria-label": `Rename ${label}`, onclick: () => askName(label) }, "✎")],
  };
});

// ---------------------------------------------------------------- another name

let renamed = "";

/** Asks for another name of a class. @param {string} label */
function askName(label) {
  renamed = label;
  $("rename-title").textContent = `Rename “${label}”`;
  $("rename-name").value = label;
  $("rename-trouble").hidden = true;
  $("rename").showModal();
  $("rename-name").select();
}

/** The server sends the new name to all pages, this one too. @param {string} name */
async function rename(name) {
  if (name && name !== renamed) {
    await allSaved();
    await post("classes", { add: renamed }); // one without labels may be on this page only
    await post("classes", { rename: [renamed, name] });
  }
  $("rename").close();
}

$("rename-form").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  rename($("rename-name").value.trim()).catch((error) => {
    $("rename-trouble").textContent = error.message;
    $("rename-trouble").hidden = false;
  });
});
$("rename-close").addEventListener("click", () => $("rename").close());

// ---------------------------------------------------------------- labels

const labels = new Rows($("points"), "None yet. Play, and press a class's number within each action.", (/** @type {Selection} */ selection) => {
  const name = nameOf(selection), at = exact(placeOf(selection)), isSegment = selection.what === "label" && !hasPoint(selection.one);
  return {
    current: selection.one === state.selected?.one,
    parts: [
      h("button", { onclick: () => select(selection), title: title(selection) },
        swatch(selection.what === "label" ? colourOf(selection.one.label) : "var(--muted)"), h("b", {}, name), h("i", {}, isSegment ? `${at} ▬` : at)),
      h("button", { class: "remove", title: "Remove", "aria-label": `Remove ${name} at ${at}`, onclick: () => remove(selection) }, "×"),
    ],
  };
});

/** @param {Selection} selection */
const nameOf = (selection) => (selection.what === "label" ? selection.one.label : "background");

/** @param {Selection} selection */
function title(selection) {
  const source = selection.what === "label" ? selection.one.source : state.current?.labels.sources[String(selection.one)];
  const segment = selection.what === "label" && selection.one.segment ? `, segment ${selection.one.segment.map(exact).join(" – ")}` : "";
  return `${nameOf(selection)}${segment}${source ? `\n${source.kind} by ${source.by}, ${source.at}` : ""}`;
}

function showLabels() {
  const all = stops();
  labels.fill(all, all.findIndex(({ one }) => one === state.selected?.one));
}

on("classes labels recording", showClasses);
on("labels selection classes", showLabels);
$("place").addEventListener("click", () => place(state.chosen));
$("add").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  addClass($("add-name").value);
  $("add-name").value = "";
  $("add-name").blur();
});

// Threshold, merge gap and minimum duration of events, shown before they are applied; and the way out of the studio.

import { get, post } from "./api.js";
import { $, h, plural, swatch } from "./common.js";
import { apply, discard, isTried, ofClass, prediction, settings, trouble, tryOut } from "./predictions.js";
import { colourOf, on, state } from "./state.js";

const FIELDS = /** @type {const} */ ([["threshold", "threshold", 0.01], ["merge_gap_s", "merge gap, s", 0.1], ["min_duration_s", "minimum duration, s", 0.1]]);

// ---------------------------------------------------------------- settings

/** The value for all classes, as far as a setting has one. */
function forAll(setting) {
  if (setting === null || typeof setting !== "object") return setting ?? null;
  const values = Object.values(setting), common = values.find((value) => values.filter((one) => one === value).length > values.length / 2);
  return values.length < state.classes.length ? null : common ?? null;
}

/** A field of all classes, or of one, whose empty value is that of all. */
function field(key, step, label) {
  const setting = settings()[key], all = forAll(setting), value = label === null ? all : ofClass(setting, label);
  const shown = value === null || (label !== null && value === all) ? "" : value;
  const input = h("input", {
    type: "number", step, min: key === "threshold" ? null : 0, value: String(shown), placeholder: all === null || label === null ? "–" : String(all),
    "aria-label": `${FIELDS.find(([one]) => one === key)?.[1]} of ${label ?? "all classes"}`, oninput: () => set(key, label, input.value === "" ? null : Number(input.value)),
  });
  return h("td", {}, input);
}

/** @param {string} key @param {string | null} label @param {number | null} value null for that of all classes */
function set(key, label, value) {
  if (value !== null && !Number.isFinite(value)) return;
  const setting = settings()[key], all = forAll(setting);
  if (label === null) {
    const own = setting !== null && typeof setting === "object" ? Object.fromEntries(Object.entries(setting).filter(([, one]) => one !== all)) : {};
    tryOut({ [key]: combined(own, value) });
  } else {
    const own = setting !== null && typeof setting === "object" ? { ...setting } : {};
    for (const [name, one] of Object.entries(own)) if (one === all) delete own[name];
    if (value === null) delete own[label];
    else own[label] = value;
    tryOut({ [key]: combined(own, all) });
  }
}

/** One number if no class has its own; otherwise by class. @param {Record<string, number>} own @param {number | null} all */
function combined(own, all) {
  if (!Object.keys(own).length) return all;
  return { ...(all === null ? {} : Object.fromEntries(state.classes.map((label) => [label, all]))), ...own };
}

function showSettings() {
  const one = prediction(), box = $("settings");
  $("settings-card").hidden = !state.run;
  if (!state.run) return;
  $("settings-bar").hidden = !isTried();
  const { below = 0, merged = 0, short = 0 } = one?.counts ?? {};
  $("settings-text").textContent = trouble() ? `${trouble()}; nothing is applied` : one?.events ? `${plural(one.events.length, "event")} in this recording; ${below} below the threshold, ${merged} merged, ${short} too short` : "";
  if (box.contains(document.activeElement)) return; // do not take away what is being typed into
  const row = (label) => h("tr", {}, h("th", { scope: "row" }, label === null ? "all classes" : [swatch(colourOf(label)), label]), FIELDS.map(([key, , step]) => field(key, step, label)));
  box.replaceChildren(h("thead", {}, h("tr", {}, h("td", {}), FIELDS.map(([, text]) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, row(null), state.classes.map(row)));
}

// ---------------------------------------------------------------- export

async function openExport() {
  $("export-formats").replaceChildren(...state.formats.map(({ name, title }) =>
    h("label", {}, h("input", { type: "checkbox", value: name, name: "format", checked: name === "activitynet" || name === "events" }), title)));
  $("export-result").replaceChildren(...(state.run && state.answers
    ? [h("p", {}, `answers since the last training that are not in these events: ${state.answers}; train again`)] : []));
  $("export-summary").replaceChildren();
  $("export").showModal();
  showSummary(await get("summary").catch(() => []));
}

/** Events per recording and class, as behaviour researchers report them. */
function showSummary(rows) {
  const cell = (value, digits) => h("td", {}, typeof value === "number" ? value.toFixed(digits) : value ?? "–");
  const name = (row) => row.recording ?? row.name, columns = ["recording", "class", "events", "total s", "mean s"];
  $("export-summary").replaceChildren(h("thead", {}, h("tr", {}, columns.map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, h("th", { scope: "row" }, name(row)), h("td", {}, row.label), cell(row.count, 0), cell(row.total_s, 1), cell(row.mean_s, 2)))));
}

async function exportEvents() {
  const formats = [...$("export").querySelectorAll("[name=format]:checked")].map((one) => /** @type {HTMLInputElement} */ (one).value);
  const result = $("export-result");
  $("export-go").disabled = true;
  result.replaceChildren(h("p", {}, "writing…"));
  try {
    const { folder, files, notes } = await post("export", { formats, clips: $("export-clips").checked });
    result.replaceChildren(h("p", {}, `${plural(files.length, "file")} in ${folder}:`), h("ul", {}, files.map((file) => h("li", {}, file))), ...notes.map((note) => h("p", {}, note)));
  } catch (error) {
    result.replaceChildren(h("p", { class: "trouble", role: "alert" }, /** @type {Error} */ (error).message));
  }
  $("export-go").disabled = false;
}

on("state run recording predictions settings classes", showSettings);
on("state", () => { $("export-open").hidden = !state.project; });
$("settings").addEventListener("focusout", () => setTimeout(showSettings));
$("settings-apply").addEventListener("click", apply);
$("settings-discard").addEventListener("click", discard);
$("export-open").addEventListener("click", openExport);
$("export-go").addEventListener("click", exportEvents);
$("export-close").addEventListener("click", () => $("export").close());

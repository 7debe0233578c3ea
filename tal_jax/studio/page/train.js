// Training: its button, its progress, what it changed, and how many clicks are enough.

import { get, post } from "./api.js";
import { lineChart } from "./charts.js";
import { $, clock, h, plural, ratio, swatch } from "./common.js";
import { select } from "./labels.js";
import { open } from "./recordings.js";
import { allSaved } from "./saving.js";
import { colourOf, on, state } from "./state.js";

const NAMES = { extract: "Features", train: "Training" };

export const toggleTraining = () => (state.job ? stop() : start("train"));

async function start(kind) {
  if (!state.project || state.job || (kind === "train" && state.canTrain)) return;
  await allSaved();
  await request(kind);
}

const stop = () => request("stop");

async function request(path) {
  showTrouble("");
  try {
    await post(path);
  } catch (error) {
    showTrouble(/** @type {Error} */ (error).message);
  }
}

/** @param {string} line why a job failed, or could not start; none if empty */
export function showTrouble(line) {
  $("train-trouble").textContent = line;
  $("train-trouble").hidden = !line;
}

/** The progress of the job, or what could be started. */
function showJob() {
  const { job, run, project } = state;
  $("train-card").hidden = !project;
  if (!project) return;
  const waiting = state.recordings.filter(({ features }) => features !== "ready").length;
  $("train").textContent = job ? "Stop" : run ? "Train again" : "Train";
  $("train").disabled = !job && Boolean(state.canTrain);
  $("train").classList.toggle("main", !job);
  $("extract").hidden = Boolean(job) || !waiting;
  $("train-why").textContent = job ? "" : state.canTrain ?? advice();
  $("progress").hidden = !job;
  $("losses").hidden = !job?.losses?.length;
  $("last-run").textContent = run ? `Run ${run.number}, ${run.finished_at ? new Date(typeof run.finished_at === "number" ? 1000 * run.finished_at : run.finished_at).toLocaleTimeString() : ""}` : "Nothing is trained yet.";
  showWarnings(run?.warnings ?? []);
  if (!job) return;
  const bar = $("progress-bar");
  if (job.total) bar.value = job.done / job.total;
  else bar.removeAttribute("value");
  const left = job.left_s ? `, ${clock(job.left_s)} left` : "", loss = typeof job.loss === "number" ? `, loss ${job.loss.toPrecision(3)}` : "";
  $("progress-text").textContent = `${NAMES[job.kind] ?? job.kind}: ${job.phase}${job.total ? `, ${job.done} of ${job.total}` : ""}${left}${loss}`;
  $("progress-line").textContent = job.line ?? "";
  if (job.losses?.length > 1) {
    $("losses").replaceChildren(chart("loss by update", job.losses.map(([step]) => step), job.losses.map(([, value]) => value), ""));
  }
}

/** What would help, and what a training would take up. */
function advice() {
  const { stopped, answers, auto, run } = state;
  const lines = [state.advice, stopped === null ? null : `Run ${stopped} was stopped: training continues it.`,
    run && answers ? `${plural(answers, "new answer")} since the last training.` : null, auto === null ? null : `Starts by itself after ${plural(auto, "answer")}.`];
  return lines.filter(Boolean).join(" ");
}

function showWarnings(lines) {
  $("warnings").replaceChildren(...lines.map((line) => h("li", {}, line)));
  $("warnings").hidden = !lines.length;
}

function chart(title, xs, ys, unit) {
  return lineChart({
    title, series: [{ name: title, colour: "var(--accent)", xs, ys }], zero: true, format: (value) => String(Number(value.toPrecision(3))),
    xFormat: (value) => `${value.toLocaleString("en")}${unit ? ` ${unit}` : ""}`, ticksX: [...new Set([xs[0], xs[xs.length - 1]])],
  });
}

// ---------------------------------------------------------------- what a training changed

async function showChanges() {
  const { run } = state;
  $("changes-card").hidden = !run;
  if (!run) return;
  const { before, classes, curve } = await get("changes").catch(() => ({ before: null, classes: [], curve: [] }));
  $("changes-title").firstChild.textContent = before === null ? "What the training found " : `Since run ${before} `;
  $("changes").replaceChildren(...classes.map((one) => changeRow(one, before !== null)));
  $("changes-empty").hidden = classes.length > 0;
  $("changes-table").hidden = !classes.length;
  showCurve(curve.filter((one) => typeof one.criterion === "number"));
}

/** A class: its events, and those gained and lost, which lead to their places. */
function changeRow({ label, events, gained, lost, time_share: share }, compared) {
  const links = (entries, sign) => (entries.length
    ? h("button", { class: "link", title: "Go to the first of them, then to the next", onclick: () => goToEntry(label, entries) }, `${sign}${entries.length}`) : `${sign}0`);
  return h("tr", {}, h("th", { scope: "row" }, swatch(colourOf(label)), label), h("td", {}, String(events)), h("td", {}, compared ? links(gained, "+") : ""),
    h("td", {}, compared ? links(lost, "−") : ""), h("td", {}, typeof share === "number" ? `${Math.round(100 * share)} %` : ""));
}

/** @type {WeakMap<any[], number>} */
const visited = new WeakMap();

/** Goes to one event after the other, with each click. */
async function goToEntry(label, entries) {
  const at = (visited.get(entries) ?? -1) + 1, one = entries[at % entries.length];
  visited.set(entries, at);
  if (typeof one.index === "number" && one.index !== state.at) await open(one.index);
  select({ what: "found", one: { ...one, label } });
}

/** The point criterion, on clicks that the training had not seen, by number of clicks. */
function showCurve(curve) {
  $("curve").hidden = !curve.length;
  $("curve-empty").hidden = curve.length > 0;
  if (!curve.length) return;
  const xs = curve.map(({ clicks }) => clicks), ys = curve.map(({ criterion }) => criterion), last = curve[curve.length - 1];
  $("curve").replaceChildren(chart("point criterion of new clicks, by clicks", xs, ys, ""),
    h("p", { class: "empty" }, `Last: ${ratio(last.criterion, 2)} on ${plural(last.new_points ?? 0, "new click")}, trained on ${last.clicks}.`));
}

on("state job run", showJob);
on("run", showChanges);
$("train").addEventListener("click", toggleTraining);
$("extract").addEventListener("click", () => start("extract"));

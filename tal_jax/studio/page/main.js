// The start of the page: reads the state, opens a recording, and follows what happens on the server.

import { get, listen } from "./api.js";
import { $, defineClasses } from "./common.js";
import "./events.js";
import { fillHelp } from "./keys.js";
import "./lists.js";
import { open } from "./recordings.js";
import { renameClass } from "./predictions.js";
import { adopt, rename } from "./saving.js";
import "./selection.js";
import "./skeleton.js";
import { changed, on, say, showNotice, state } from "./state.js";
import "./timelines.js";
import { showTrouble } from "./train.js";

const REFRESH_MS = 700;

/** Reads the state of all recordings, and of trainings. */
async function refresh() {
  const received = await get("state"), run = state.run?.number;
  const classes = [...new Set([...received.classes, ...state.classes])], others = String(classes) !== String(state.classes) || !state.colours.length;
  Object.assign(state, {
    file: received.file, user: received.user ?? "person", project: received.project ?? null, classes, colours: received.colours, recordings: received.recordings,
    run: received.run ?? null, job: received.job ?? null, canTrain: received.can_train ?? null, auto: received.auto ?? null,
    formats: received.formats ?? [], grid: received.grid ?? null, answers: received.answers ?? 0, advice: received.advice ?? null, stopped: received.stopped ?? null,
    settings: { ...state.settings, ...(received.settings ?? {}) },
  });
  showTrouble(received.error ?? "");
  changed("state");
  if (others) changed("classes");
  if (state.run?.number !== run) changed("run");
}

const refreshLater = () => refresh().catch((error) => showNotice(error.message));

/** The server counts answers and features: asks again after the last of several changes. */
let waiting = 0;
function refreshSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(refreshLater, REFRESH_MS);
}

function followServer() {
  listen({
    job(job) {
      const ended = state.job && !job;
      state.job = job;
      changed("job");
      if (ended) refreshSoon();
    },
    ended({ stopped, error }) {
      if (error && !stopped) showTrouble(error);
    },
    run: refreshSoon,
    state: refreshSoon,
    saved(received) {
      adopt(received);
      refreshSoon();
    },
    async renamed(received) {
      await rename(received);
      renameClass(received.before, received.now);
      changed("classes", "labels", "selection", "settings", "run");
      say(`${received.before} is now ${received.now}`);
    },
  }, refreshLater);
}

on("classes", () => defineClasses(state.classes, state.colours));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => changed("colours"));

try {
  await refresh();
  document.body.classList.toggle("with-project", Boolean(state.project));
  if (!state.project) $("right").append($("all")); // there is no left side
  fillHelp();
  const index = Number(location.hash.slice(1)) - 1;
  await open(state.recordings[index] ? index : 0);
  followServer();
  document.body.dataset.ready = "yes";
} catch (error) {
  showNotice(/** @type {Error} */ (error).message);
}

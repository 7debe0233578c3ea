// The time of the recording that is shown: playing, steps, and the visible window.

import { address } from "./api.js";
import { $, clamp, Clock, clock, countFrom, fitWindow, zoomWindow } from "./common.js";
import { changed, on, showNotice, state } from "./state.js";

const SPEEDS = [0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 8];

/** @type {HTMLVideoElement} */
const video = $("video");
/** The video, or the clock of a signal. @type {any} */
let media = video;
let speed = SPEEDS.indexOf(1);
/** Playing stops there. @type {number | null} */
let until = null;

export const isVideo = () => state.current?.kind === "video";
export const isPlaying = () => Boolean(state.current) && !media.paused && !media.ended;

/** While a video seeks, its time is already the requested one. */
export const now = () => (state.current ? clamp(media.currentTime, 0, state.current.duration) : 0);

export function seek(time) {
  if (!state.current) return;
  state.current.time = clamp(time, 0, state.current.duration);
  media.currentTime = state.current.time;
  changed("time");
}

export function play() {
  if (!state.current) return;
  if (now() >= state.current.duration - 1e-3) seek(0);
  media.play().catch(() => {});
  showPlaying();
  requestAnimationFrame(tick);
}

/** Plays a stretch of the recording, with a moment before and after it. @param {number[]} stretch */
export function playStretch([start, end]) {
  if (!state.current) return;
  seek(start - 0.5);
  reveal(start);
  play();
  until = end + 0.5;
}

export function pause() {
  until = null;
  if (!state.current) return;
  const time = now();
  media.pause();
  state.current.time = time;
  showPlaying();
}

export const toggle = () => (isPlaying() ? pause() : play());

function tick() {
  if (!isPlaying() || !state.current) return showPlaying();
  const time = now(), { view, duration } = state.current;
  if ((!isVideo() && time >= duration) || (until !== null && time >= until)) pause();
  if (time > view.end || time < view.start) reveal(time, true);
  changed("time");
  requestAnimationFrame(tick);
}

function showPlaying() {
  $("play").textContent = isPlaying() ? "Pause" : "Play";
}

export function stepFrame(direction) {
  if (!state.current) return;
  pause();
  const rate = state.current.frame_rate;
  // Every reader assigns the middle of a frame to that frame; a sample of a signal has an exact time.
  const frame = isVideo() ? Math.floor(now() * rate + 1e-3) + direction + 0.5 : Math.round(now() * rate) + direction;
  goTo(frame / rate);
}

export function goTo(time) {
  seek(time);
  reveal(now());
}

export const stepSecond = (direction) => goTo(now() + direction);

export function changeSpeed(direction) {
  speed = clamp(speed + direction, 0, SPEEDS.length - 1);
  media.playbackRate = SPEEDS[speed];
  $("speed").textContent = `${SPEEDS[speed]}×`;
}

/** Shows the video of the recording, or counts the time of its signal. */
export function showMedia() {
  const { current } = state, shown = isVideo(), source = address(`media/${state.at}`);
  video.hidden = !shown;
  $("view").hidden = !shown && !current?.skeleton;
  $("view").classList.toggle("ground", !shown);
  if (!current) return;
  media = shown ? video : new Clock(current.duration);
  if (!shown) {
    video.removeAttribute("src");
    video.load();
  } else if (video.getAttribute("src") !== source) {
    video.src = source;
    countFrom(video, current.origin);
  }
  media.currentTime = current.time;
  media.playbackRate = SPEEDS[speed];
}

// ---------------------------------------------------------------- the visible window

export const leastSpan = () => Math.min(0.05, state.current?.duration ?? 1);

export function show(start, end) {
  if (!state.current) return;
  state.current.view = fitWindow(start, end, leastSpan(), state.current.duration);
  changed("window");
}

export function zoom(factor, time) {
  if (!state.current) return;
  const { view, duration } = state.current;
  const { start, end } = zoomWindow(view, factor, time ?? clamp(now(), view.start, view.end), leastSpan(), duration);
  show(start, end);
}

export const showAll = () => show(0, state.current?.duration ?? 0);

/** Moves the window so that it contains a time; by a page while playing. */
export function reveal(time, page = false) {
  if (!state.current) return;
  const { start, end } = state.current.view, span = end - start;
  if (time >= start && time <= end) return;
  const from = page ? time - span * 0.03 : time - span / 2;
  show(from, from + span);
}

// ---------------------------------------------------------------- what is shown of it

function showTime() {
  $("now").textContent = clock(now(), 3);
}

function showTotal() {
  const { current } = state, text = current ? clock(current.duration, 3) : "";
  $("now").style.minWidth = `${current ? text.length * 0.62 : 4}em`;
  $("total").textContent = current ? `of ${text}` : "";
  showTime();
}

on("time", showTime);
on("recording", showTotal);
for (const name of ["play", "pause", "ended"]) {
  video.addEventListener(name, () => {
    showPlaying();
    if (isPlaying()) requestAnimationFrame(tick);
  });
}
for (const name of ["seeked", "timeupdate", "loadeddata"]) video.addEventListener(name, () => changed("time"));
video.addEventListener("click", toggle);
video.addEventListener("error", () => {
  if (isVideo() && video.error && video.getAttribute("src")) {
    showNotice("This browser cannot show this video. Make a copy in H.264 (.mp4) or VP9 (.webm), or try another browser.");
  }
});

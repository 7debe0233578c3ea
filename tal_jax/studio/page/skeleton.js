// The joints of a recording with keypoints: over its video, or on a ground of their own.

import { get } from "./api.js";
import { $, clamp, fitCanvas, readColours } from "./common.js";
import { firstFrom } from "./timeline.js";
import { on, state } from "./state.js";
import { isVideo, now } from "./time.js";

const PART_S = 20, NEAR_S = 0.5, HEIGHT = 260, MARGIN = 16;

/** Joints of a part of the recording. @type {{index: number, start: number, end: number, times: number[], joints: string[], edges: number[][],
 *   points: Float32Array, bounds: number[][]} | null} */
let part = null;
let asked = -1;

const shown = () => Boolean(state.current?.skeleton);

/** Asks for the joints around the playhead, with as much again before and after it. */
async function load() {
  const index = state.at, place = Math.floor(now() / PART_S);
  if (!shown() || (part?.index === index && part.start <= now() && now() < part.end) || asked === place) return;
  asked = place;
  const start = place * PART_S - 1, end = start + PART_S + 2;
  try {
    const { times, joints, edges, points, bounds } = await get(`skeleton/${index}?start=${start}&end=${end}`);
    const bytes = Uint8Array.from(atob(points), (character) => character.charCodeAt(0));
    part = { index, start, end, times, joints, edges, bounds, points: new Float32Array(bytes.buffer) };
  } catch {
    part = null; // the signal is drawn all the same
  }
  asked = -1;
  draw();
}

/** The frame that is nearest to the playhead, if there is one near it. */
function frameAt(time) {
  if (!part?.times.length) return -1;
  const next = clamp(firstFrom(part.times, time), 0, part.times.length - 1), before = Math.max(next - 1, 0);
  const frame = Math.abs(part.times[before] - time) < Math.abs(part.times[next] - time) ? before : next;
  return Math.abs(part.times[frame] - time) < NEAR_S ? frame : -1;
}

/** From coordinates of the table to the canvas: those of the video's picture, or the bounds of the table. */
function scaling(width, height) {
  const video = $("video"), [[left, right], [top, bottom]] = part?.bounds ?? [[0, 1], [0, 1]];
  if (isVideo() && video.videoWidth) {
    const scale = Math.min(width / video.videoWidth, height / video.videoHeight);
    return { scale, x: (width - scale * video.videoWidth) / 2, y: (height - scale * video.videoHeight) / 2 };
  }
  const scale = Math.min((width - 2 * MARGIN) / Math.max(right - left, 1e-9), (height - 2 * MARGIN) / Math.max(bottom - top, 1e-9));
  return { scale, x: width / 2 - (scale * (left + right)) / 2, y: height / 2 - (scale * (top + bottom)) / 2 };
}

function draw() {
  const canvas = $("skeleton");
  canvas.hidden = !shown();
  if (canvas.hidden) return;
  const height = isVideo() ? $("video").clientHeight : HEIGHT, { context, width } = fitCanvas(canvas, height);
  const frame = part?.index === state.at ? frameAt(now()) : -1;
  if (frame < 0 || !part) return;
  const { joints, edges, points } = part, { scale, x, y } = scaling(width, height), first = 2 * frame * joints.length;
  const place = (/** @type {number} */ joint) => [x + scale * points[first + 2 * joint], y + scale * points[first + 2 * joint + 1]];
  const colours = readColours();
  context.strokeStyle = context.fillStyle = isVideo() ? "#ffffff" : colours.accent;
  context.lineWidth = 2;
  context.beginPath();
  for (const [a, b] of edges) {
    const ends = [...place(a), ...place(b)];
    if (!ends.every(Number.isFinite)) continue;
    context.moveTo(ends[0], ends[1]);
    context.lineTo(ends[2], ends[3]);
  }
  context.stroke();
  for (let joint = 0; joint < joints.length; joint++) {
    const [left, top] = place(joint);
    if (!Number.isFinite(left + top)) continue;
    context.beginPath();
    context.arc(left, top, 3.5, 0, 7);
    context.fill();
  }
  canvas.dataset.time = part.times[frame].toFixed(3);
}

on("recording", () => { part = null; asked = -1; });
on("recording time", load);
on("recording time colours", draw);
new ResizeObserver(draw).observe($("view"));

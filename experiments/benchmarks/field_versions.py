"""The ops of `tal_jax` as published code writes them: NumPy and Python loops, PyTorch.

Written from the description of the algorithms, as baselines of `ops.py`. They compute the same
definitions in float64 (PyTorch: float32), so results can be compared before anything is timed.
"""

import math

import numpy as np

# --- the optimal sequence, as a beam search ---


def segment_contrast(curve: np.ndarray, start: int, end: int, delta: float) -> float:
    """Mean inside `[start, end)` less the mean of the snippets on both sides."""
    width = math.ceil(delta * (end - start) - 1e-4)
    outside = np.concatenate([curve[max(start - width, 0) : start], curve[end : end + width]])
    return curve[start:end].mean() - (outside.mean() if outside.size else 0.0)


def beam_search(
    scores: np.ndarray,
    action_seeds: np.ndarray,
    background_seeds: np.ndarray,
    *,
    delta: float = 0.25,
    beam: int = 25,
) -> float:
    """Mean contrast of the best segmentation that a beam finds.

    One class: walks over the runs of like seeds, tries every boundary to the next run behind each
    partial sequence, and keeps the `beam` sequences of highest mean contrast.
    """
    action = np.asarray(scores, np.float64)
    curves = {True: action, False: 1 - action}
    seeds = [(t, bool(action_seeds[t])) for t in np.flatnonzero(action_seeds | background_seeds)]
    runs = []  # [first seed, last seed, is action]
    for time, kind in seeds:
        if runs and runs[-1][2] == kind:
            runs[-1][1] = time
        else:
            runs.append([time, time, kind])
    beams = [(0.0, [0])]  # sum of the contrasts, boundaries
    for index, (_, last, kind) in enumerate(runs):
        is_end = index == len(runs) - 1
        ends = [len(scores)] if is_end else range(last + 1, runs[index + 1][0] + 1)
        longer = [
            (total + segment_contrast(curves[kind], bounds[-1], end, delta), [*bounds, end])
            for total, bounds in beams
            for end in ends
        ]
        beams = sorted(longer, key=lambda one: -one[0])[:beam]
    return beams[0][0] / len(runs)


# --- scores to detections ---


def localize(
    scores: np.ndarray,
    video: np.ndarray,
    classes: np.ndarray,
    thresholds: np.ndarray,
    *,
    video_weight: float = 0.2,
    delta: float = 0.25,
    iou_threshold: float = 0.7,
    upsampling: int | None = None,
) -> dict[int, np.ndarray]:
    """Detections of one video: loops over classes, thresholds and runs, and NMS in each class.

    Args:
      scores: `[T, C]`.
      video: `[C]`.
      classes: indices of the classes to look for.
      thresholds: `[H]`.
      video_weight: share of the video score.
      delta: outer region as a fraction of the segment.
      iou_threshold: of the NMS.
      upsampling: None finds where the straight lines between snippets cross a threshold; else the
        curve is read at so many times as many places, and runs and means are of these.

    Returns:
      `{class: [n, 3]}` of start, end (snippets) and score.
    """
    found = {}
    for label in classes:
        curve = scores[:, label].astype(np.float64)
        if upsampling:
            places = (np.arange(len(curve) * upsampling) + 0.5) / upsampling - 0.5
            fine = np.interp(places, np.arange(len(curve)), curve)
        proposals = []
        for threshold in thresholds:
            if upsampling:
                for start, end in runs_above(fine, threshold):
                    value = _sampled_contrast(fine, start, end, delta)
                    proposals.append([start / upsampling, end / upsampling, value])
            else:
                for first, last in runs_above(curve, threshold):
                    start, end = _crossings(curve, first, last, threshold)
                    proposals.append([start, end, _integral_contrast(curve, start, end, delta)])
        rows = np.reshape(np.array(proposals, np.float64), (-1, 3))
        rows[:, 2] += video_weight * video[label]
        found[label] = rows[nms(rows[:, :2], rows[:, 2], iou_threshold)]
    return found


def runs_above(curve: np.ndarray, threshold: float) -> list[tuple[int, int]]:
    """Half-open runs of samples above a threshold."""
    above = np.flatnonzero(curve > threshold)
    if not above.size:
        return []
    groups = np.split(above, np.flatnonzero(np.diff(above) != 1) + 1)
    return [(int(group[0]), int(group[-1]) + 1) for group in groups]


def nms(segments: np.ndarray, scores: np.ndarray, iou_threshold: float) -> list[int]:
    """Greedy non-maximum suppression; indices of the kept, best first."""
    start, end = segments[:, 0], segments[:, 1]
    order = np.argsort(-scores, kind="stable")
    kept = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        shared = np.minimum(end[best], end[rest]) - np.maximum(start[best], start[rest])
        shared = np.maximum(shared, 0)
        union = end[best] - start[best] + end[rest] - start[rest] - shared
        order = rest[shared / union < iou_threshold]
    return kept


def _crossings(curve, first, last, threshold):
    """Where a run of snippets begins and ends on the straight lines to its neighbours."""
    start, end = 0.0, float(len(curve))
    if first > 0:
        start = first + 0.5 - (curve[first] - threshold) / (curve[first] - curve[first - 1])
    if last < len(curve):
        end = last - 0.5 + (curve[last - 1] - threshold) / (curve[last - 1] - curve[last])
    return start, end


def _integral_contrast(curve, start, end, delta):
    """Contrast by the exact integrals of the straight lines."""
    width = delta * (end - start)
    left, right = max(start - width, 0.0), min(end + width, float(len(curve)))
    outside = (start - left) + (right - end)
    outer = _integral(curve, left, start) + _integral(curve, end, right)
    return _integral(curve, start, end) / (end - start) - (outer / outside if outside else 0.0)


def _integral(curve, start, end):
    first, last = math.floor(start - 0.5) + 1, math.ceil(end - 0.5)  # centres strictly inside
    first = max(first, 0)
    centres = np.arange(first, min(last, len(curve)))
    places = np.concatenate([[start - 0.5], centres, [end - 0.5]])
    heights = np.interp(places, np.arange(len(curve)), curve)
    return float(((heights[1:] + heights[:-1]) / 2 * np.diff(places)).sum())


def _sampled_contrast(curve, start, end, delta):
    width = int(delta * (end - start))
    outside = np.concatenate([curve[max(start - width, 0) : start], curve[end : end + width]])
    return curve[start:end].mean() - (outside.mean() if outside.size else 0.0)


# --- evaluation ---


def mean_average_precision(
    ground_truth: dict, predictions: dict, tious: np.ndarray, subset: str
) -> np.ndarray:
    """mAP `[n]` as the ActivityNet challenge computes it: class by class, detection by detection.

    Takes the dicts of `tal_jax.evaluate_detections`.
    """
    truth = {
        (video, one["label"]): []
        for video, entry in ground_truth["database"].items()
        for one in entry["annotations"]
        if entry["subset"] == subset
    }
    for video, entry in ground_truth["database"].items():
        if entry["subset"] == subset:
            for one in entry["annotations"]:
                truth[video, one["label"]].append(one["segment"])
    truth = {key: np.array(segments) for key, segments in truth.items()}
    aps = []
    for label in sorted({label for _, label in truth}):
        own = {video: segments for (video, of), segments in truth.items() if of == label}
        found = [
            (video, one["score"], one["segment"])
            for video, listed in predictions["results"].items()
            for one in listed
            if one["label"] == label
        ]
        aps.append(_average_precision(own, found, tious))
    return np.mean(aps, axis=0)


def _average_precision(truth, found, tious):
    order = np.argsort(-np.array([score for _, score, _ in found]), kind="stable")
    taken = {video: np.zeros((len(tious), len(of)), bool) for video, of in truth.items()}
    hits = np.zeros((len(tious), len(found)))
    for rank, index in enumerate(order):
        video, _, segment = found[index]
        if video not in truth:
            continue
        overlap = segment_iou(np.array(segment), truth[video])
        by_overlap = overlap.argsort(kind="stable")[::-1]
        for level, tiou in enumerate(tious):
            for candidate in by_overlap:
                if overlap[candidate] < tiou:
                    break
                if not taken[video][level, candidate]:
                    taken[video][level, candidate] = True
                    hits[level, rank] = 1
                    break
    return _interpolated_of_hits(hits, sum(len(of) for of in truth.values()))


def mean_average_precision_in_tables(
    pandas, ground_truth: dict, predictions: dict, tious: np.ndarray, subset: str
) -> np.ndarray:
    """The same on tables of pandas, as the challenge's own toolkit keeps its detections."""
    truth = pandas.DataFrame(
        [
            (video, one["label"], *one["segment"])
            for video, entry in ground_truth["database"].items()
            if entry["subset"] == subset
            for one in entry["annotations"]
        ],
        columns=["video", "label", "start", "end"],
    )
    found = pandas.DataFrame(
        [
            (video, one["label"], *one["segment"], one["score"])
            for video, listed in predictions["results"].items()
            for one in listed
        ],
        columns=["video", "label", "start", "end", "score"],
    )
    aps = []
    for label in sorted(set(truth["label"])):
        own = truth[truth["label"] == label].reset_index(drop=True)
        by_video = own.groupby("video")
        ranked = found[found["label"] == label].sort_values(
            "score", ascending=False, kind="stable", ignore_index=True
        )
        taken = np.zeros((len(tious), len(own)), bool)
        hits = np.zeros((len(tious), len(ranked)))
        for rank, one in ranked.iterrows():
            try:
                listed = by_video.get_group(one["video"]).reset_index()
            except KeyError:
                continue
            segment = one[["start", "end"]].values.astype(float)
            overlap = segment_iou(segment, listed[["start", "end"]].values)
            by_overlap = overlap.argsort(kind="stable")[::-1]
            for level, tiou in enumerate(tious):
                for candidate in by_overlap:
                    if overlap[candidate] < tiou:
                        break
                    if not taken[level, listed.loc[candidate]["index"]]:
                        taken[level, listed.loc[candidate]["index"]] = True
                        hits[level, rank] = 1
                        break
        aps.append(_interpolated_of_hits(hits, len(own)))
    return np.mean(aps, axis=0)


def segment_iou(segment: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of one segment with others `[n, 2]`."""
    shared = np.minimum(segment[1], others[:, 1]) - np.maximum(segment[0], others[:, 0])
    shared = shared.clip(0)
    return shared / (others[:, 1] - others[:, 0] + segment[1] - segment[0] - shared)


def _interpolated_of_hits(hits, total):
    positives = hits.cumsum(axis=1)
    precision = positives / (np.arange(hits.shape[1]) + 1)
    recall = positives / total
    return [_interpolated(precision[level], recall[level]) for level in range(len(hits))]


def _interpolated(precision, recall):
    precision = np.concatenate([[0], precision, [0]])
    recall = np.concatenate([[0], recall, [1]])
    for index in range(len(precision) - 2, -1, -1):
        precision[index] = max(precision[index], precision[index + 1])
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return ((recall[steps] - recall[steps - 1]) * precision[steps]).sum()


# --- reassignment ---


def em_attention(torch, features, prototypes, gamma=5.0, omega=0.5, num_iters=2):
    """Two E/M iterations and the mix of features and prototypes in PyTorch."""
    functional = torch.nn.functional
    unit = functional.normalize(features, dim=1)
    for _ in range(num_iters):
        cosines = unit @ functional.normalize(prototypes, dim=1).T
        shares = torch.softmax(gamma * cosines, dim=1)
        weights = shares / shares.sum(dim=0, keepdim=True)
        prototypes = omega * weights.T @ features + (1 - omega) * prototypes
    return omega * shares @ prototypes + (1 - omega) * features


def fixed_point_by_time(features, prototypes, assignments, *, omega=0.5, linalg=np.linalg):
    """The features' limit by a system of all T snippets; arrays of NumPy or PyTorch.

    F* = omega Z M + (1 - omega) F and M = omega N'F* + (1 - omega) mu, with the prototypes
    eliminated: (I - omega^2 Z N') F* = (1 - omega) (omega Z mu + F).
    """
    shares = assignments / assignments.sum(0)
    system = -(omega**2) * (assignments @ shares.T)
    at = range(len(system))
    system[at, at] += 1
    right = (1 - omega) * (omega * (assignments @ prototypes) + features)
    return linalg.inv(system) @ right


# --- resampling ---


def resample(features: np.ndarray, weights: np.ndarray, num_samples: int) -> np.ndarray:
    """Inverse-transform sampling with `np.interp` and two gathers."""
    cumulative = np.concatenate([[0], np.cumsum(weights, dtype=np.float64)])
    cells = (np.arange(num_samples) + 0.5) * (cumulative[-1] / num_samples)
    times = np.interp(cells, cumulative, np.arange(len(cumulative)))
    positions = np.clip(times - 0.5, 0, len(features) - 1)
    below = np.floor(positions).astype(int)
    above = np.minimum(below + 1, len(features) - 1)
    share = (positions - below)[:, None].astype(features.dtype)
    return (1 - share) * features[below] + share * features[above]

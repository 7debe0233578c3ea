"""The embedded data set: shoulder exercises recorded by a smartwatch, joined into streams.

The signals are real: ten people did seven shoulder exercises with each arm, one exercise a
recording, wearing a watch that took acceleration and rotation at 50 Hz (Burns et al., "Shoulder
physiotherapy exercise recognition", 2018, https://arxiv.org/abs/1802.01489). The joins are not: a
recording of one exercise has nothing to localize, so each person's recordings are cut into bouts,
shuffled, and joined into untrimmed streams. Five exercises are the classes; pendulum swings
and rows are unlabelled background that a model must learn not to report.

The recordings are part of the package `seglearn`, which is not imported: the sha256 of its file is
checked before the pickle in it is read.
"""

import dataclasses
import hashlib
import importlib.util
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import signals
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation, ground_truth_of
from tal_jax.data.point_distributions import generate_points
from tal_jax.data.recordings import Dataset, Recording, assemble, standardize

FPS = 50.0
SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
TRAIN_PEOPLE = (1, 2, 3, 4, 5, 6, 7)
TEST_PEOPLE = (8, 9, 10)
ARMS = ("left", "right")  # in the order of the file's numbers, as are the exercises
EXERCISES = (
    "pendulum",
    "abduction",
    "forward elevation",
    "internal rotation",
    "external rotation",
    "trapezius",
    "row",
)
BACKGROUND = ("pendulum", "row")
CLASSES = tuple(sorted(set(EXERCISES) - set(BACKGROUND)))
MIN_BOUT_S = 1.5
MAX_BOUT_S = 20.0

# Purposes of random numbers, as part of their seed, so that the draws are independent.
_CUT, _CHOOSE, _ARRANGE = 1, 2, 3

Recorded = Mapping[tuple[int, str, str], np.ndarray]  # (person, arm, exercise) -> [samples, 6]


@dataclasses.dataclass(frozen=True, eq=False)
class Bout:
    """A piece of one exercise, the same in every stream that contains it."""

    exercise: str
    signal: np.ndarray  # [samples, 6]
    point_s: float  # its point label, from its start

    @property
    def duration_s(self) -> float:
        """Its duration in seconds."""
        return len(self.signal) / FPS


Stream = Sequence[Bout]


def load(
    *,
    seed: int = 0,
    points: str = "uniform",
    shuffles: int = 2,
    stride_s: float = 0.5,
    window_s: float = 1.5,
) -> Dataset:
    """Composes the streams: people 1 to 7 to train on, 8 to 10 to test on.

    Args:
      seed: of cuts, points, choices of classes and orders, which are independent: more shuffles
        only add streams, and another distribution only moves points.
      points: the point distribution, see `generate_points`.
      shuffles: training streams of each person and arm; test people have one. A bout in several of
        them has the same point in all. Two use every recording of a class once.
      stride_s: seconds between snippets.
      window_s: seconds of the window of a snippet's features.

    Returns:
      The data set, with features standardised on the training streams.

    Raises:
      InputError: if the recordings are not installed or not the expected ones, the distribution is
        unknown, or `shuffles` is below 1.
    """
    if shuffles < 1:
        raise InputError(f"watch: shuffles is {shuffles!r}, expected 1 or more")
    recorded = read_recordings()
    train = compose(recorded, TRAIN_PEOPLE, seed=seed, distribution=points, shuffles=shuffles)
    test = compose(recorded, TEST_PEOPLE, seed=seed, distribution=points, shuffles=1)

    def describe(name: str, stream: Stream) -> Recording:
        signal = np.concatenate([bout.signal for bout in stream])
        features, grid = signals.window_features(
            signal, fps=FPS, stride_s=stride_s, window_s=window_s
        )
        return Recording(name, features, grid, duration_s=len(signal) / FPS)

    dataset = assemble(
        annotate(train, subset="train"),
        (describe(name, stream) for name, stream in train.items()),
        (describe(name, stream) for name, stream in test.items()),
        ground_truth_of(annotate(test, subset="test"), test),
    )
    return signals.with_manifest(standardize(dataset), signals.MOTION_CHANNELS)


def read_recordings() -> Recorded:
    """Reads the recordings of the installed package `seglearn`.

    Raises:
      InputError: if the package is not installed, or its file is not the expected one.
    """
    package = importlib.util.find_spec("seglearn")  # finds, does not import
    if package is None or not package.submodule_search_locations:
        raise InputError(
            "watch: the recordings are in the package seglearn, which is not installed; "
            'run pip install "tal_jax[demo]"'
        )
    path = Path(package.submodule_search_locations[0]) / "data" / "watch_dataset.npy"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"watch: cannot read {path}: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise InputError(
            f"watch: {path} has sha256 {digest}, expected {SHA256}; its pickle is not opened. "
            "Install seglearn 1.2.5"
        )
    data = np.load(io.BytesIO(content), allow_pickle=True).item()
    keys = zip(data["subject"], data["side"], data["y"], strict=True)
    return {
        (int(person), ARMS[int(side)], EXERCISES[int(exercise)]): signal
        for (person, side, exercise), signal in zip(keys, data["X"], strict=True)
    }


def compose(
    recorded: Recorded, people: Sequence[int], *, seed: int, distribution: str, shuffles: int
) -> dict[str, Stream]:
    """Joins the bouts of each person and arm into streams; neighbours differ in exercise.

    Returns the streams by name, `shuffles` of each person and arm. All contain the background
    exercises; of the classes, one arm's stream contains one to four, and the other arm's stream of
    the same shuffle the others.
    """
    streams = {}
    for person in people:
        for arm in ARMS:
            bouts = {
                exercise: _bouts(
                    recorded, person, arm, exercise, seed=seed, distribution=distribution
                )
                for exercise in EXERCISES
            }
            for shuffle in range(shuffles):
                chosen = _choose_classes(person, arm, shuffle, seed=seed)
                candidates = [
                    bout for exercise in (*chosen, *BACKGROUND) for bout in bouts[exercise]
                ]
                order = arrange(
                    [bout.exercise for bout in candidates],
                    _rng(_ARRANGE, seed, person, arm, shuffle),
                )
                streams[f"person{person:02d}_{arm}_{shuffle}"] = [candidates[i] for i in order]
    return streams


def annotate(streams: Mapping[str, Stream], *, subset: str) -> Annotations:
    """Returns the segments and the points of the bouts of the classes in each stream."""
    recordings = {}
    for name, stream in streams.items():
        starts = np.cumsum([0, *(len(bout.signal) for bout in stream)]).tolist()
        instances = tuple(
            Instance(bout.exercise, start / FPS, end / FPS, start / FPS + bout.point_s)
            for bout, start, end in zip(stream, starts[:-1], starts[1:], strict=True)
            if bout.exercise in CLASSES
        )
        recordings[name] = RecordingAnnotation(subset, starts[-1] / FPS, instances)
    return Annotations(CLASSES, recordings)


def cut(num_samples: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Cuts a recording into bouts of log-uniform 1.5 to 20 s, half-open ranges of samples.

    The last bout is the remainder; less than 1.5 s is joined to the previous bout.
    """
    edges = [0]
    while edges[-1] < num_samples:
        duration_s = math.exp(rng.uniform(math.log(MIN_BOUT_S), math.log(MAX_BOUT_S)))
        edges.append(min(edges[-1] + round(duration_s * FPS), num_samples))
    if len(edges) > 2 and edges[-1] - edges[-2] < MIN_BOUT_S * FPS:
        del edges[-2]
    return list(zip(edges[:-1], edges[1:], strict=True))


def arrange(labels: Sequence[str], rng: np.random.Generator) -> list[int]:
    """Draws a random order, as indices, in which neighbours have different labels.

    Of a label with more than half of the elements, the surplus, chosen at random, is left out.

    >>> order = arrange(["a", "a", "b", "c"], np.random.default_rng(0))
    >>> [i for i in sorted(order)]
    [0, 1, 2, 3]
    """
    waiting = {
        label: rng.permutation([i for i, other in enumerate(labels) if other == label]).tolist()
        for label in dict.fromkeys(labels)
    }
    for label, indices in waiting.items():
        del indices[len(labels) - Counter(labels)[label] + 1 :]
    order: list[int] = []
    last = None
    while any(waiting.values()):
        counts = {label: len(indices) for label, indices in waiting.items()}
        allowed = [label for label in counts if label != last and _leaves_an_order(counts, label)]
        weights = np.array([counts[label] for label in allowed], np.float64)
        last = allowed[rng.choice(len(allowed), p=weights / weights.sum())]
        order.append(waiting[last].pop())
    return order


def _leaves_an_order(counts: Mapping[str, int], label: str) -> bool:
    """Whether the rest can be ordered with different neighbours after `label` comes next."""
    rest = sum(counts.values()) - 1
    if counts[label] == 0 or counts[label] - 1 > rest // 2:
        return False
    return all(n <= (rest + 1) // 2 for other, n in counts.items() if other != label)


def _bouts(
    recorded: Recorded, person: int, arm: str, exercise: str, *, seed: int, distribution: str
) -> list[Bout]:
    """Cuts one recording and draws a point in each bout, independently of shuffles."""
    signal = recorded[person, arm, exercise]
    rng = _rng(_CUT, seed, person, arm, EXERCISES.index(exercise))
    ranges = cut(len(signal), rng)
    name = f"person{person:02d}_{arm}/{exercise}"
    instances = tuple(Instance(exercise, first / FPS, last / FPS) for first, last in ranges)
    recording = RecordingAnnotation("train", len(signal) / FPS, instances)
    annotations = Annotations((exercise,), {name: recording})
    clicked = generate_points(annotations, distribution=distribution, seed=seed)
    points_s = [instance.point_s or 0.0 for instance in clicked.recordings[name].instances]
    return [
        Bout(exercise, signal[first:last], point_s - first / FPS)
        for (first, last), point_s in zip(ranges, points_s, strict=True)
    ]


def _choose_classes(person: int, arm: str, shuffle: int, *, seed: int) -> list[str]:
    """Splits the classes between the two arms, swapped in the next shuffle."""
    rng = _rng(_CHOOSE, seed, person, ARMS[0], shuffle // 2)
    deck = [CLASSES[i] for i in rng.permutation(len(CLASSES))]
    count = int(rng.integers(1, len(CLASSES)))
    return deck[:count] if (ARMS.index(arm) + shuffle) % 2 == 0 else deck[count:]


def _rng(purpose: int, seed: int, person: int, arm: str, number: int) -> np.random.Generator:
    return np.random.default_rng([purpose, seed, person, ARMS.index(arm), number])

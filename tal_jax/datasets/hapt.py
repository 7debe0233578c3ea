"""HAPT (also SBHAR): activities and postural transitions of 30 people, a phone at the waist.

"Smartphone-Based Recognition of Human Activities and Postural Transitions" v2.1, from the UCI
repository: 61 continuous recordings at 50 Hz with hand-made labels of twelve classes, six
activities of 10 to 25 s and six transitions of 2 to 5 s. Its terms ask for a citation
(Reyes-Ortiz et al., Neurocomputing 2015) and exclude commercial use, so users fetch it themselves.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import signals
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation, ground_truth_of
from tal_jax.data.point_distributions import generate_points
from tal_jax.data.recordings import Dataset, Recording, assemble, standardize
from tal_jax.datasets import windows

FPS = 50.0
TRAIN_USERS = range(1, 22)  # 43 recordings; users 22 to 30 test on 18
CLASSES = (
    "walking",
    "walking_upstairs",
    "walking_downstairs",
    "sitting",
    "standing",
    "laying",
    "stand_to_sit",
    "sit_to_stand",
    "sit_to_lie",
    "lie_to_sit",
    "stand_to_lie",
    "lie_to_stand",
)


def load(
    folder: str | Path,
    *,
    seed: int = 0,
    points: str = "uniform",
    stride_s: float = 0.5,
    window_s: float = 1.5,
    cut_s: Sequence[float] = (),
) -> Dataset:
    """Reads the raw signals and labels, split by user.

    Args:
      folder: the data set's folder, which holds `RawData`.
      seed: see `watch.load`, as for the other settings.
      points: the point distribution.
      stride_s: seconds between snippets.
      window_s: seconds of the window of a snippet's features.
      cut_s: shortest and longest window that training recordings are cut into, for video-level
        labels, see `windows.cut_recording`; empty for whole recordings.

    Raises:
      InputError: if files are missing or malformed, or the distribution is unknown.
    """
    raw = Path(folder) / "RawData"
    paths = sorted(raw.glob("acc_exp*_user*.txt"))
    if not paths:
        raise InputError(f"{raw}: no acc_exp*_user*.txt; expected the RawData folder of HAPT v2.1")
    described, users, durations = {}, {}, {}
    for path in paths:
        name = path.stem.removeprefix("acc_")
        match = re.fullmatch(r"exp\d+_user(\d+)", name)
        if match is None:
            raise InputError(f"{path}: expected a name like acc_exp01_user01.txt")
        users[name] = int(match.group(1))
        signal = _read_signal(path)
        durations[name] = len(signal) / FPS
        described[name] = signals.window_features(
            signal, fps=FPS, stride_s=stride_s, window_s=window_s
        )
    annotations = generate_points(
        _read_labels(raw / "labels.txt", users, durations), distribution=points, seed=seed
    )
    train = [name for name, user in users.items() if user in TRAIN_USERS]
    test = [name for name in users if name not in train]

    def recording(name: str) -> Recording:
        features, grid = described[name]
        return Recording(name, features, grid, durations[name])

    dataset = assemble(
        annotations, map(recording, train), map(recording, test), ground_truth_of(annotations, test)
    )
    dataset = signals.with_manifest(standardize(dataset), signals.MOTION_CHANNELS)
    if cut_s:
        cut = [
            window
            for whole in dataset.train
            for window in windows.cut_recording(
                whole, annotations.recordings[whole.name], CLASSES, cut_s=cut_s, seed=seed
            )
        ]
        # Cuts go through instances, so points of windows have no true segment.
        dataset = dataclasses.replace(dataset, train=tuple(cut), train_truth=None)
    return dataset


def _read_signal(path: Path) -> np.ndarray:
    """Reads acceleration (g) and rotation (rad/s) of one recording, `[samples, 6]`."""
    gyroscope = path.with_name(path.name.replace("acc_", "gyro_", 1))
    parts = [_read_numbers(path, 3), _read_numbers(gyroscope, 3)]
    if len(parts[0]) != len(parts[1]):
        raise InputError(
            f"{gyroscope}: {len(parts[1])} samples; expected {len(parts[0])}, as in {path.name}"
        )
    return np.concatenate(parts, axis=1)


def _read_labels(path: Path, users: dict[str, int], durations: dict[str, float]) -> Annotations:
    """Reads rows of experiment, user, class, first and last sample (both counted from 1)."""
    instances = {name: [] for name in users}
    for experiment, user, label, first, last in _read_numbers(path, 5).astype(int):
        name = f"exp{experiment:02d}_user{user:02d}"
        row = f"{path}: row {experiment} {user} {label} {first} {last}"
        if name not in instances or not 1 <= label <= len(CLASSES):
            raise InputError(
                f"{row}; expected a recording that is there and a class from 1 to {len(CLASSES)}"
            )
        if not 1 <= first <= last <= round(durations[name] * FPS):
            raise InputError(
                f"{row}; expected samples from 1 to {durations[name] * FPS:.0f}, the last not "
                "before the first"
            )
        instances[name].append(Instance(CLASSES[label - 1], (first - 1) / FPS, last / FPS))
    recordings = {
        name: RecordingAnnotation(
            "train" if user in TRAIN_USERS else "test", durations[name], tuple(instances[name])
        )
        for name, user in users.items()
    }
    return Annotations(CLASSES, recordings)


def _read_numbers(path: Path, columns: int) -> np.ndarray:
    try:
        numbers = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error
    if numbers.shape[1] != columns:
        raise InputError(f"{path}: {numbers.shape[1]} columns; expected {columns}")
    return numbers

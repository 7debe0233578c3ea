"""Runs that are trained at once: what they must have in common."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tal_jax._errors import InputError
from tal_jax.config import Config, flatten
from tal_jax.data.packing import labelled_counts, num_windows
from tal_jax.data.recordings import Dataset
from tal_jax.training import update

# Settings that no compiled program depends on, but the loop around it or the number of its rows.
_COMMON = (
    *("train.rounds", "train.steps", "train.log_every", "train.checkpoint_every", "train.length"),
    *("train.schedule", "sampling.keep_original"),
)


def check_configs(configs: Sequence[Config], workdirs: Sequence[Path]) -> None:
    """Refuses runs that cannot be trained in one program.

    Raises:
      InputError: naming the setting that differs or that only a single run may have, or the work
        directory that two runs have.
    """
    if not configs or len(configs) != len(workdirs):
        raise InputError(
            f"{len(configs)} configs and {len(workdirs)} work directories; expected one or more, "
            "and as many of the one as of the other"
        )
    for workdir in workdirs:
        if workdirs.count(workdir) > 1:
            raise InputError(f"{workdir}: the work directory of two runs; expected one for each")
    first = _shared_settings(configs[0])
    for config, workdir in zip(configs, workdirs, strict=True):
        for key in ("holdout", "patience"):
            if config.train[key]:
                raise InputError(
                    f"{workdir}: train.{key}={config.train[key]}; expected 0, since runs that are "
                    "trained at once all end at the same update"
                )
        own = _shared_settings(config)
        for key in sorted(first.keys() | own.keys()):
            if first.get(key) != own.get(key):
                raise InputError(
                    f"{key} is {first.get(key)!r} for {workdirs[0]} and {own.get(key)!r} for "
                    f"{workdir}; expected the same for runs that are trained at once"
                )


def _shared_settings(config: Config) -> dict[str, Any]:
    """All settings that members have in common, flat."""
    values = {key: config[key.split(".")[0]][key.split(".")[1]] for key in _COMMON}
    values |= {"stages": config.stages} | flatten({"detector": config.detector.to_dict()})
    return values | flatten(update.compiled_config(config).to_dict())


def check_datasets(datasets: Sequence[Dataset], workdirs: Sequence[Path], window: int) -> None:
    """Refuses data sets whose arrays cannot be stacked; `window` is `config.train.length`.

    Raises:
      InputError: naming what differs, and the work directories of the runs.
    """

    def described(dataset: Dataset) -> dict[str, Any]:
        return {
            "classes": dataset.classes,
            "the number of training recordings": len(dataset.train),
            "the number D of features": dataset.train[0].features.shape[1],
            "the type of features": str(np.result_type(*{r.features.dtype for r in dataset.train})),
            "the number of labelled windows in training recordings": int(
                num_windows(np.array(labelled_counts(dataset.train)), window).sum()
            ),
        }

    first = described(datasets[0])
    for dataset, workdir in zip(datasets, workdirs, strict=True):
        for name, value in described(dataset).items():
            if value != first[name]:
                raise InputError(
                    f"data: {name} differ, {first[name]!r} for {workdirs[0]} and {value!r} for "
                    f"{workdir}; expected the same for runs that are trained at once"
                )


def same_features(datasets: Sequence[Dataset]) -> bool:
    """Whether the training recordings of all data sets have the same names, clocks and features."""

    def same(one, other):
        if (one.name, one.grid, one.duration_s) != (other.name, other.grid, other.duration_s):
            return False
        ours, theirs = one.features, other.features
        if isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray):
            return ours is theirs or np.array_equal(ours, theirs)
        return type(ours) is type(theirs) and ours == theirs  # files, compared by their paths

    first = datasets[0].train
    return all(
        same(one, own) for other in datasets for one, own in zip(first, other.train, strict=True)
    )

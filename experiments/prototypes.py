"""Measures which snippets feature reassignment mixes, for each class.

    python experiments/prototypes.py --workdir runs/hapt

Feature reassignment replaces a part of each snippet by a mean over the snippets of the recording,
weighted by shared prototypes. The table lists for each class of the test recordings

- received: the weight, in this mean, of snippets of the same class,
- uniform: their weight in an unweighted mean, which is the share of the class in the recording,
- prototypes: the perplexity of the snippets' prototype assignments.

Reassignment can sharpen a class only if `received` is far above `uniform` and not far below 100 %.
"""

import argparse
import collections
from pathlib import Path

import jax
import numpy as np

from tal_jax.data import files
from tal_jax.data.recordings import read_features
from tal_jax.datasets.load import load_dataset
from tal_jax.inference.forward import Fitted
from tal_jax.methods import method_of
from tal_jax.ops import reassignment
from tal_jax.runs.workdir import load_run

_NO_CLASS = "(no class)"


def main() -> None:
    """Prints the table, means over the runs and their snippets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, action="append", required=True, help="repeatable")
    parser.add_argument("--data", help="folder of data sets; default $TAL_JAX_DATA")
    arguments = parser.parse_args()
    rows = collections.defaultdict(list)
    for workdir in arguments.workdir:
        for label, values in measure_run(workdir, arguments.data):
            rows[label].append(values)
    width = max(map(len, rows))
    print(f"{'class':{width}}  snippets  received   uniform  prototypes")
    for label, values in sorted(rows.items()):
        values = np.concatenate(values)
        received, uniform, spread = values.mean(axis=0)
        figures = f"{100 * received:7.1f} % {100 * uniform:7.1f} % {spread:11.1f}"
        print(f"{label:{width}}  {len(values):8}  {figures}")


def measure_run(workdir: Path, data: str | None):
    """Yields each test recording's classes with `[snippets, 3]` of the three figures."""
    fitted = load_run(workdir)
    if not fitted.config.get("model", {}).get("num_prototypes"):
        raise ValueError(f"{workdir}: a run without prototypes")
    truth = files.read_json(workdir / "ground_truth.json")["database"]
    shares_of = assignments(fitted)
    for recording in load_dataset(fitted.config, data).test:
        labels = snippet_labels(recording, truth[recording.name]["annotations"])
        shares = np.asarray(shares_of(read_features(recording)), np.float64)
        means = shares / np.maximum(shares.sum(axis=0), 1e-9)
        spread = np.exp(-(shares * np.log(np.maximum(shares, 1e-9))).sum(axis=1))
        for label in np.unique(labels):
            same = labels == label
            received = shares[same] @ means[same].sum(axis=0)
            uniform = np.full_like(received, same.mean())
            yield str(label), np.stack([received, uniform, spread[same]], axis=1)


def assignments(fitted: Fitted):
    """A function from features `[T, D]` to prototype assignments `[T, K]` of the last network."""
    params = fitted.params[-1]
    model = method_of(fitted.config).make_model(fitted.config, len(fitted.classes))
    settings = {key: fitted.config.model[key] for key in ("gamma", "omega", "num_iters")}

    @jax.jit
    def assign(features):
        where = np.ones((1, features.shape[0]), bool)
        hidden = model.apply({"params": params}, features[None], where=where).embedding[0]
        return reassignment.reassign(hidden, params["prototypes"], **settings).assignments

    return assign


def snippet_labels(recording, annotations: list[dict]) -> np.ndarray:
    """The class at the middle of each snippet."""
    times_s = recording.grid.to_seconds(np.arange(len(recording.features)) + 0.5)
    labels = np.full(len(times_s), _NO_CLASS, dtype=object)
    for entry in annotations:
        start_s, end_s = entry["segment"]
        labels[(times_s >= start_s) & (times_s < end_s)] = entry["label"]
    return labels.astype(str)


if __name__ == "__main__":
    main()

r"""What feature reassignment mixes: whence the snippets of each class get their new features.

    python experiments/prototypes.py --workdir runs/hapt

Reassignment replaces a part of every snippet by a mean over the recording's snippets, weighed by
the prototypes that they share. For the test recordings of a run the table says, class by class,

- received: how much of that mean comes from snippets of the snippet's own class,
- uniform: how much would if all snippets counted alike, which is the class's share of a recording,
- prototypes: over how many prototypes a snippet is spread (the perplexity of its assignment).

Reassignment can sharpen a class only if `received` is far above `uniform` and not far below 100 %.
"""

import collections
from pathlib import Path

import jax
import numpy as np
from absl import app, flags, logging

from tal_jax.data import files
from tal_jax.data.recordings import read_features
from tal_jax.datasets.load import load_dataset
from tal_jax.inference.forward import Fitted
from tal_jax.methods import method_of
from tal_jax.ops import reassignment
from tal_jax.runs.workdir import load_run

_WORKDIR = flags.DEFINE_multi_string("workdir", None, "The run's folder; may be given repeatedly.")
_DATA = flags.DEFINE_string("data", None, "Where data sets lie; default TAL_JAX_DATA.")
_NO_CLASS = "(no class)"
flags.mark_flag_as_required("workdir")


def main(argv: list[str]) -> None:
    """Prints the table, means over the runs and their snippets."""
    del argv
    logging.set_verbosity(logging.WARNING)  # below, Orbax tells of every file that it reads
    rows = collections.defaultdict(list)
    for workdir in map(Path, _WORKDIR.value):
        for label, values in measure_run(workdir):
            rows[label].append(values)
    width = max(map(len, rows))
    print(f"{'class':{width}}  snippets  received   uniform  prototypes")
    for label, values in sorted(rows.items()):
        values = np.concatenate(values)
        received, uniform, spread = values.mean(axis=0)
        figures = f"{100 * received:7.1f} % {100 * uniform:7.1f} % {spread:11.1f}"
        print(f"{label:{width}}  {len(values):8}  {figures}")


def measure_run(workdir: Path):
    """Yields each test recording's classes with `[snippets, 3]` of the three figures."""
    fitted = load_run(workdir)
    if not fitted.config.get("model", {}).get("num_prototypes"):
        raise ValueError(f"{workdir}: a run without prototypes")
    truth = files.read_json(workdir / "ground_truth.json")["database"]
    shares_of = assignments(fitted)
    for recording in load_dataset(fitted.config, _DATA.value).test:
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
    """A function from features `[T, D]` to assignments `[T, K]` by a run's last network."""
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
    app.run(main)

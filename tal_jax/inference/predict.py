"""Detections of trained networks (all stages, all rounds averaged, or one round), and proposals."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np

from tal_jax.data import packing
from tal_jax.data.detections import Results
from tal_jax.data.predictions import Predictions, RecordingPredictions
from tal_jax.data.recordings import Recording, labels_of
from tal_jax.data.timeline import Lengths, Timeline
from tal_jax.inference import localize
from tal_jax.inference.detector import detect
from tal_jax.inference.forward import Fitted, lengthens, predict_chunks, predict_recordings
from tal_jax.inference.fusion import fuse_stages
from tal_jax.training import input_pipeline


def predict(fitted: Fitted, recordings: Sequence[Recording]) -> Results:
    """Detects actions in recordings, by the mean of all rounds and by the second stage, if any.

    Args:
      fitted: trained networks.
      recordings: features with their clocks; points are ignored.

    Returns:
      For each recording its detections `{label, score, segment}`, best first, times in seconds.

    Raises:
      InputError: if features are bad or of another D than the networks were trained on.
    """
    found = predict_stages(fitted, recordings, predict_mean(fitted, recordings))
    return {name: list(entries) for name, entries in found.items()}


def predict_stages(
    fitted: Fitted,
    recordings: Sequence[Recording],
    predictions: Mapping[str, RecordingPredictions],
) -> Results:
    """Detections of the rounds' mean predictions, fused with those of the second stage."""
    options = fitted.config.localization
    rounds = localize.localize_in_processes(predictions, options, fitted.classes)
    if fitted.detector is None:
        return rounds
    found = detect(fitted.detector, recordings, soft_sigma=options.soft_sigma)
    return fuse_stages(rounds, found, soft_sigma=options.soft_sigma)


def predict_mean(
    fitted: Fitted, recordings: Sequence[Recording]
) -> dict[str, RecordingPredictions]:
    """The mean of all rounds' predictions on the original timeline; raises as `predict` does."""
    return mean_predictions(
        predict_recordings(fitted, number, recordings, lengthen=False)
        for number in range(len(fitted.params))
    )


def predict_round(
    fitted: Fitted, number: int, recordings: Sequence[Recording]
) -> tuple[Results, dict[str, RecordingPredictions]]:
    """Detections of one round's network, and the predictions that they are made from.

    Where the config compensates test recordings, and the network was trained on lengthened actions,
    they come from a second forward pass, over timelines on which short detections are lengthened.
    """
    predictions = predict_recordings(fitted, number, recordings, lengthen=lengthens(fitted, number))
    options = fitted.config.localization
    return localize.localize_in_processes(predictions, options, fitted.classes), predictions


def propose(
    fitted: Fitted,
    number: int,
    recordings: Sequence[Recording],
    rows: Collection[int],
    timeline: Timeline,
    lengths: Lengths,
) -> Results:
    """Proposals of one round's network on training recordings, in their own classes, best first.

    Args:
      fitted: trained networks.
      number: of the round.
      recordings: R training recordings.
      rows: of those to propose on.
      timeline: that the round was trained on; its first R rows are the recordings.
      lengths: it was trained with; every recording is padded to the least that fits.
    """
    rows = np.array(rows, np.int32)
    counts = np.asarray(timeline.counts)[rows]
    kinds = np.searchsorted(lengths.whole[:-1], counts)
    options = localize.proposal_options(fitted.config.localization)
    results, max_runs = {}, localize.MAX_RUNS
    for kind, length in enumerate(lengths.whole):
        alike = rows[kinds == kind]
        if not len(alike):
            continue
        chosen = input_pipeline.take(timeline, alike) if len(alike) < len(recordings) else timeline
        own = [recordings[row] for row in alike]
        found: dict[str, Predictions] = {}  # of two parts at most
        coming = predict_chunks(fitted, number, own, chosen, num_samples=length)
        for part in packing.equal_parts(own):
            while part[-1].name not in found:
                found |= next(coming)
            # In the same shapes in all rounds.
            proposals, max_runs = localize.localize_group(
                {
                    one.name: RecordingPredictions(one.grid, one.duration_s, *[found[one.name]] * 2)
                    for one in part
                },
                options,
                fitted.classes,
                length=timeline.weights.shape[1],
                num_samples=length,
                wanted={one.name: labels_of(one) for one in part},
                max_runs=max_runs,
            )
            results |= proposals
            # The last part begins within the one before it.
            first = list(found).index(part[0].name)
            found = dict(list(found.items())[first:])
    return results


def mean_predictions(
    rounds: Iterable[Mapping[str, RecordingPredictions]],
) -> dict[str, RecordingPredictions]:
    """The mean over rounds of predictions on the original timeline, read one after another.

    Which round is best is a matter of chance, and no training point decides it; the mean ranks
    detections better than any one round.

    Raises:
      ValueError: if the rounds differ in their recordings, or in the shape of their predictions.
    """
    sums: dict[str, Predictions] = {}
    first: Mapping[str, RecordingPredictions] = {}
    count = 0
    for count, predictions in enumerate(rounds, start=1):
        first = first or predictions
        if predictions.keys() != first.keys():
            name = min(predictions.keys() ^ first.keys())
            raise ValueError(f"predictions for {name!r} in some rounds, expected them in all")
        for name, recording in predictions.items():
            one = recording.original
            if count == 1:
                sums[name] = one
                continue
            total = sums[name]
            if total.cas.shape != one.cas.shape:
                raise ValueError(
                    f"predictions for {name!r} have shapes {total.cas.shape} and {one.cas.shape} "
                    "in different rounds, expected the same"
                )
            sums[name] = _on_scores(np.add, total, one)
    means = {}
    for name, one in first.items():
        mean = _on_scores(lambda total: total / np.float32(count), sums[name])
        means[name] = RecordingPredictions(one.grid, one.duration_s, mean, mean)
    return means


def _on_scores(function: Callable[..., np.ndarray], *those: Predictions) -> Predictions:
    """Applies a function to the scores of predictions on one timeline."""
    scores = [(one.cas, one.actionness, one.video_scores) for one in those]
    return Predictions(*map(function, *scores), cumulative=those[0].cumulative)

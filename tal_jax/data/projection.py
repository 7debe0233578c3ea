"""Principal components of features: a smaller input for networks that learn from few recordings."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tal_jax.data.lazy_features import LazyFeatures
from tal_jax.data.packing import snippet_counts
from tal_jax.data.recordings import Recording, read_features

# Snippets that the components are computed from: ten for each of 2,048 features.
_MOST_SNIPPETS = 20_000


@dataclasses.dataclass(frozen=True, eq=False)
class Projection:
    """Projection of features onto their K first principal components, scaled to variance 1.

    The scale is one number for all components: these keep their proportions.
    """

    mean: np.ndarray  # [D] float64
    components: np.ndarray  # [D, K] float64

    def apply(self, features: Any) -> Any:
        """Projects `[T, D]` to float32 `[T, K]`; features in files are projected when read."""
        if not isinstance(features, np.ndarray):
            return ProjectedFeatures(features, self)
        return ((features - self.mean) @ self.components).astype(np.float32)

    def apply_to(self, recordings: Sequence[Recording]) -> tuple[Recording, ...]:
        """The recordings with projected features."""
        return tuple(
            dataclasses.replace(one, features=self.apply(one.features)) for one in recordings
        )


@dataclasses.dataclass(frozen=True, eq=False)
class ProjectedFeatures(LazyFeatures):
    """Features in files, projected when they are read."""

    features: LazyFeatures
    projection: Projection

    dtype = np.dtype(np.float32)
    shape = property(lambda self: (self.features.shape[0], self.projection.components.shape[1]))

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.projection.apply(np.asarray(self.features[rows]))


def principal_components(recordings: Sequence[Recording], most: int) -> Projection:
    """The projection onto the first principal components of the snippets of recordings.

    Of more than 20,000 snippets every second, third, … counts.

    Args:
      recordings: training recordings.
      most: K at most; D where there are fewer features.
    """
    step = -(-sum(snippet_counts(recordings)) // _MOST_SNIPPETS)
    parts, first = [], 0
    for recording in recordings:
        parts.append(read_features(recording)[first::step].astype(np.float64))
        first = (first - len(recording.features)) % step
    snippets = np.concatenate(parts)
    mean = snippets.mean(axis=0)
    centred = snippets - mean
    variances, components = np.linalg.eigh(centred.T @ centred / len(centred))
    variances, components = variances[::-1][:most], components[:, ::-1][:, :most]
    # The sign of an eigenvector is a matter of the library.
    largest = np.abs(components).argmax(axis=0)
    components = components * np.sign(components[largest, np.arange(components.shape[1])])
    mean_variance = variances.mean()
    # Of features that are constant but for rounding, nothing is scaled.
    constant = mean_variance <= np.finfo(np.float32).eps ** 2 * np.square(snippets).mean()
    return Projection(mean, components / (1.0 if constant else np.sqrt(mean_variance)))

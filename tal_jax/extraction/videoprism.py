"""Google's VideoPrism (JAX and Flax), with weights from disk, as a backbone.

Its package is not on PyPI; for installation see https://github.com/google-deepmind/videoprism.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from tal_jax._errors import InputError
from tal_jax.extraction.backbones import VIDEO, hash_files, options_of

# Windows per forward pass; the last batch is padded, to compile only once.
_BATCH = 4


@dataclasses.dataclass(frozen=True)
class VideoPrism:
    """The mean of VideoPrism's tokens, or the single embedding of its models with text (`lvt`).

    The whole picture is scaled to the model's size without cropping.
    """

    path: str  # the weights, an `.npz` of the project
    model: str = "videoprism_public_v1_base"
    fps: float = 8.0
    window: int | None = None  # frames of a snippet's window; by default those of the model
    stride: float = 4.0  # frames between snippets

    name: ClassVar[str] = "videoprism"
    kind: ClassVar[str] = VIDEO
    size: ClassVar[tuple[int, int]] = (288, 288)
    one_process: ClassVar[bool] = True
    fixed_window: ClassVar[bool] = True
    options = property(options_of)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", str(Path(self.path).expanduser().absolute()))
        if not Path(self.path).is_file():
            raise InputError(f"{self.path}: no such file, expected VideoPrism's weights (.npz)")
        if self.window is None:
            object.__setattr__(self, "window", int(self._network.pos_emb_shape[0]))
        _ = self.version, self.dim

    @functools.cached_property
    def version(self) -> str:
        """The model's name, and a hash of its weights."""
        return f"{self.model} {hash_files([Path(self.path)])}"

    @property
    def dim(self) -> int:
        """The number of features."""
        return int(self._network.model_dim)

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Computes the features `[N, D]` of windows, uint8 `[N, window, H, W, 3]`."""
        parts = []
        for start in range(0, len(windows), _BATCH):
            part = windows[start : start + _BATCH]
            filled = np.concatenate([part, np.repeat(part[-1:], _BATCH - len(part), axis=0)])
            parts.append(np.asarray(self._describe(filled), np.float32)[: len(part)])
        return np.concatenate(parts)

    @functools.cached_property
    def _network(self) -> Any:
        vp = _package()
        try:
            return vp.get_model(self.model)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"backbone videoprism: no model {self.model!r}; expected a name such as "
                "videoprism_public_v1_base"
            ) from error

    @functools.cached_property
    def _describe(self) -> Callable[[np.ndarray], jax.Array]:
        weights = _package().load_pretrained_weights(self.model, checkpoint_path=self.path)
        # Models with text have arguments for it, None without text.
        words = (None, None) if "_lvt_" in self.model else ()

        @jax.jit
        def describe(weights: Any, windows: jax.Array) -> jax.Array:
            pixels = windows.astype(jnp.float32) / 255
            embeddings = self._network.apply(weights, pixels, *words, train=False)[0]
            return embeddings if embeddings.ndim == 2 else embeddings.mean(1)

        return functools.partial(describe, weights)


def _package() -> Any:
    try:
        from videoprism import models  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError as error:
        raise InputError(
            "backbone videoprism: the package is not installed; see "
            "https://github.com/google-deepmind/videoprism"
        ) from error
    return models

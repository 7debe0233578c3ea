"""Video models of the package `transformers` (PyTorch), from a hub or a folder, as a backbone."""

import dataclasses
import functools
import inspect
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.extraction import hub
from tal_jax.extraction.backbones import VIDEO, hash_files, options_of

# Windows per forward pass, limited by the memory of their tokens.
_BATCH = 4
# Files with the normalisation of pixels, the newer one first.
_PROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json")
# What is needed of a repository; no pickles, no code, and nothing of its subfolders.
_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", *_PROCESSORS)
# Models whose positions in time are rotations; others have learned those of their frames alone.
_ANY_WINDOW = ("vjepa2",)


@dataclasses.dataclass(frozen=True)
class Transformers:
    """VideoMAE, V-JEPA 2, VideoPrism, ViViT ...: the mean of the last hidden state.

    The whole picture is scaled to the model's size without cropping, so that actions at its sides
    are visible. No code of a model's repository or folder is run.
    """

    # A name on the Hugging Face hub, such as "facebook/vjepa2-vitl-fpc64-256", and its revision
    # (branch, tag or commit), which becomes the commit. Or a folder with `config.json`, weights
    # (`*.safetensors`), and `preprocessor_config.json` or `video_preprocessor_config.json`, as
    # written by `save_pretrained`.
    model: str = ""
    revision: str = ""
    path: str = ""
    fps: float = 8.0  # best that of the model's training
    window: int | None = None  # frames of a snippet's window; by default those of the model
    stride: float = 4.0  # frames between snippets

    name: ClassVar[str] = "transformers"
    kind: ClassVar[str] = VIDEO
    one_process: ClassVar[bool] = True
    options = property(options_of)

    def __post_init__(self) -> None:
        if bool(self.path) == bool(self.model) or (self.path and self.revision):
            raise InputError(
                "backbone transformers: expected model=NAME of a model on the Hugging Face hub, "
                "with revision= if wanted, or path=FOLDER of a saved one"
            )
        if self.path:
            object.__setattr__(self, "path", str(Path(self.path).expanduser().absolute()))
        else:
            object.__setattr__(self, "revision", self._folder.name)
        if not (self._folder / "config.json").is_file():
            raise InputError(f"{self._place}: no config.json; expected a saved model")
        if self.window is None:
            object.__setattr__(self, "window", self._frames)
        self._check_window()
        _ = self.version, self.dim, self.size, self._pixels

    def _check_window(self) -> None:
        if self.fixed_window:
            fits, expected = self.window == self._frames, f"{self._frames} (fps changes their rate)"
        else:
            step = self._config.tubelet_size
            fits, expected = not self.window % step, f"a multiple of {step}"
        if not fits:
            raise InputError(
                f"{self._place}: window is {self.window} frames; a {self._config.model_type} model "
                f"needs {expected}"
            )

    @functools.cached_property
    def _folder(self) -> Path:
        """The folder of the model's files, downloaded if it is not in the hub's cache."""
        if self.path:
            return Path(self.path)
        return hub.download(self.model, self.revision, _FILES)

    @property
    def _place(self) -> str:
        """The model in messages."""
        return self.path or f"{self.model} at {self.revision}"

    @property
    def _frames(self) -> int:
        """The frames that the model was trained with."""
        frames = getattr(self._config, "num_frames", None)
        frames = frames or getattr(self._config, "frames_per_clip", None)
        if frames is None:
            raise InputError(f"{self._place}: no video model, its config has no number of frames")
        return int(frames)

    @property
    def fixed_window(self) -> bool:
        """Whether the model takes no other number of frames."""
        return self._config.model_type not in _ANY_WINDOW

    @functools.cached_property
    def version(self) -> str:
        """The model's type, and a hash of its files."""
        weights = sorted(self._folder.glob("*.safetensors"))
        if not weights:
            raise InputError(
                f"{self._place}: no weights, expected *.safetensors; pickled ones are not opened"
                + ("" if self.path else " (the hub may offer them at a revision=refs/pr/NUMBER)")
            )
        for index in self._folder.glob("*.safetensors.index.json"):
            parts = set(files.read_json(index).get("weight_map", {}).values())
            if missing := sorted(parts - {path.name for path in weights}):
                raise InputError(f"{self._place}: no {missing[0]}, which {index.name} lists")
        settings = [self._folder / "config.json", self._processor]
        return f"{self._config.model_type} {hash_files([*settings, *weights])}"

    @property
    def dim(self) -> int:
        """The number of features."""
        return int(self._config.hidden_size)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the model's input frames."""
        side = getattr(self._config, "image_size", None) or self._config.crop_size
        height, width = (side, side) if isinstance(side, int) else side
        return int(height), int(width)

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Computes the features `[N, D]` of windows, uint8 `[N, window, H, W, 3]`."""
        import torch  # pyright: ignore[reportMissingImports]

        model, name, settings = self._model
        scale, shift = self._pixels
        parts = []
        for start in range(0, len(windows), _BATCH):
            pixels = windows[start : start + _BATCH] * scale + shift
            inputs = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 2)))
            with torch.inference_mode():
                outputs = model(**{name: inputs.to(model.device)}, **settings)
                parts.append(outputs.last_hidden_state.mean(1).float().cpu().numpy())
        return np.concatenate(parts)

    @functools.cached_property
    def _config(self) -> Any:
        try:
            from transformers import AutoConfig  # pyright: ignore[reportAttributeAccessIssue]
        except ImportError as error:
            raise InputError(
                'backbone transformers: not installed; run pip install "tal_jax[transformers]"'
            ) from error
        try:
            config = AutoConfig.from_pretrained(
                self._folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{self._place}: no readable model ({files.reason_of(error)})"
            ) from error
        if not hasattr(config, "hidden_size"):
            raise InputError(
                f"{self._place}: a {config.model_type} model; expected one of videos alone"
            )
        return config

    @functools.cached_property
    def _model(self) -> tuple[Any, str, dict[str, bool]]:
        """Returns the model, the name of its argument of pixels, and its other arguments."""
        import torch  # pyright: ignore[reportMissingImports]
        from transformers import AutoModel  # pyright: ignore[reportAttributeAccessIssue]

        model = AutoModel.from_pretrained(
            self._folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = model.float().eval().to(device)
        known = inspect.signature(model.forward).parameters
        name = next((n for n in ("pixel_values_videos", "pixel_values") if n in known), None)
        if name is None:
            raise InputError(
                f"{self._place}: a {self._config.model_type} model has no argument of videos"
            )
        # The predictor of V-JEPA is only for training.
        return model, name, {"skip_predictor": True} if "skip_predictor" in known else {}

    @property
    def _processor(self) -> Path:
        for name in _PROCESSORS:
            if (self._folder / name).is_file():
                return self._folder / name
        raise InputError(
            f"{self._place}: no {_PROCESSORS[1]}, expected it for the normalisation of pixels"
        )

    @functools.cached_property
    def _pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns scale and shift of the bytes of red, green and blue."""
        settings = files.read_json(self._processor)
        scale = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
        shift = -1.0 if settings.get("offset") and settings.get("do_rescale", True) else 0.0
        mean, deviation = np.zeros(3), np.ones(3)
        if settings.get("do_normalize", True):
            try:
                mean, deviation = np.array(settings["image_mean"]), np.array(settings["image_std"])
            except KeyError as error:
                raise InputError(f"{self._processor}: no {error}, expected it") from error
        return (
            np.broadcast_to(scale / deviation, 3).astype(np.float32),
            np.broadcast_to((shift - mean) / deviation, 3).astype(np.float32),
        )

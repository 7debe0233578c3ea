"""Tiny video models of the real classes of `transformers`, with random weights, on disk."""

import json
from pathlib import Path

import numpy as np
import pytest

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SIDE = 32


def models():
    """Names of tiny models; each makes its config."""
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2}
    mae = {"intermediate_size": 40, "image_size": SIDE, "patch_size": 16, "num_frames": 8}
    return {
        "videomae": lambda: transformers.VideoMAEConfig(**small, **mae),
        "vjepa2": lambda: transformers.VJEPA2Config(
            **small,
            crop_size=SIDE,
            patch_size=16,
            frames_per_clip=4,
            pred_hidden_size=24,
            pred_num_attention_heads=2,
            pred_num_hidden_layers=1,
        ),
        "vivit": lambda: transformers.VivitConfig(
            **small,
            intermediate_size=40,
            image_size=SIDE,
            num_frames=4,
            tubelet_size=[2, 16, 16],
        ),
        "timesformer": lambda: transformers.TimesformerConfig(
            **small, intermediate_size=40, image_size=SIDE, patch_size=16, num_frames=4
        ),
        "videoprism_vision_model": lambda: transformers.VideoPrismVisionConfig(
            hidden_size=24,
            num_attention_heads=2,
            intermediate_size=40,
            image_size=SIDE,
            num_frames=4,
            tubelet_size=[1, 16, 16],
            num_spatial_layers=1,
            num_temporal_layers=1,
        ),
    }


NAMES = ("videomae", "vjepa2", "vivit", "timesformer", "videoprism_vision_model")


CLASSIFIERS = ("videomae", "vjepa2", "vivit", "timesformer")


def save(folder, name, dtype=None, classifier=False, **processor):
    """Writes a model of random weights, as `save_pretrained` does; returns the model."""
    torch = pytest.importorskip("torch")
    make = models()[name]
    import transformers

    torch.manual_seed(0)
    kind = transformers.AutoModelForVideoClassification if classifier else transformers.AutoModel
    model = kind.from_config(make()).eval()
    if dtype is not None:
        model = model.to(getattr(torch, dtype))
    model.save_pretrained(folder)
    told = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    told |= {"image_mean": MEAN.tolist(), "image_std": DEVIATION.tolist()} | processor
    (Path(folder) / "preprocessor_config.json").write_text(json.dumps(told))
    return model

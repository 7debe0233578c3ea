"""Video models with random weights, saved to disk and used as backbones."""

import sys

import numpy as np
import pytest
import video_models

from tal_jax.data.manifest import read_manifest
from tal_jax.extraction import extract_folder, grid_of, open_backbone

SIDE = video_models.SIDE
MEAN, DEVIATION = video_models.MEAN, video_models.DEVIATION


def pixels_of(count, window, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, window, SIDE, SIDE, 3), np.uint8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", video_models.NAMES)
def test_what_a_model_itself_gives(tmp_path, name):
    model = video_models.save(tmp_path, name)
    import torch

    backbone = open_backbone("transformers", path=tmp_path, fps=10, stride=2)
    frames = 8 if name == "videomae" else 4
    assert (backbone.window, backbone.size, backbone.dim) == (frames, (SIDE, SIDE), 24)
    assert backbone.version.startswith(f"{name} sha256:")
    assert grid_of(backbone).to_dict() == {
        "fps": 10.0,
        "stride_frames": 2.0,
        "window_frames": float(frames),
    }
    windows = pixels_of(5, backbone.window)  # more than one batch, the last one not full
    got = backbone(windows)
    assert got.shape == (5, 24) and got.dtype == np.float32

    values = torch.tensor((windows / 255 - MEAN) / DEVIATION, dtype=torch.float32)
    with torch.inference_mode():
        want = model(values.permute(0, 1, 4, 2, 3)).last_hidden_state
    assert want.ndim == 3
    np.testing.assert_allclose(got, want.mean(1).numpy(), rtol=1e-4, atol=1e-5)
    assert np.abs(got[0] - got[1]).max() > 1e-4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", video_models.CLASSIFIERS)
def test_a_classifier_gives_the_features_below_its_head(tmp_path, name):
    """Published models often are classifiers; a network loaded without its weights would differ."""
    model = video_models.save(tmp_path, name, classifier=True)
    import torch

    backbone = open_backbone("transformers", path=tmp_path)
    windows = pixels_of(2, backbone.window)
    values = torch.tensor((windows / 255 - MEAN) / DEVIATION, dtype=torch.float32)
    with torch.inference_mode():
        want = model.base_model(values.permute(0, 1, 4, 2, 3)).last_hidden_state.mean(1)
    np.testing.assert_allclose(backbone(windows), want.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_weights_of_half_precision_give_single(tmp_path):
    video_models.save(tmp_path, "videomae", dtype="bfloat16")
    got = open_backbone("transformers", path=tmp_path)(pixels_of(2, 8))
    assert got.dtype == np.float32 and np.isfinite(got).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "processor, scale, shift",
    [
        ({"do_normalize": False}, 1 / 255, 0),
        ({"do_normalize": False, "rescale_factor": 1 / 127.5, "offset": True}, 1 / 127.5, -1),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, 2 / 255, -1),
        ({"do_rescale": False, "image_mean": [2] * 3, "image_std": [4] * 3}, 0.25, -0.5),
    ],
)
def test_how_pixels_count(tmp_path, processor, scale, shift):
    model = video_models.save(tmp_path, "videomae", **processor)
    import torch

    windows = pixels_of(1, 8)
    values = torch.tensor(windows * scale + shift, dtype=torch.float32).permute(0, 1, 4, 2, 3)
    with torch.inference_mode():
        want = model(values).last_hidden_state.mean(1).numpy()
    got = open_backbone("transformers", path=tmp_path)(windows)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_from_videos_to_features(tmp_path):
    pytest.importorskip("av")
    video_models.save(tmp_path / "model", "videomae")
    import filming

    for name, frames in (("a", 60), ("b", 20)):
        filming.film(tmp_path / f"{name}.mp4", range(frames))
    backbone = open_backbone("transformers", path=tmp_path / "model")
    videos = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    found = extract_folder(videos, tmp_path / "out", backbone)
    assert not found.failed
    manifest = read_manifest(tmp_path / "out")
    # 2.4 and 0.8 s in steps of 4 frames at 8 a second
    assert [manifest.recordings[name].snippets for name in "ab"] == [5, 2]
    again = open_backbone(manifest.backbone, **manifest.options)
    assert again == backbone and again.version == manifest.version
    assert np.load(tmp_path / "out" / "a.npy").shape == (5, 24)

    # Other weights in the same place are another backbone.
    weights = tmp_path / "model" / "config.json"
    weights.write_text(weights.read_text() + "\n")
    with pytest.raises(ValueError, match="out: features of another kind: version is videomae"):
        extract_folder(videos, tmp_path / "out", open_backbone("transformers", **manifest.options))


@pytest.mark.filterwarnings("ignore")
def test_windows_of_other_lengths(tmp_path):
    for name in ("vjepa2", "videomae"):
        video_models.save(tmp_path / name, name)
    backbone = open_backbone("transformers", path=tmp_path / "vjepa2", window=6)
    assert backbone(pixels_of(2, 6)).shape == (2, 24) and not backbone.fixed_window
    for name, window, message in (
        ("vjepa2", 5, "a vjepa2 model needs a multiple of 2"),
        ("videomae", 16, "a videomae model needs 8 .fps changes their rate"),
    ):
        with pytest.raises(ValueError, match=message):
            open_backbone("transformers", path=tmp_path / name, window=window)


def test_folders_that_hold_no_model(tmp_path):
    with pytest.raises(ValueError, match="no config.json; expected a saved model"):
        open_backbone("transformers", path=tmp_path / "none")
    pytest.importorskip("transformers")
    config = tmp_path / "config.json"
    for content, message in (
        ('{"model_type": "no such"}', "no readable model"),
        ("{", "no readable model"),
        ('{"model_type": "bert"}', "no video model, its config has no number of frames"),
        ('{"model_type": "videomae"}', "no weights, expected"),
    ):
        config.write_text(content)
        with pytest.raises(ValueError, match=message) as error:
            open_backbone("transformers", path=tmp_path)
        assert "\n" not in str(error.value)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="no preprocessor_config.json"):
        open_backbone("transformers", path=tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ValueError, match="no 'image_mean'"):
        open_backbone("transformers", path=tmp_path)


def test_without_the_package(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r'pip install "tal_jax\[transformers\]"'):
        open_backbone("transformers", path=tmp_path)

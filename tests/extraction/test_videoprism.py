"""The adapter of VideoPrism.

Where the package is installed, a tiny network of its real class is used. Elsewhere a stand-in with
the documented calls shows that the adapter makes them as documented, and that clocks, batches,
scaling and types are right; it cannot show that the package is as its documentation says.
"""

import sys
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tal_jax.extraction import grid_of, open_backbone

DIM, FRAMES, SIDE = 8, 4, 36


class StandIn(nn.Module):
    """Tokens of patches, called as VideoPrism's networks are."""

    model_dim: int = DIM
    pos_emb_shape: tuple[int, int, int] = (FRAMES, 2, 2)
    with_text: bool = False

    @nn.compact
    def __call__(self, inputs, *texts, train):
        assert inputs.dtype == jnp.float32 and inputs.shape[-1] == 3 and train is False
        tokens = nn.Conv(self.model_dim, (1, 18, 18), strides=(1, 18, 18))(inputs)
        tokens = tokens.reshape(len(inputs), -1, self.model_dim)
        if self.with_text:
            assert texts == (None, None)
            return tokens.max(1), None, {}
        assert texts == ()
        return tokens, {}


def networks():
    """A network for video, and one for video and text, by their names."""
    try:
        from videoprism import encoders
    except ImportError:
        return {"videoprism_tiny": StandIn(), "videoprism_lvt_tiny": StandIn(with_text=True)}
    sizes = {"patch_size": 18, "pos_emb_shape": (FRAMES, 2, 2), "model_dim": DIM, "num_heads": 2}
    sizes |= {"num_spatial_layers": 1, "num_temporal_layers": 1, "mlp_dim": 8, "scan": True}
    text = {"num_auxiliary_layers": 1, "vocabulary_size": 9, "enable_causal_atten": True}
    text |= {"num_unimodal_layers": 1, "norm_policy": "pre"}
    return {
        "videoprism_tiny": encoders.FactorizedEncoder(**sizes, atten_logit_cap=50.0),
        "videoprism_lvt_tiny": encoders.FactorizedVideoCLIP(**sizes, **text, atten_logit_cap=50.0),
    }


@pytest.fixture
def package(tmp_path, monkeypatch):
    """`videoprism.models` with its two calls, the weights of tiny networks, and what was loaded."""
    known, loaded = networks(), []
    pixels = jnp.zeros((1, FRAMES, SIDE, SIDE, 3))

    def load(model_name, checkpoint_path=None, checkpoints=None):
        del checkpoints
        loaded.append((model_name, checkpoint_path))
        words = (None, None) if "lvt" in model_name else ()
        return known[model_name].init(jax.random.key(0), pixels, *words, train=False)

    module = types.ModuleType("videoprism.models")
    module.get_model, module.load_pretrained_weights = known.__getitem__, load
    parent = types.ModuleType("videoprism")
    parent.models = module
    monkeypatch.setitem(sys.modules, "videoprism", parent)
    monkeypatch.setitem(sys.modules, "videoprism.models", module)
    (tmp_path / "weights.npz").write_bytes(b"weights")
    return tmp_path / "weights.npz", loaded


@pytest.mark.parametrize("model", ["videoprism_tiny", "videoprism_lvt_tiny"])
@pytest.mark.slow
def test_what_the_network_itself_gives(package, model):
    path, loaded = package
    backbone = open_backbone("videoprism", path=path, model=model)
    assert (backbone.window, backbone.dim, backbone.size) == (FRAMES, DIM, (288, 288))
    assert backbone.version.startswith(f"{model} sha256:")
    assert grid_of(backbone).window_frames == FRAMES
    assert not loaded  # not before they are needed

    shape = (6, FRAMES, SIDE, SIDE, 3)  # more than one batch, the last one not full
    windows = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    got = backbone(windows)
    assert got.shape == (6, DIM) and got.dtype == np.float32
    assert loaded == [(model, str(path))]

    network = networks()[model]
    words = (None, None) if "lvt" in model else ()
    pixels = windows.astype(np.float32) / 255
    weights = network.init(jax.random.key(0), pixels[:1], *words, train=False)
    want = np.asarray(network.apply(weights, pixels, *words, train=False)[0])
    want = want if want.ndim == 2 else want.mean(1)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    backbone(windows[:1])
    assert len(loaded) == 1


def test_bad_options(package):
    path, _ = package
    with pytest.raises(ValueError, match="no model 'videoprism_huge'"):
        open_backbone("videoprism", path=path, model="videoprism_huge")
    with pytest.raises(ValueError, match="no such file, expected VideoPrism's weights"):
        open_backbone("videoprism", path=path.with_name("none.npz"))


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "videoprism", None)
    (tmp_path / "weights.npz").write_bytes(b"")
    with pytest.raises(ValueError, match="not installed; see https://github.com/google-deepmind"):
        open_backbone("videoprism", path=tmp_path / "weights.npz")

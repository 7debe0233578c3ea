"""Operations of tal_jax inside other models: docs/ops.md shows the parts, a test runs them all."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import tal_jax as tal


# --8<-- [start:plain]
def video_loss(weights, features, where, labels):
    """Multiple-instance learning on one recording: [D, C], [T, D], [T], [C] -> []."""
    cas = jax.nn.sigmoid(features @ weights)  # class activation sequence [T, C]
    video = tal.topk_mean(cas, 8, where=where)  # [C], masked snippets never count
    return -jnp.mean(labels * jnp.log(video) + (1 - labels) * jnp.log1p(-video))


def batch_loss(weights, features, where, labels):
    """The same for a padded batch: every op is written for one recording, `vmap` batches it."""
    return jax.vmap(video_loss, in_axes=(None, 0, 0, 0))(weights, features, where, labels).mean()


update = jax.jit(jax.value_and_grad(batch_loss))
# --8<-- [end:plain]


# --8<-- [start:nnx]
class Refine(nnx.Module):
    """Feature reassignment as a Flax NNX layer: [T, D] -> [T, D]."""

    def __init__(self, dim: int, num_prototypes: int, *, rngs: nnx.Rngs):
        init = nnx.initializers.xavier_uniform()
        self.prototypes = nnx.Param(init(rngs.params(), (num_prototypes, dim)))

    def __call__(self, features, where=None):
        """`where` [T] is True on the valid snippets."""
        return tal.reassign(features, self.prototypes[...], gamma=5.0, where=where).features


# --8<-- [end:nnx]


# --8<-- [start:equinox]
class Localizer(eqx.Module):
    """An Equinox model that returns scored segments: [T, D] and [N, 2] -> [N]."""

    linear: eqx.nn.Linear

    def __init__(self, dim: int, *, key: jax.Array):
        self.linear = eqx.nn.Linear(dim, "scalar", key=key)

    def __call__(self, features, segments):
        """`segments` are half-open, in snippets."""
        actionness = jax.nn.sigmoid(jax.vmap(self.linear)(features))  # [T]
        scores = tal.inner_outer_contrast(actionness, segments)  # OIC score of each segment
        return tal.soft_nms(segments, scores, sigma=0.5)


# --8<-- [end:equinox]


# --8<-- [start:scan]
def refine_prototypes(features, prototypes, *, num_iters: int):
    """EM iterations as a `lax.scan`, with the prototypes of every iteration: [I, K, D]."""

    def iteration(prototypes, _):
        assignments = tal.assign_prototypes(features, prototypes, gamma=5.0)
        prototypes = tal.update_prototypes(features, assignments, prototypes, omega=0.5)
        return prototypes, prototypes

    return jax.lax.scan(iteration, prototypes, length=num_iters)[1]


# --8<-- [end:scan]


# --8<-- [start:shard_map]
def label_on_all_devices(scores, action_seeds, background_seeds):
    """Optimal sequences of a batch [B, T], each device searching its own recordings."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))

    def on_one_device(*shard):
        return jax.vmap(tal.optimal_sequence)(*shard).labels

    in_specs = (P("data"), P("data"), P("data"))
    mapped = jax.shard_map(on_one_device, mesh=mesh, in_specs=in_specs, out_specs=P("data"))
    return jax.jit(mapped)(scores, action_seeds, background_seeds)


# --8<-- [end:shard_map]


# --8<-- [start:bfloat16]
def contrast_of_bfloat16(scores, segments):
    """bfloat16 scores are summed in float32: positions beyond 256 stay exact."""
    return tal.inner_outer_contrast(scores.astype(jnp.bfloat16), segments)


# --8<-- [end:bfloat16]


# --8<-- [start:labels]
def pseudo_labels(cas, background, points):
    """From points to dense labels: [T, C], [T], [T, C] bool -> [T, C] bool."""
    seeds = tal.mine_seeds(background, points)
    per_class = jax.vmap(tal.optimal_sequence, in_axes=(1, 1, None), out_axes=-1)
    return per_class(cas, seeds.action, seeds.background).labels


# --8<-- [end:labels]


def main() -> None:
    """Runs every example and checks something that must hold."""
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(4, 300, 16)), jnp.float32)
    where = jnp.arange(300) < jnp.array([300, 250, 120, 300])[:, None]
    labels = jnp.eye(4, 3)

    loss, gradient = update(jnp.zeros((16, 3)), features, where, labels)
    changed = jnp.where(where[..., None], features, 1e6)
    assert loss == update(jnp.zeros((16, 3)), changed, where, labels)[0]
    assert gradient.shape == (16, 3)

    refine = Refine(16, 8, rngs=nnx.Rngs(0))
    refined = nnx.jit(refine)(features[0])
    gradients = nnx.grad(lambda module: module(features[0]).sum())(refine)
    assert refined.shape == (300, 16) and jnp.abs(gradients.prototypes[...]).max() > 0

    segments = jnp.array([[10, 20], [10, 21], [200, 260]])
    model = Localizer(16, key=jax.random.key(0))
    scores = eqx.filter_jit(model)(features[0], segments)
    assert scores.shape == (3,)

    prototypes = jax.jit(refine_prototypes, static_argnames="num_iters")(
        features[0], refine.prototypes[...], num_iters=3
    )
    result = tal.reassign(features[0], refine.prototypes[...], gamma=5.0, omega=0.5, num_iters=3)
    np.testing.assert_allclose(prototypes[-1], result.prototypes, rtol=1e-5, atol=1e-6)

    cas = jnp.asarray(rng.uniform(size=(4, 300)), jnp.float32)
    at = jnp.arange(300)
    action = jnp.broadcast_to((at == 50) | (at == 200), (4, 300))
    background = jnp.broadcast_to((at == 0) | (at == 120) | (at == 299), (4, 300))
    sharded = label_on_all_devices(cas, action, background)
    alone = jax.jit(jax.vmap(tal.optimal_sequence))(cas, action, background).labels
    np.testing.assert_array_equal(sharded, alone)

    whole = tal.inner_outer_contrast(cas[0], segments)
    np.testing.assert_allclose(contrast_of_bfloat16(cas[0], segments), whole, atol=4e-3)

    points = jnp.stack([at == 50, at == 200], axis=1)
    dense = jax.jit(pseudo_labels)(jnp.stack([cas[0], cas[1]], axis=1), 1 - cas[2], points)
    assert dense[50, 0] and dense[200, 1] and not dense[200, 0]


if __name__ == "__main__":
    main()

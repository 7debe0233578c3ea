"""The assembled RSMP loss of a network whose embedding is given, for tests on batches by hand."""

import jax
import jax.numpy as jnp

from tal_jax.losses import rsmp

TOPK_RATIO, DELTA, TEMPERATURE = 8.0, 0.25, 0.2


def losses(logits, features, batch, pseudo, select):
    """All parts of the loss: logits `[M, B, N, C + 1]`, features `[M, B, N, W]` of M branches."""
    batch = jax.tree.map(jnp.asarray, batch)
    segments = rsmp.sequence_segments(batch, pseudo)
    compared = rsmp.compared_segments(batch, segments)
    embeddings = jnp.einsum("bsn,mbnw->mbsw", compared.weights, features)
    return rsmp.rsmp_losses(
        logits,
        embeddings,
        batch,
        pseudo,
        segments,
        compared,
        topk_ratio=TOPK_RATIO,
        delta=DELTA,
        select=select,
        temperature=TEMPERATURE,
    )


compiled = jax.jit(losses, static_argnames="select")

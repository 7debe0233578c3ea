"""The detector as a second stage: what its anchors learn in partly done recordings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tal_jax.data import packing
from tal_jax.data import timeline as timelines
from tal_jax.data.clock import Grid
from tal_jax.data.recordings import Recording
from tal_jax.methods import detector
from tal_jax.models.detector import Detector
from tal_jax.ops import anchors as anchor_ops

GRID = Grid(fps=1, stride_frames=1, window_frames=1)  # a snippet a second


@pytest.mark.parametrize("segment", [None, (9.5, 13.0), (0.0, 3.0)])
def test_negatives_are_known_or_hold_a_background_point(segment):
    """Of a recording of 18 snippets, padded to 22, and by the network to 24."""
    length, levels, done, background = 18, 3, [(3.0, 9.0), (14.0, 18.0)], (10.5,)
    recording = Recording(
        "r",
        np.zeros((length, 2), np.float32),
        GRID,
        float(length),
        background_s=background,
        done_s=tuple(done),
    )
    packed = packing.pack_timeline([recording], length=length)
    packed = timelines.with_features(packed, packing.pack_features([recording]))
    batch = timelines.resample_batch(jax.tree.map(jnp.asarray, packed), 22)
    known = list(done)
    if segment is not None:  # beside one that is padding
        segments = jnp.asarray([[segment, (0.0, 18.0)]])
        where = jnp.asarray([[True, False]])
        batch = dataclasses.replace(batch, segments=segments, segment_where=where)
        known.append((np.ceil(segment[0]), segment[1]))  # snippets that are wholly in it
    model = Detector(num_classes=1, width=4, num_levels=levels, dropout=0.0)
    got = np.asarray(detector._background_anchors(model, batch))[0]
    anchors = anchor_ops.pyramid_anchors(24, num_levels=levels)
    for at, (time, stride) in enumerate(zip(anchors.times, anchors.strides, strict=True)):
        first, last = int(time - stride / 2), int(time + stride / 2)
        # Beyond the end nothing is unknown.
        whole = all(
            any(start <= snippet < end for start, end in known) or snippet >= length
            for snippet in range(first, last)
        )
        assert got[at] == (whole or first <= background[0] < last), (time, stride)

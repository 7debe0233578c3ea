"""A page for labelling in the browser: one point label for each action."""

from tal_jax.studio.server import LabelServer, open_server

__all__ = ["LabelServer", "open_server"]

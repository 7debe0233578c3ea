"""A page in the browser on which a person clicks one instant an action, for training."""

from tal_jax.studio.server import LabelServer, open_server

__all__ = ["LabelServer", "open_server"]

# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""The methods by name. A further one takes a network, a module like `hamnet`, and a config."""

from tal_jax.methods import detector, hamnet, rsmp
from tal_jax.methods.base import Config, Method, Metrics, Trainable

METHODS: dict[str, Method] = {"rsmp": rsmp.METHOD, "hamnet": hamnet.METHOD}


def method_of(config: Config) -> Method:
    """The method of a config."""
    return METHODS[config.method]


def trainable_of(config: Config) -> Trainable:
    """What a config trains: its method, or the detector of the second stage."""
    return detector.METHOD if config.method == "detector" else method_of(config)


__all__ = ["METHODS", "Config", "Method", "Metrics", "Trainable", "method_of", "trainable_of"]

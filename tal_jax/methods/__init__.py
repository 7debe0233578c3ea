# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""The methods by name. A further one takes a network, a module like `hamnet`, and a config."""

from tal_jax.methods import hamnet, rsmp
from tal_jax.methods.base import Config, Method, Metrics

METHODS: dict[str, Method] = {"rsmp": rsmp.METHOD, "hamnet": hamnet.METHOD}


def method_of(config: Config) -> Method:
    """The method of a config."""
    return METHODS[config.method]


__all__ = ["METHODS", "Config", "Method", "Metrics", "method_of"]

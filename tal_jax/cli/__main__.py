"""`python -m tal_jax.cli` runs the command `tal-jax`."""

from tal_jax.cli import run

run()

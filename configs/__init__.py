"""Run configs, one module each, installed as `tal_jax.configs`."""

"""Settings that all tests share."""

import hypothesis

# Compilation makes the first example of a test slow, and no test writes outside its own folder.
hypothesis.settings.register_profile("tal_jax", deadline=None, database=None)
hypothesis.settings.load_profile("tal_jax")

"""`python -m tal_jax.cli` runs the command `tal-jax`."""

import sys

from tal_jax.cli import main

sys.exit(main())

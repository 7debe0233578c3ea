"""Shows what a run did: one page to explore, one picture for a README."""

from tal_jax.report.html import write_report
from tal_jax.report.pictures import write_picture

__all__ = ["write_picture", "write_report"]

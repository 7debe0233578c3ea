"""Raw recordings, videos and tables of sensor samples, become snippet features."""

from tal_jax.extraction.tables import Table, read_table, regular

__all__ = ["Table", "read_table", "regular"]

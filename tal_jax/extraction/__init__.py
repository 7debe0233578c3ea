"""Raw recordings, videos and tables of sensor samples, become snippet features."""

from tal_jax.extraction.tables import Table, read_table, regular
from tal_jax.extraction.video import VideoInfo, probe, read_frames

__all__ = ["Table", "VideoInfo", "probe", "read_frames", "read_table", "regular"]

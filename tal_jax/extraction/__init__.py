"""Extracts snippet features from raw recordings: videos, and tables of sensor samples."""

from tal_jax.extraction.backbones import BACKBONES, Backbone, grid_of, open_backbone
from tal_jax.extraction.folder import (
    Summary,
    extract_file,
    extract_folder,
    find_recordings,
    is_video,
    read_samples,
    stream_features,
)
from tal_jax.extraction.tables import Table, read_table, regular
from tal_jax.extraction.video import VideoInfo, probe, read_frames

__all__ = [
    "BACKBONES",
    "Backbone",
    "Summary",
    "Table",
    "VideoInfo",
    "extract_file",
    "extract_folder",
    "find_recordings",
    "grid_of",
    "is_video",
    "open_backbone",
    "probe",
    "read_frames",
    "read_samples",
    "read_table",
    "regular",
    "stream_features",
]

"""Extracts snippet features from raw recordings: videos, and tables of samples or keypoints."""

from tal_jax.extraction.backbones import (
    BACKBONES,
    Backbone,
    grid_of,
    open_backbone,
    reopen_backbone,
)
from tal_jax.extraction.folder import (
    Summary,
    extract_file,
    extract_folder,
    find_recordings,
    is_video,
    read_keypoints,
    read_samples,
    recording_name,
    stream_features,
)
from tal_jax.extraction.recommendation import recommend
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
    "read_keypoints",
    "read_samples",
    "recording_name",
    "read_table",
    "recommend",
    "regular",
    "reopen_backbone",
    "stream_features",
]

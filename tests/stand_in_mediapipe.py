"""A package that stands for MediaPipe: its landmarks are the outline of a bright figure."""

from pathlib import Path

_VERSION = "9.9.9"
_FILES = {
    f"mediapipe-{_VERSION}.dist-info/METADATA": (
        f"Metadata-Version: 2.1\nName: mediapipe\nVersion: {_VERSION}\n"
    ),
    "mediapipe/__init__.py": """
import collections, enum

Image = collections.namedtuple("Image", "image_format data")

class ImageFormat(enum.Enum):
    SRGB = 1
""",
    "mediapipe/tasks/__init__.py": "",
    "mediapipe/tasks/python/__init__.py": """
class BaseOptions:
    def __init__(self, model_asset_buffer):
        assert model_asset_buffer
""",
    "mediapipe/tasks/python/vision.py": """
import enum, types
import numpy as np

class RunningMode(enum.Enum):
    VIDEO = 1

class PoseLandmarkerOptions:
    def __init__(self, base_options, running_mode, num_poses):
        self.num_poses = num_poses

class PoseLandmarker:
    def __init__(self, options):
        self.options, self.last_ms = options, -1

    @classmethod
    def create_from_options(cls, options):
        return cls(options)

    def detect_for_video(self, image, time_ms):
        assert time_ms > self.last_ms, "times have to increase"
        self.last_ms = time_ms
        height, width, _ = image.data.shape
        bright = image.data.min(-1) > 125
        rows = np.flatnonzero(bright.sum(1) > 3)
        if len(rows) < 33:
            return types.SimpleNamespace(pose_landmarks=[])
        marks = []
        for k, row in enumerate(rows[np.linspace(0, len(rows) - 1, 33).astype(int)]):
            x = np.flatnonzero(bright[row])[0 if k % 2 else -1]
            mark = types.SimpleNamespace(x=x / width, y=row / height, visibility=0.9)
            marks.append(mark)
        return types.SimpleNamespace(pose_landmarks=[marks][: self.options.num_poses])

    def close(self):
        self.last_ms = float("inf")
""",
}


def install(folder):
    """Writes the package into a folder, for `sys.path`."""
    for name, text in _FILES.items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

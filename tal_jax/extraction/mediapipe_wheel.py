"""The pose networks inside the wheel of mediapipe 0.10.21, as a `.task` for later versions.

Later wheels carry no networks. This one is on PyPI, for machines that reach a package registry and
nothing else; the networks are those of `pose_landmarker_full.task` (Apache-2.0).
"""

import io
import os
import zipfile
from collections.abc import Collection
from typing import Any

import numpy as np

_MODULES = "mediapipe/modules/"
# Of each network: its name in a `.task`, and the mean and deviation of bytes that it expects.
_NETWORKS = {
    "pose_detection/pose_detection.tflite": ("pose_detector.tflite", 127.5, 127.5),
    "pose_landmark/pose_landmark_full.tflite": ("pose_landmarks_detector.tflite", 0.0, 255.0),
}


def holds_networks(names: Collection[str]) -> bool:
    """Whether the files of an archive are those of the wheel."""
    return all(_MODULES + name in names for name in _NETWORKS)


def pose_task(wheel: str | os.PathLike) -> bytes:
    """Makes the content of a `.task` from the wheel: its networks, with their metadata."""
    task = io.BytesIO()
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(task, "w") as target:
        for place, (name, mean, deviation) in _NETWORKS.items():
            network = source.read(_MODULES + place)
            target.writestr(name, _with_normalization(network, mean, deviation))
    return task.getvalue()


def _with_normalization(network: bytes, mean: float, deviation: float) -> bytes:
    """Adds how pixels are normalised, which older versions of the package held in their code."""
    import flatbuffers
    from mediapipe.tasks.metadata import (  # pyright: ignore[reportMissingImports]
        metadata_schema_py_generated as schema,
    )
    from mediapipe.tasks.metadata import (  # pyright: ignore[reportMissingImports]
        schema_py_generated as tflite,
    )

    unit = schema.ProcessUnitT()
    unit.optionsType = schema.ProcessUnitOptions.NormalizationOptions
    unit.options = schema.NormalizationOptionsT()
    unit.options.mean, unit.options.std = [mean], [deviation]
    image: Any = schema.TensorMetadataT()
    image.name, image.processUnits = "image", [unit]
    image.content = schema.ContentT()
    image.content.contentPropertiesType = schema.ContentProperties.ImageProperties
    image.content.contentProperties = schema.ImagePropertiesT()
    image.content.contentProperties.colorSpace = schema.ColorSpaceType.RGB
    graph = schema.SubGraphMetadataT()
    graph.inputTensorMetadata = [image]
    metadata = schema.ModelMetadataT()
    metadata.subgraphMetadata, metadata.minParserVersion = [graph], "1.0.0"
    builder = flatbuffers.Builder(0)
    builder.Finish(metadata.Pack(builder), b"M001")

    model: Any = tflite.ModelT.InitFromObj(tflite.Model.GetRootAs(network, 0))
    content: Any = tflite.BufferT()
    content.data = np.frombuffer(bytes(builder.Output()), np.uint8)
    entry = tflite.MetadataT()
    entry.name, entry.buffer = "TFLITE_METADATA", len(model.buffers)
    model.buffers.append(content)
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(len(network))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())

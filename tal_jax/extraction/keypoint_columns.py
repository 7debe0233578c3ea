"""Finds joints among the columns of a table by the names that programs give to coordinates.

`nose_x`, `nose.y`, `Head X`, `x_nose`, `HipCenter_Z`, `noseX`, `landmark_0_x`, `x0 y0 z0 v0`, and
with them `nose_likelihood`, `nose.score`, `landmark_0_visibility`. Several animals are numbered in
front: `mouse1_nose_x`, `mouse2_nose_x`.
"""

import dataclasses
import re
from collections.abc import Sequence

AXES = ("x", "y", "z")
# Names of a joint's confidence, the first that a joint has counts.
_CONFIDENCE = (
    *("likelihood", "confidence", "conf", "score", "visibility", "vis", "probability", "prob"),
    *(
        "certainty",
        "presence",
        "trackingstate",
        "tracking_state",
        "tracked",
        "state",
        "c",
        "v",
        "p",
    ),
)
_COORDINATES = AXES + _CONFIDENCE
_SEPARATOR = r"[ _.:/|\-]"
_ENDS = re.compile(
    rf"(?P<joint>.+?){_SEPARATOR}*[\[(]?(?<![a-zA-Z])(?P<of>{'|'.join(_COORDINATES)})[\])]?",
    re.IGNORECASE,
)
_CAMEL = re.compile(r"(?P<joint>.*[a-z0-9])(?P<of>[XYZ])")
_BEGINS = re.compile(
    rf"(?P<of>{'|'.join(_COORDINATES)})(?:{_SEPARATOR}+(?P<joint>.+)|(?P<number>\d+))",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"channel_(\d+)")
# What has coordinates and is no position.
_NO_POSITION = re.compile(
    r".*(rot|rotation|ori|orientation|quat|quaternion|vel|velocity|acc|acceleration|error|angle|"
    r"std|sd|var)",
    re.IGNORECASE,
)
_ANIMAL = re.compile(
    r"((?:animal|mouse|rat|fly|fish|bird|monkey|person|subject|individual|ind|track|player|"
    rf"human|skeleton|body|instance|id){_SEPARATOR}?\d+){_SEPARATOR}+(.+)",
    re.IGNORECASE,
)
_FRAME = re.compile(
    r"frames?[ _]?(idx|id|index|no|nr|num|number|count|#)?\.?|fnum|image[ _]?(id|index|number)",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Found:
    """The joints of a table: for each animal and joint, the columns of its coordinates."""

    animals: tuple[str, ...]
    joints: tuple[str, ...]
    dims: int
    columns: dict[tuple[str, str, str], str]  # animal, joint, "x" ... or "confidence": a column
    others: tuple[str, ...]  # columns without a joint


def is_frame_number(name: str) -> bool:
    """Whether a column's name is that of the numbers of frames."""
    return _FRAME.fullmatch(name.strip()) is not None


def split_name(name: str) -> tuple[str, str] | None:
    """Splits the name of a column into a joint and "x", "y", "z" or a word for confidence.

    >>> split_name("left_hip_x"), split_name("x0"), split_name("SpineBaseY"), split_name("max")
    (('left_hip', 'x'), ('joint_0', 'x'), ('SpineBase', 'y'), None)
    """
    match = _ENDS.fullmatch(name) or _CAMEL.fullmatch(name) or _BEGINS.fullmatch(name)
    if match is None:
        return None
    parts = match.groupdict()
    joint = parts["joint"] or f"joint_{parts['number']}"
    joint = joint.strip(" _.:/|-")
    if joint.isdigit():
        joint = f"joint_{joint}"
    if not joint or _NO_POSITION.fullmatch(joint):
        return None
    return joint, parts["of"].lower()


def find_joints(names: Sequence[str]) -> Found | None:
    """Finds the joints among the names of columns; None if there are none.

    Columns `channel_1`, ... without other names are joints in triples or else in pairs.
    """
    if all(_NUMBERED.fullmatch(name) for name in names) and names:
        return _numbered(names)
    coordinates: dict[str, dict[str, str]] = {}
    for name in names:
        split = split_name(name.strip())
        if split is not None:
            coordinates.setdefault(split[0], {}).setdefault(split[1], name)
    has = {j: [axis for axis in AXES if axis in own] for j, own in coordinates.items()}
    joints = [joint for joint, axes in has.items() if axes[:2] == ["x", "y"]]
    if not joints:
        return None
    dims = 3 if sum(len(has[joint]) == 3 for joint in joints) * 2 > len(joints) else 2
    joints = [joint for joint in joints if len(has[joint]) >= dims]
    animals, of = _split_animals(joints)
    columns = {}
    for joint in joints:
        own = coordinates[joint]
        columns |= {(*of[joint], axis): own[axis] for axis in AXES[:dims]}
        confidence = next((own[word] for word in _CONFIDENCE if word in own), None)
        if confidence is not None:
            columns[(*of[joint], "confidence")] = confidence
    used = set(columns.values())
    others = tuple(name for name in names if name not in used)
    return Found(animals, tuple(dict.fromkeys(j for _, j in of.values())), dims, columns, others)


def _numbered(names: Sequence[str]) -> Found | None:
    dims = next((d for d in (3, 2) if len(names) % d == 0), None)
    if dims is None:
        return None
    joints = tuple(f"joint_{i}" for i in range(len(names) // dims))
    columns = {
        ("animal", joint, axis): names[dims * i + k]
        for i, joint in enumerate(joints)
        for k, axis in enumerate(AXES[:dims])
    }
    return Found(("animal",), joints, dims, columns, ())


def _split_animals(joints: Sequence[str]) -> tuple[tuple[str, ...], dict[str, tuple[str, str]]]:
    """Splits `mouse1_nose` into animal and joint, if every animal has the same joints."""
    split = {joint: _ANIMAL.fullmatch(joint) for joint in joints}
    if all(split.values()):
        of = {joint: match.groups() for joint, match in split.items() if match is not None}
        animals = tuple(dict.fromkeys(animal for animal, _ in of.values()))
        parts = [{part for one, part in of.values() if one == animal} for animal in animals]
        if all(part == parts[0] for part in parts):
            return animals, {joint: (a, b) for joint, (a, b) in of.items()}
    return ("animal",), {joint: ("animal", joint) for joint in joints}

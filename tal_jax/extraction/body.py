"""The frame of a body: which joints give its centre, its axes and its size.

Roles are found by the names that trackers use, else from the motion of the joints: two joints at a
constant distance turn with the body. They are settled once for all recordings, so that the same
joint has the same part in each.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.keypoints import Keypoints

UPRIGHT = ("x", "y", "z", "-x", "-y", "-z")
NONE = "none"

_LEFT, _RIGHT = {"left", "l", "lft"}, {"right", "r", "rgt"}
# Joints that programs number: MediaPipe's pose and hand.
_NUMBERED = {
    33: {"hip": (23, 24), "shoulder": (11, 12)},
    21: {"wrist": (0,), "middle": (9,), "index": (5,), "pinky": (17,)},
}
# A pair of joints is part of a rigid body if its length varies by less than this.
_RIGID = 0.15
# A vertical within 37 degrees of an axis of the coordinates is that axis.
_SNAP = 0.8


@dataclasses.dataclass(frozen=True)
class Body:
    """The roles of joints; each is a tuple of names, and the body has no such axis if empty."""

    center: tuple[str, ...]  # their mean is the origin
    axis: tuple[tuple[str, ...], tuple[str, ...]] | None  # from the tail to the head of the trunk
    side: tuple[tuple[str, ...], tuple[str, ...]] | None  # from left to right
    # The vertical of the coordinates, about which bodies turn; "none": they turn in any way.
    up: str


# --- options as text ---


def parse_direction(text: str, name: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Reads `a,b>c`: from the mean of joints a and b to joint c; None for "none".

    >>> parse_direction("hip_l,hip_r>neck", "axis")
    (('hip_l', 'hip_r'), ('neck',))
    """
    if text == NONE:
        return None
    ends = [split_names(part) for part in text.split(">")]
    if len(ends) != 2 or not all(ends):
        raise InputError(f"{name} is {text!r}; expected joints as in {name}=tail>nose, or none")
    return ends[0], ends[1]


def split_names(text: str) -> tuple[str, ...]:
    """Splits names at commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def direction_text(direction: tuple[tuple[str, ...], tuple[str, ...]] | None) -> str:
    """Writes what `parse_direction` reads."""
    return NONE if direction is None else ">".join(",".join(end) for end in direction)


# --- roles by name ---


def words_of(name: str) -> list[str]:
    """Splits a joint's name into lower-case words, the side as `left` or `right`.

    >>> words_of("LHip"), words_of("HipCenter"), words_of("rightear"), words_of("tail_base")
    (['left', 'hip'], ['hip', 'center'], ['right', 'ear'], ['tail', 'base'])
    """
    words = [w.lower() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]
    words = [part for word in words for part in _split_side(word)]
    return ["left" if w in _LEFT else "right" if w in _RIGHT else w for w in words]


_PARTS = (
    "hip hips ear eye shoulder elbow wrist knee ankle foot hand paw forepaw hindpaw toe heel leg arm "
    "wing antenna side front rear back fore hind"
).split()


def _split_side(word: str) -> list[str]:
    """Splits `leftear` and `rhip`."""
    for side in ("left", "right", "l", "r"):
        rest = word.removeprefix(side)
        if rest != word and rest in _PARTS:
            return [side, rest]
        rest = word.removesuffix(side)
        if len(side) > 1 and rest and rest != word:
            return [rest, side]
    compound = re.fullmatch(
        r"(tail|mid|body|spine|hip|head)(base|root|hip|back|end|center|centre|start)", word
    )
    return list(compound.groups()) if compound else [word]


class _Names:
    """Looks up joints by their words."""

    def __init__(self, joints: Sequence[str]):
        self.words = {joint: set(words_of(joint)) for joint in joints}

    def having(self, *words: str, but: Iterable[str] = ("left", "right")) -> tuple[str, ...]:
        """Joints whose names have all of the words and none of the others."""
        return tuple(
            joint
            for joint, own in self.words.items()
            if own.issuperset(words) and own.isdisjoint(but)
        )

    def first(self, *choices: str) -> tuple[str, ...]:
        """The joint of the first choice (words with spaces between) that has one, without side."""
        for choice in choices:
            wanted = choice.split()
            found = [j for j in self.having(*wanted) if len(self.words[j]) == len(wanted)]
            if found:
                return (found[0],)
        return ()

    def pair(self, *words: str) -> tuple[tuple[str], tuple[str]] | None:
        """The left and the right joint with a word, the shortest names first."""
        for word in words:
            left, right = (
                sorted(self.having(side, word, but=()), key=lambda joint: len(self.words[joint]))
                for side in ("left", "right")
            )
            if left and right:
                return (left[0],), (right[0],)
        return None


def _by_name(joints: Sequence[str]) -> dict[str, object] | None:
    """The roles of the joints of a person, a hand or an animal, by their names."""
    names = _Names(joints)
    numbers = [words_of(joint) for joint in joints]
    if len(joints) in _NUMBERED and all(w[:1] == ["landmark"] and len(w) == 2 for w in numbers):
        roles = {k: tuple(joints[i] for i in v) for k, v in _NUMBERED[len(joints)].items()}
        if "hip" in roles:
            return _person(
                roles["hip"],
                tuple((j,) for j in roles["hip"]),
                roles["shoulder"],
                tuple((j,) for j in roles["shoulder"]),
            )
        return _hand(roles["wrist"], roles["middle"], roles["index"], roles["pinky"])
    hips, shoulders = names.pair("hip", "upleg"), names.pair("shoulder", "arm")
    middle = names.first(
        "pelvis", "hip center", "hip centre", "mid hip", "hips", "spine base", "root", "hip"
    ) or (hips[0] + hips[1] if hips else ())
    top = (
        shoulders[0] + shoulders[1]
        if shoulders
        else names.first("shoulder center", "shoulder centre", "spine shoulder", "thorax", "neck")
    )
    if middle and top and (hips or shoulders):
        return _person(middle, hips, top, shoulders)
    fingers = [names.having(f, but=()) for f in ("index", "middle", "pinky", "ring", "thumb")]
    wrist = (
        names.first("wrist", "palm", "hand", "palm center", "palm position")
        or (names.having("wrist", but=()) or names.having("palm", but=()))[:1]
    )
    if wrist and sum(map(bool, fingers)) >= 3 and fingers[0] and (fingers[2] or fingers[3]):
        base = [_base(f) for f in fingers]
        return _hand(wrist, base[1] or base[0], base[0], base[2] or base[3])
    return _animal(names)


def _base(finger: Sequence[str]) -> tuple[str, ...]:
    """The joint of a finger that is nearest to the palm."""
    for mark in ("base", "mcp", "metacarpal", "knuckle", "proximal", "1", "0"):
        found = [joint for joint in finger if mark in words_of(joint)]
        if found:
            return (found[0],)
    return tuple(finger[:1])


def _person(middle, hips, top, shoulders) -> dict[str, object]:
    left = tuple(j for pair in (hips, shoulders) if pair for j in pair[0])
    right = tuple(j for pair in (hips, shoulders) if pair for j in pair[1])
    return {"kind": "a person", "center": middle, "axis": (middle, top), "side": (left, right)}


def _hand(wrist, middle, index, pinky) -> dict[str, object]:
    # Index and little finger span the palm: which is left depends on the hand.
    return {"kind": "a hand", "center": wrist, "axis": (wrist, middle), "side": (index, pinky)}


def _animal(names: _Names) -> dict[str, object] | None:
    tail = names.first(
        "tail base", "tail root", "base tail", "tail start", "tail set", "tail", "abdomen", "hips",
        "hip", "pelvis", "rump",
    )  # fmt: skip
    ears = names.pair("ear", "eye", "shoulder")
    head = names.first("neck", "head", "nape", "throat", "snout", "nose", "thorax", "withers") or (
        ears[0] + ears[1] if ears else ()
    )
    middle = names.first(
        "body center", "body centre", "center", "centre", "centroid", "mid back", "mid body",
        "body", "back", "spine", "thorax", "mid",
    )  # fmt: skip
    if not (tail and head) or tail == head:
        return None
    sides = names.pair("hip", "shoulder", "ear", "eye")
    return {
        "kind": "an animal",
        "center": middle or tail + head,
        "axis": (tail, head),
        "side": sides,
    }


# --- roles by motion ---


def _by_motion(positions: np.ndarray, joints: Sequence[str], up: np.ndarray | None):
    """A direction between two joints at a constant distance, at a right angle to the vertical."""
    lengths, spread, level = _pairs(positions, up)
    size = _spread(positions)
    quality = lengths / (spread + 0.05 * size) * np.where(lengths > 0.1 * size, level, 0)
    quality[~np.isfinite(quality)] = 0
    first, second = np.unravel_index(np.argmax(np.triu(quality, 1)), quality.shape)
    if quality[first, second] == 0:
        return None, False
    rigid = spread[first, second] < _RIGID * lengths[first, second]
    return ((joints[first],), (joints[second],)), bool(rigid)


def _pairs(positions: np.ndarray, up: np.ndarray | None):
    """Median length, its spread, and the mean sine to the vertical, of each pair of joints."""
    between = positions[:, :, None] - positions[:, None]
    length = np.linalg.norm(between, axis=-1)
    low, median, high = np.nanpercentile(length, [16, 50, 84], axis=0)
    level = np.ones_like(median)
    if up is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            cosine = np.nanmean(np.abs(between @ up) / length, axis=0)
        level = np.clip(1 - cosine, 0, 1) ** 2
    return median, (high - low) / 2, level


def _spread(positions: np.ndarray) -> float:
    """The median over time of the joints' root mean square distance from their mean."""
    centred = positions - np.nanmean(positions, axis=1, keepdims=True)
    return float(np.nanmedian(np.sqrt(np.nanmean((centred**2).sum(-1), axis=1))))


def _vertical_of(direction: np.ndarray) -> str | None:
    """The axis of the coordinates near a direction, such as "y" or "-z"; None if there is none."""
    axis = int(np.argmax(np.abs(direction)))
    if not abs(direction[axis]) > _SNAP * np.linalg.norm(direction):
        return None
    return UPRIGHT[axis + 3 * bool(direction[axis] < 0)]


def _vertical_by_spread(positions: np.ndarray) -> str | None:
    """The axis that differs most from the two others: the longest of a person who stands, the
    shortest of an animal on the floor."""
    centred = positions - np.nanmean(positions, axis=1, keepdims=True)
    extent = np.sort(np.nanmean(centred**2, axis=(0, 1)))
    order = np.argsort(np.nanmean(centred**2, axis=(0, 1)))
    extent = np.maximum(extent, 1e-12 * extent[-1])
    longest, shortest = extent[2] / extent[1], extent[1] / extent[0]
    if max(longest, shortest) < 1.3:
        return None
    return UPRIGHT[order[2] if longest >= shortest else order[0]]


def vertical(up: str, dims: int) -> np.ndarray | None:
    """The unit vector of `up`."""
    if up == NONE:
        return None
    vector = np.zeros(dims)
    vector["xyz".index(up[-1])] = -1.0 if up[0] == "-" else 1.0
    return vector


# --- the choice ---

_FRAMES = 2000  # that roles are found from


def choose_body(
    keypoints: Keypoints, *, center: str = "", axis: str = "", side: str = "", up: str = ""
) -> tuple[Body, tuple[str, ...]]:
    """Chooses the joints that give a body's centre, axes and size, by name or else by motion.

    Args:
      keypoints: of one recording; its first animal with joints decides.
      center: joints whose mean is the centre, with commas; "" to choose.
      axis: `tail>head`, the trunk; "" to choose, "none" for none.
      side: `left>right`; "" to choose, "none" for none.
      up: "x", "-y", ..., the vertical about which bodies turn; "none" where they turn in any way.

    Returns:
      The roles, and notes on what was chosen.

    Raises:
      InputError: if an option names no joint, or no axis of the coordinates.
    """
    joints, dims = keypoints.joints, keypoints.dims
    positions = _sample(keypoints)
    named = _by_name(joints)
    roles = named or {}
    kind = str(roles.get("kind", ""))
    if up not in ("", NONE, *(u for u in UPRIGHT if u[-1] in "xyz"[:dims])):
        raise InputError(
            f"up is {up!r}; expected {', '.join('xyz'[:dims])}, each with - or not, or none"
        )
    chosen_axis = parse_direction(axis, "axis") if axis else roles.get("axis")
    chosen_side = parse_direction(side, "side") if side else roles.get("side")
    if not up:
        up = _guess_up(keypoints, positions, kind, chosen_axis)
    rigid = False
    if named is None and not axis and not side:
        found, rigid = _by_motion(positions, joints, vertical(up, dims))
        if dims == 3 and up != NONE:
            chosen_side = found
        else:
            chosen_axis = found
            if dims == 3 and found is not None:
                chosen_side = _second(positions, joints, found)
    if center:
        chosen_center = joints if center == "all" else split_names(center)
    elif named is not None:
        chosen_center = roles["center"]
    else:
        pair = chosen_side or chosen_axis
        chosen_center = pair[0] + pair[1] if rigid and pair else joints
    body = Body(tuple(chosen_center), chosen_axis, chosen_side, up)
    check_body(body, joints)
    return body, _describe(body, kind, joints)


def _guess_up(keypoints, positions, kind, axis) -> str:
    dims = keypoints.dims
    if kind == "a hand":
        return NONE
    if dims == 2:
        # Cameras stand upright, and so do people; animals are filmed from above.
        return "y" if kind == "a person" else NONE
    if kind == "a person" and axis is not None:
        trunk = _mean_of(positions, keypoints.joints, axis[1]) - _mean_of(
            positions, keypoints.joints, axis[0]
        )
        return _vertical_of(np.nanmedian(trunk, axis=0)) or _vertical_by_spread(positions) or NONE
    return _vertical_by_spread(positions) or NONE


def _second(positions, joints, first):
    """Another direction, across the first one, for a frame that turns in any way."""
    a, b = joints.index(first[0][0]), joints.index(first[1][0])
    along = positions[:, b] - positions[:, a]
    along = along / np.linalg.norm(along, axis=-1, keepdims=True)
    between = positions[:, :, None] - positions[:, None]
    lengths, spread, _ = _pairs(positions, None)
    cosine = np.nanmean(
        np.abs(np.einsum("nijd,nd->nij", between, along))
        / (np.linalg.norm(between, axis=-1) + 1e-12),
        axis=0,
    )
    size = _spread(positions)
    quality = lengths / (spread + 0.05 * size) * np.clip(1 - cosine, 0, 1) ** 2
    quality = np.triu(np.where(np.isfinite(quality), quality, 0), 1)
    i, j = np.unravel_index(np.argmax(quality), quality.shape)
    return ((joints[i],), (joints[j],)) if quality[i, j] > 0 else None


def _sample(keypoints: Keypoints) -> np.ndarray:
    """Up to some frames `[m, J, dims]` of the animal with the most joints found."""
    animal = int(np.argmax(np.isfinite(keypoints.positions).sum((0, 2, 3))))
    found = keypoints.positions[:, animal]
    found = found[np.isfinite(found).any((1, 2))]
    if not len(found):
        raise InputError("no joint is found in any frame; expected positions")
    return found[np.linspace(0, len(found) - 1, min(_FRAMES, len(found))).astype(int)]


def _mean_of(positions: np.ndarray, joints: Sequence[str], names: Sequence[str]) -> np.ndarray:
    return positions[:, [joints.index(name) for name in names]].mean(1)


def check_body(body: Body, joints: Sequence[str]) -> None:
    """Raises an InputError for a role that names no joint."""
    for what, direction in (
        ("center", (body.center, ())),
        ("axis", body.axis),
        ("side", body.side),
    ):
        for name in () if direction is None else direction[0] + direction[1]:
            if name not in joints:
                raise InputError(
                    f"{what} names the joint {name!r}; expected one of {', '.join(joints)}"
                )


def _describe(body: Body, kind: str, joints: Sequence[str]) -> tuple[str, ...]:
    center = "all joints" if body.center == tuple(joints) else ",".join(body.center)
    how = f"by the names of {kind}" if kind else "from the motion of the joints"
    return (
        f"body frame {how}: center={center}, axis={direction_text(body.axis)}, "
        f"side={direction_text(body.side)}, up={body.up}",
    )

"""The frame of a body: which joints give its centre, its axes and its size.

Roles are found by the names that trackers use, else from the motion of the joints: two joints at a
constant distance turn with the body. They are settled once for all recordings, so that the same
joint has the same part in each.
"""

import dataclasses
import re
import warnings
from collections.abc import Iterable, Sequence

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.keypoints import Keypoints

Ends = tuple[tuple[str, ...], tuple[str, ...]]  # of a direction: from some joints to others

UPRIGHT = ("x", "y", "z", "-x", "-y", "-z")
NONE = "none"
# What the axes of the features turn with.
TURNS = ("body", "recording", NONE)

_LEFT, _RIGHT = {"left", "l", "lft"}, {"right", "r", "rgt"}
# Joints that programs number: MediaPipe's pose and hand.
_NUMBERED: dict[int, dict[str, tuple[int, ...]]] = {
    33: {"hip": (23, 24), "shoulder": (11, 12)},
    21: {"wrist": (0,), "middle": (9,), "index": (5,), "pinky": (17,)},
}
# A pair of joints is part of a rigid body if its length varies by less than this.
_RIGID = 0.15
# A vertical within 37 degrees of an axis of the coordinates is that axis.
_SNAP = 0.8
# Joints whose distances from each other are features; more would crowd out the rest.
_ENDS = 7


@dataclasses.dataclass(frozen=True)
class Body:
    """The roles of joints, by their names."""

    center: tuple[str, ...]  # their mean is the origin
    axis: Ends | None  # from the tail to the head of the trunk, whose length is the size
    side: Ends | None  # from left to right
    # The vertical of the coordinates, about which bodies turn; "none": they turn in any way.
    up: str
    # The axes turn with the "body" in every frame; are its mean axes of a "recording", for bodies
    # that keep facing the camera; or are those of the coordinates, "none".
    turn: str
    bones: tuple[tuple[str, str], ...]  # a tree over the joints
    ends: tuple[str, ...]  # far from each other: hands, feet, head, tips of fingers


# --- options as text ---


def parse_direction(text: str, name: str) -> Ends | None:
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


def direction_text(direction: Ends | None) -> str:
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
    "hip hips ear eye shoulder elbow wrist knee ankle foot hand paw forepaw hindpaw toe heel leg "
    "arm wing antenna side front rear back fore hind"
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


@dataclasses.dataclass(frozen=True)
class _Roles:
    kind: str  # of the body, "" if its joints have no known names
    center: tuple[str, ...]
    axis: Ends | None
    side: Ends | None


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


def _by_name(joints: Sequence[str]) -> _Roles | None:
    """The roles of the joints of a person, a hand or an animal; None without known names."""
    return _numbered(joints) or _person(_Names(joints)) or _hand(joints) or _animal(_Names(joints))


def _numbered(joints: Sequence[str]) -> _Roles | None:
    words = [words_of(joint) for joint in joints]
    if len(joints) not in _NUMBERED or any(w[:1] != ["landmark"] or len(w) != 2 for w in words):
        return None
    at = {
        role: tuple(joints[number] for number in numbers)
        for role, numbers in _NUMBERED[len(joints)].items()
    }
    if "hip" in at:
        hips, shoulders = at["hip"], at["shoulder"]
        side = (hips[0], shoulders[0]), (hips[1], shoulders[1])
        return _Roles("a person", hips, (hips, shoulders), side)
    return _Roles("a hand", at["wrist"], (at["wrist"], at["middle"]), (at["index"], at["pinky"]))


def _person(names: _Names) -> _Roles | None:
    hips, shoulders = names.pair("hip", "upleg"), names.pair("shoulder", "arm")
    middle = names.first(
        "pelvis", "hip center", "hip centre", "mid hip", "hips", "spine base", "root", "hip"
    ) or (hips[0] + hips[1] if hips else ())
    top = (
        shoulders[0] + shoulders[1]
        if shoulders
        else names.first("shoulder center", "shoulder centre", "spine shoulder", "thorax", "neck")
    )
    if not (middle and top and (hips or shoulders)):
        return None
    if names.first("tail base", "tail root", "tail", "snout", "tail set", "withers"):
        return None  # an animal with hips and shoulders
    left, right = (
        tuple(joint for pair in (hips, shoulders) if pair for joint in pair[k]) for k in (0, 1)
    )
    return _Roles("a person", middle, (middle, top), (left, right))


def _hand(joints: Sequence[str]) -> _Roles | None:
    names = _Names(joints)
    index, middle, pinky, ring, thumb = (
        names.having(finger, but=()) for finger in ("index", "middle", "pinky", "ring", "thumb")
    )
    pinky = pinky or names.having("little", but=()) or ring
    wrist = names.first("wrist", "palm", "hand", "palm center", "palm position") or (
        names.having("wrist", but=()) or names.having("palm", but=())
    )
    if not (wrist and index and pinky and (middle or thumb)):
        return None
    # Index and little finger span the palm: which of them is left depends on the hand.
    side = _base(index), _base(pinky)
    return _Roles("a hand", wrist[:1], (wrist[:1], _base(middle or index)), side)


def _base(finger: Sequence[str]) -> tuple[str, ...]:
    """The joint of a finger that is nearest to the palm."""
    for mark in ("base", "mcp", "metacarpal", "knuckle", "proximal", "1", "0"):
        found = [joint for joint in finger if mark in words_of(joint)]
        if found:
            return (found[0],)
    return tuple(finger[:1])


def _animal(names: _Names) -> _Roles | None:
    tail = names.first(
        *("tail base", "tail root", "base tail", "tail start", "tail set", "tail", "abdomen"),
        *("hips", "hip", "pelvis", "rump"),
    )
    ears = names.pair("ear", "eye", "shoulder")
    head = names.first("neck", "head", "nape", "throat", "snout", "nose", "thorax", "withers") or (
        ears[0] + ears[1] if ears else ()
    )
    middle = names.first(
        *("body center", "body centre", "center", "centre", "centroid", "mid back", "mid body"),
        *("body", "back", "spine", "thorax", "mid"),
    )
    if not tail or not head or tail == head:
        return None
    sides = names.pair("hip", "shoulder", "ear", "eye")
    return _Roles("an animal", middle or tail + head, (tail, head), sides)


# --- roles by motion ---


def _by_motion(positions: np.ndarray, joints: Sequence[str], up: np.ndarray | None) -> _Roles:
    """The roles of joints without known names.

    With a vertical, `side` is the longest rigid connection across it, as between the shoulders.
    Without one, `axis` is the longest, and `side` the longest across that.
    """
    first, rigid = _longest_rigid(positions, joints, up)
    if first is None:
        return _Roles("", tuple(joints), None, None)
    center = first[0] + first[1] if rigid else tuple(joints)
    if up is not None:
        return _Roles("", center, None, first)
    side = None
    if positions.shape[-1] == 3:
        along = _mean_of(positions, joints, first[1]) - _mean_of(positions, joints, first[0])
        side, _ = _longest_rigid(positions, joints, along)
    return _Roles("", center, first, side)


def _longest_rigid(
    positions: np.ndarray, joints: Sequence[str], across: np.ndarray | None
) -> tuple[Ends | None, bool]:
    """The direction between two joints at a constant distance, and whether that is constant.

    It is at a right angle to `across`, a vector or one of each frame.
    """
    lengths, spread, sine = _pairs(positions, across)
    size = _spread(positions)
    quality = lengths / (spread + 0.05 * size) * sine**2
    quality[~((lengths > 0.1 * size) & np.isfinite(quality))] = 0
    quality = np.triu(quality, 1)
    i, j = divmod(int(np.argmax(quality)), len(joints))
    if quality[i, j] <= 0:
        return None, False
    return ((joints[i],), (joints[j],)), bool(spread[i, j] < _RIGID * lengths[i, j])


def _pairs(
    positions: np.ndarray, across: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median length `[J, J]`, half of its spread, and how much each pair is across a direction."""
    between = positions[:, None] - positions[:, :, None]
    length = np.linalg.norm(between, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of joints that are never there
        percentile = np.nanpercentile if np.isnan(length).any() else np.percentile  # 20 × faster
        low, median, high = percentile(length, [16, 50, 84], axis=0)
        level = np.ones_like(median)
        if across is not None:
            unit = across / np.linalg.norm(across, axis=-1, keepdims=True)
            dots = np.einsum("nijd,nd->nij", between, np.broadcast_to(unit, positions[:, 0].shape))
            level = 1 - np.nanmean(np.abs(dots) / length, axis=0)
    return median, (high - low) / 2, np.clip(level, 0, 1)


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

_FRAMES = 500  # that roles are found from


def choose_body(
    keypoints: Keypoints,
    *,
    center: str = "",
    axis: str = "",
    side: str = "",
    up: str = "",
    turn: str = "",
) -> tuple[Body, tuple[str, ...]]:
    """Chooses the joints that give a body's centre, axes and size, by name or else by motion.

    Args:
      keypoints: of one recording; the animal with the most joints decides.
      center: joints whose mean is the centre, with commas, or "all"; "" to choose.
      axis: `tail>head`, the trunk; "" to choose, "none" for none.
      side: `left>right`; "" to choose, "none" for none.
      up: "x", "-y", ..., the vertical of three coordinates, about which bodies turn; "none" where
        they turn in any way.
      turn: what the axes turn with, one of `TURNS`.

    Returns:
      The roles, and a note on what was chosen.

    Raises:
      InputError: if an option names no joint or has no such value, or no joint is ever found.
    """
    joints, dims = keypoints.joints, keypoints.dims
    _check_choice("up", up, (*UPRIGHT, NONE) if dims == 3 else (NONE,))
    _check_choice("turn", turn, TURNS)
    positions = _sample(keypoints)
    named = _by_name(joints)
    roles = named or _Roles("", joints, None, None)
    if axis:
        roles = dataclasses.replace(roles, axis=parse_direction(axis, "axis"))
    if side:
        roles = dataclasses.replace(roles, side=parse_direction(side, "side"))
    up = up or _guess_up(positions, joints, roles)
    if named is None and not axis and not side:
        roles = _by_motion(positions, joints, vertical(up, dims))
    chosen = joints if center == "all" else split_names(center) if center else roles.center
    turn = turn or _guess_turn(roles, dims)
    check_roles(chosen, roles, joints)
    bones = find_bones(positions, joints)
    ends = _ends(positions, joints, bones, chosen[0])
    body = Body(tuple(chosen), roles.axis, roles.side, up, turn, bones, ends)
    return body, (describe_body(body, joints),)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value and value not in choices:
        raise InputError(f"{name} is {value!r}; expected one of {', '.join(choices)}")


def _guess_up(positions: np.ndarray, joints: Sequence[str], roles: _Roles) -> str:
    if positions.shape[-1] == 2 or roles.kind == "a hand":
        return NONE
    if roles.kind == "a person" and roles.axis is not None:
        trunk = _mean_of(positions, joints, roles.axis[1]) - _mean_of(
            positions, joints, roles.axis[0]
        )
        named = _vertical_of(np.nanmedian(trunk, axis=0))
        if named is not None:
            return named
    return _vertical_by_spread(positions) or NONE


def _guess_turn(roles: _Roles, dims: int) -> str:
    """Hands face the camera; people in pictures stand upright, animals are filmed from above."""
    if roles.kind == "a hand":
        return "recording"
    return NONE if roles.kind == "a person" and dims == 2 else "body"


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


def find_bones(positions: np.ndarray, joints: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The tree over the joints of the shortest and most rigid connections (Prim)."""
    length, spread, _ = _pairs(positions, None)
    cost = np.nan_to_num(length + 4 * spread, nan=np.inf)
    nearest, parent = cost[0].copy(), np.zeros(len(joints), int)
    inside, bones = np.arange(len(joints)) == 0, []
    for _ in range(len(joints) - 1):
        new = int(np.argmin(np.where(inside, np.inf, np.nan_to_num(nearest, posinf=1e300))))
        bones.append((joints[parent[new]], joints[new]))
        inside[new] = True
        closer = cost[new] < nearest
        nearest[closer], parent[closer] = cost[new][closer], new
    return tuple(bones)


def _ends(
    positions: np.ndarray, joints: Sequence[str], bones: Sequence[tuple[str, str]], center: str
) -> tuple[str, ...]:
    """The centre, and leaves of the tree of bones: from one to the next the farthest from all."""
    length = np.nan_to_num(_pairs(positions, None)[0])
    degree = [sum(name in bone for bone in bones) for name in joints]
    leaves = np.array(degree) < 2
    chosen = [joints.index(center)]
    leaves[chosen] = False
    while leaves.any() and len(chosen) < _ENDS:
        chosen.append(int(np.argmax(np.where(leaves, length[chosen].min(0), -1))))
        leaves[chosen] = False
    return tuple(joints[i] for i in chosen)


def check_roles(center: Sequence[str], roles: "_Roles | Body", joints: Sequence[str]) -> None:
    """Raises an InputError for a role that names no joint."""
    for what, ends in (("center", (tuple(center),)), ("axis", roles.axis), ("side", roles.side)):
        for name in (name for end in ends or () for name in end):
            if name not in joints:
                raise InputError(
                    f"{what} names the joint {name!r}; expected one of {', '.join(joints)}"
                )


def describe_body(body: Body, joints: Sequence[str]) -> str:
    """The line that names the roles, as options."""
    center = "all" if body.center == tuple(joints) else ",".join(body.center)
    named = _by_name(joints)
    how = "no known names, by the motion of the joints" if named is None else named.kind
    return (
        f"body ({how}): center={center} axis={direction_text(body.axis)} "
        f"side={direction_text(body.side)} up={body.up} turn={body.turn}"
    )

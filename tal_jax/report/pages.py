"""Fills the templates of the HTML pages; encodes curves as text."""

import base64
import json
import math
import re
from collections.abc import Collection, Mapping
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from tal_jax.data import files

_FOLDER = resources.files("tal_jax.report")
_SCRIPT = re.compile(r"\{\{(\w+\.js)\}\}")
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+\.js)";\n', re.MULTILINE)
_COMMENT = re.compile(r"^ */\*\*.*?\*/\n", re.MULTILINE | re.DOTALL)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|let|class) )", re.MULTILINE)
FLAT_CURVE = 0.05  # curves of classes whose scores stay below this are not drawn


def fill_template(name: str, data: Mapping[str, Any]) -> str:
    """Fills a template of this package with data, and with its style and script.

    Args:
      name: the file, which contains `{{data}}`, `{{common.css}}`, and `{{NAME.js}}` for the module
        of this name with all that it imports.
      data: JSON values; NaN and infinity become null.

    Returns:
      The page. Names in the data are escaped, so that they cannot end the script element.
    """
    text = json.dumps(files.without_nan(data), allow_nan=False, separators=(",", ":"))  # ASCII only
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    page = (_FOLDER / name).read_text(encoding="utf-8")
    page = page.replace(
        "{{common.css}}", (_FOLDER / "common.css").read_text(encoding="utf-8").rstrip()
    )
    page = _SCRIPT.sub(lambda found: bundle(found[1]), page)
    return page.replace("{{data}}", text)


def bundle(name: str) -> str:
    """Joins an ES module of this package and those it imports to one script, each once.

    A page that is a single file cannot import. The modules share one scope, so their top-level
    names have to differ. Comments of types are left out.

    Args:
      name: the file, which imports names of other files of this folder: `import {a} from "./b.js"`.
    """
    modules: dict[str, str] = {}

    def add(name: str) -> None:
        if name in modules:
            return
        text = (_FOLDER / name).read_text(encoding="utf-8")
        for imported in _IMPORT.findall(text):
            add(imported)
        for left_out in (_IMPORT, _COMMENT, _EXPORT):
            text = left_out.sub("", text)
        modules[name] = text.strip()

    add(name)
    return "\n\n".join(modules.values())


class Curves(NamedTuple):
    """Score curves of a recording, from 0 to 1, at equally spaced times."""

    cas: np.ndarray  # [T, C]
    other: np.ndarray  # [T], the actionness or the background, which pages call class -1
    start_s: float
    stride_s: float
    always: Collection[int]  # the classes whose curve is drawn even if it is flat


def pack_curves(
    curves: Mapping[str, Curves], most_bytes: int, classes: str, left_out: list[str]
) -> dict[str, dict[str, Any]]:
    """Encodes the curves of recordings as base64 of one byte a value, curve after curve.

    Args:
      curves: of each recording; NaN becomes 0.
      most_bytes: above these, several values are replaced by their maximum.
      classes: name of the classes that are not drawn if they are flat.
      left_out: receives a line for what is left out.

    >>> one = Curves(np.array([[0.0], [1.0]]), np.ones(2), 0.25, 0.5, always=())
    >>> pack_curves({"a": one}, 4, "classes", [])["a"]
    {'start': 0.25, 'stride': 0.5, 'classes': [0, -1], 'data': 'AP///w=='}
    """
    labels = {
        name: [
            label
            for label in range(one.cas.shape[1])
            if label in one.always or (one.cas[:, label] >= FLAT_CURVE).any()
        ]
        for name, one in curves.items()
    }
    num_flat = sum(one.cas.shape[1] - len(labels[name]) for name, one in curves.items())
    num_bytes = sum(len(one.other) * (1 + len(labels[name])) for name, one in curves.items())
    pool = max(1, math.ceil(num_bytes / most_bytes))
    if num_flat:
        left_out.append(f"{num_flat:,} score curves of {classes} that stay below {FLAT_CURVE}")
    if pool > 1:
        left_out.append(f"score curves, except the maximum of every {pool} snippets")
    packed = {}
    for name, one in curves.items():
        columns = np.column_stack([one.cas[:, labels[name]], one.other])
        columns = np.maximum.reduceat(columns, np.arange(0, len(columns), pool))
        rounded = np.round(np.nan_to_num(columns).clip(0, 1) * 255).astype(np.uint8)
        packed[name] = {
            "start": one.start_s + one.stride_s * (pool - 1) / 2,
            "stride": one.stride_s * pool,
            "classes": [*labels[name], -1],
            "data": base64.b64encode(rounded.T.tobytes()).decode(),
        }
    return packed

"""What the HTML pages share: templates filled with data, and curves as text."""

import base64
import json
import math
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np


def fill_template(name: str, data: Mapping[str, Any]) -> str:
    """Puts the data, and what all pages share, into a template of this package.

    Args:
      name: of the template's file; `{{data}}`, `{{common.css}}` and `{{common.js}}` stand in it.
      data: what JSON can hold; NaN and infinity become null.

    Returns:
      The page. The data are JSON that no name in them can end or leave.
    """
    text = json.dumps(_plain(data), allow_nan=False, separators=(",", ":"))  # ASCII only
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    page = _read(name)
    for shared in ("common.css", "common.js"):
        page = page.replace(f"{{{{{shared}}}}}", _read(shared).rstrip())
    return page.replace("{{data}}", text)


def pack_curves(columns: np.ndarray, pool: int = 1) -> str:
    """Writes curves as base64 of one byte a value, curve after curve.

    Args:
      columns: `[T, curves]`, from 0 to 1; what lies beyond is clipped, NaN is 0.
      pool: how many values become one, the highest of them.

    >>> pack_curves(np.array([[0.0], [1.0]]))
    'AP8='
    """
    columns = np.maximum.reduceat(columns, np.arange(0, len(columns), pool))
    rounded = np.round(np.nan_to_num(columns).clip(0, 1) * 255).astype(np.uint8)
    return base64.b64encode(rounded.T.tobytes()).decode()


def _read(name: str) -> str:
    return (resources.files("tal_jax.report") / name).read_text(encoding="utf-8")


def _plain(value: Any) -> Any:
    """The same value with null for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value

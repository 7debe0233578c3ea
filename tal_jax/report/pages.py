"""Fills the templates of the HTML pages; encodes curves as text."""

import base64
import json
import math
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np


def fill_template(name: str, data: Mapping[str, Any]) -> str:
    """Fills a template of this package with data, and with the style and scripts that pages share.

    Args:
      name: the file, which contains `{{data}}`, and `{{NAME}}` for each shared file of this name.
      data: JSON values; NaN and infinity become null.

    Returns:
      The page. Names in the data are escaped, so that they cannot end the script element.
    """
    text = json.dumps(_plain(data), allow_nan=False, separators=(",", ":"))  # ASCII only
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return read_template("tal_jax.report", name).replace("{{data}}", text)


def read_template(package: str, name: str) -> str:
    """Returns a template of a package with the style and scripts that pages share."""
    page = (resources.files(package) / name).read_text(encoding="utf-8")
    for shared in ("common.css", "common.js", "timeline.js"):
        text = (resources.files("tal_jax.report") / shared).read_text(encoding="utf-8")
        page = page.replace(f"{{{{{shared}}}}}", text.rstrip())
    return page


def pack_curves(columns: np.ndarray, pool: int = 1) -> str:
    """Encodes curves as base64 of one byte a value, curve after curve.

    Args:
      columns: `[T, curves]`, clipped to [0, 1]; NaN becomes 0.
      pool: number of values that are replaced by their maximum.

    >>> pack_curves(np.array([[0.0], [1.0]]))
    'AP8='
    """
    columns = np.maximum.reduceat(columns, np.arange(0, len(columns), pool))
    rounded = np.round(np.nan_to_num(columns).clip(0, 1) * 255).astype(np.uint8)
    return base64.b64encode(rounded.T.tobytes()).decode()


def _plain(value: Any) -> Any:
    """The value with None for NaN and infinity, which JSON has no number for."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value

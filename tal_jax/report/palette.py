"""The colours of classes in pages and pictures."""

import colorsys

# The colours of Petroff (2021), chosen for colour-blind readers, without the two greys.
_PALETTE = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#92dadd"),
)
_GOLDEN_RATIO = 0.6180339887


def class_colours(count: int) -> list[str]:
    """Returns a different colour for each class, for light and dark backgrounds.

    Args:
      count: the number of classes.

    Returns:
      `count` colours as `#rrggbb`: a palette for colour-blind readers, then hues a golden angle
      apart.

    >>> class_colours(2)
    ['#3f90da', '#ffa90e']
    """
    hues = [0.27 + i * _GOLDEN_RATIO for i in range(count - len(_PALETTE))]
    further = [
        colorsys.hls_to_rgb(hue % 1, (0.42, 0.62, 0.52)[i % 3], 0.6) for i, hue in enumerate(hues)
    ]
    hexadecimal = ["#" + "".join(f"{round(255 * part):02x}" for part in rgb) for rgb in further]
    return [*_PALETTE[:count], *hexadecimal]

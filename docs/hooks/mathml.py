"""Turns formulas into MathML while the site is built, so that pages need no script to show them."""

import functools
import html
import re

from latex2mathml import converter

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


@functools.cache
def _mathml(latex: str, display: str) -> str:
    return converter.convert(html.unescape(latex), display=display)


def on_page_content(content: str, **_) -> str:
    """Called by MkDocs with the HTML of each page."""
    return _FORMULA.sub(
        lambda match: _mathml(match[3].strip(), "block" if match[2] == "[" else "inline"), content
    )

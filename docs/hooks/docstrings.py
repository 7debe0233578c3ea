"""Adapts docstrings to the site: examples are fenced, and comments of fields become a table."""

import re

import griffe

_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
_COMMENT = re.compile(r"  # (.+)$")


class AdaptDocstrings(griffe.Extension):
    """Applied by mkdocstrings to every object that it loads."""

    def on_object(self, *, obj: griffe.Object, **_) -> None:
        """Called once an object and its docstring are read."""
        if obj.docstring is None:
            return
        # To Markdown alone, `>>>` is a quotation.
        text = _EXAMPLE.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
        if "dataclass" in obj.labels and "Attributes:" not in text:
            text += _fields(obj)
        obj.docstring.value = text


def _fields(dataclass: griffe.Object) -> str:
    """The section "Attributes" from the comments behind a data class's fields."""
    lines = []
    for name, field in dataclass.members.items():
        if field.is_attribute and not field.is_alias and field.annotation is not None:
            comment = _COMMENT.search(field.lines[-1]) if field.lines else None
            if comment:
                lines.append(f"  {name}: {comment[1]}")
    return "\n\nAttributes:\n" + "\n".join(lines) if lines else ""

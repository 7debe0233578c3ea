"""The package, the site and the README use the words of the field: see docs/glossary.md."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Words of the column "do not write" of the glossary, and what may stand around them all the same.
WORDS = {
    r"said|told|tells": [],
    # Flags, and a key of files, keep their names.
    r"laws?": [r"--law\b", r"\blaw=", r"arguments\.law\b", r"\"law\""],
    r"slots?": [r"--slots\b"],
    r"lanes?": [],
    r"rivals?": [],
    r"feeding": [r"benchmarks/feeding\.py"],
    r"streaming": [],
    r"one's own": [],
    r"as (?:it|they) (?:lies?|are laid)": [],
    r"the field's": [],
}

# Where such a word is the right one.
FILE_WORDS = {
    "tal_jax/formats/elan.py": r"slots?",  # what ELAN's files call a time
    "tal_jax/report/pictures.py": r"lanes?",  # rows of a timeline
}

FILES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "docs").rglob("*.py"),
        *(ROOT / "tal_jax").rglob("*.py"),
        *(ROOT / "configs").rglob("*.py"),
    ]
)


def private_words(text: str, right_word: str | None = None) -> list[str]:
    """Lines with a word that is not of the field."""
    found = []
    for word, allowed in WORDS.items():
        if word == right_word:
            continue
        rest = text
        for exception in allowed:
            rest = re.sub(exception, lambda match: " " * len(match[0]), rest)
        for match in re.finditer(rf"(?<![a-z])(?:{word})(?![a-z])", rest, re.IGNORECASE):
            line = text.count("\n", 0, match.start())
            found.append(f"line {line + 1}: {text.splitlines()[line].strip()}")
    return found


def test_finds_words_and_exceptions():
    assert private_words("what the network said\n") == ["line 1: what the network said"]
    assert private_words("points make --law uniform; in parallel, planes, flaws") == []
    assert private_words("time_slot", r"slots?") == [] != private_words("time_slot")
    assert set(FILE_WORDS.values()) <= set(WORDS)
    assert len(private_words("One's own Law\nslot_where, lane\n")) == 4


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_words(path):
    text = path.read_text(encoding="utf-8")
    if path.name == "glossary.md":  # which lists them
        text = text.partition("## Write, do not write")[0]
    assert private_words(text, FILE_WORDS.get(path.relative_to(ROOT).as_posix())) == []

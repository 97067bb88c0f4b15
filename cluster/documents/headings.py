"""Headings of Markdown and reStructuredText, found by their looks.

    # Title        Title      =====
                   =====      Title
                              =====

A `#` comment inside a code block passes for a heading: that moves a cut or two and harms nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

_MARKED = re.compile(r"^#{1,6}[ \t]+\S.*$", re.MULTILINE)
_LINE = re.compile(r"^([=\-~^\"'`*+#.:_<>])\1{2,}[ \t\r]*$", re.MULTILINE)
_MAX_TITLE_CHARS = 200


@dataclass(frozen=True, slots=True)
class Heading:
    """`text[start:end]` is the heading with its lines above and below it."""

    start: int
    end: int
    title: str


def find_headings(text: str) -> list[Heading]:
    """All headings in the order of the text."""
    marked = [
        Heading(found.start(), found.end(), found.group().strip().strip("#").strip())
        for found in _MARKED.finditer(text)
        if len(found.group()) <= _MAX_TITLE_CHARS
    ]
    underlined = [
        heading for line in _LINE.finditer(text) if (heading := _above(text, line)) is not None
    ]
    return sorted(marked + underlined, key=lambda heading: heading.start)


def _above(text: str, line: re.Match[str]) -> Heading | None:
    """What `line` underlines: it must be as long as the title, or else it is a rule."""
    start = _line_start(text, line.start())
    title = text[start : start + _MAX_TITLE_CHARS + 1].split("\n", 1)[0].strip()
    if not any(map(str.isalnum, title)) or len(title) > len(line.group().rstrip()):
        return None
    over = _LINE.match(text, _line_start(text, start), start)
    return Heading(over.start() if over else start, line.end(), title)


def _line_start(text: str, next_line: int) -> int:
    """Where the line before the one at `next_line` begins; `next_line` itself at the top."""
    return text.rfind("\n", 0, max(next_line - 1, 0)) + 1 if next_line else 0


def title_of(text: str, document_id: str) -> str:
    """The first heading, or else the stem of the id."""
    for heading in find_headings(text):
        return heading.title
    return PurePosixPath(document_id).stem

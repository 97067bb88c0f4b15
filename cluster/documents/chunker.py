"""A chunk ends at the best place in reach, so the only question is what is a better place.

    text   |··chunk 0··| |···chunk 1···| |·chunk 2·|      the gaps are blank, nothing overlaps

From the start of a chunk one looks `max_chars` ahead and takes the last cut of the strongest kind
in the second half of that window: before a heading, between paragraphs, sentences, lines, words.
Only a word longer than all that is cut in two. Nothing is cut between a heading and what it stands
over.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from cluster.documents.headings import find_headings
from cluster.retrieval.records import Chunk

_SOLID = re.compile(r"\S")
# Strongest first; a match ends where the next chunk may begin.
_CUTS = (
    re.compile(r"\n[^\S\n]*\n\s*"),  # paragraphs
    re.compile(r"[.!?][\"')\]”’]*\s+|[。！？]\s*"),  # sentences
    re.compile(r"\n\s*"),  # lines
    re.compile(r"\s+"),  # words
)


def chunk_text(text: str, max_chars: int) -> tuple[Chunk, ...]:
    """Cuts at most `max_chars` code points long, in order, covering everything but blanks."""
    return tuple(
        Chunk(ordinal, start, end, text[start:end])
        for ordinal, (start, end) in enumerate(_Cutter(text, max_chars).spans())
    )


class _Cutter:
    def __init__(self, text: str, max_chars: int) -> None:
        self._text = text
        self._max_chars = max_chars
        headings = find_headings(text)
        self._heading_starts = [heading.start for heading in headings]
        # A cut x with start < x <= body belongs to the heading: it may not be made.
        self._bodies = [self._next_solid(heading.end) for heading in headings]

    def spans(self) -> Iterator[tuple[int, int]]:
        start = self._next_solid(0)
        while start < len(self._text):
            cut = self._next_cut(start)
            yield start, start + len(self._text[start:cut].rstrip())
            start = self._next_solid(cut)

    def _next_cut(self, start: int) -> int:
        limit = start + self._max_chars
        if limit >= len(self._text):
            return len(self._text)
        middle = start + max(self._max_chars // 2, 1)
        for cut in self._candidates(middle, limit):
            if not self._splits_heading(cut):
                return cut
        # One long word, or a run of headings, fills the half window: any blank will do.
        blanks = list(self._cuts(_CUTS[-1], start + 1, limit))
        fit = [cut for cut in blanks if not self._splits_heading(cut)] or blanks
        return fit[-1] if fit else limit

    def _candidates(self, middle: int, limit: int) -> Iterator[int]:
        """Cuts between `middle` and `limit`, best first."""
        low = bisect_left(self._heading_starts, middle)
        high = bisect_right(self._heading_starts, limit)
        yield from reversed(self._heading_starts[low:high])
        for kind in _CUTS:
            yield from reversed(list(self._cuts(kind, middle, limit)))

    def _cuts(self, kind: re.Pattern[str], low: int, limit: int) -> Iterator[int]:
        """Looks one character further: if it is blank, the chunk before it is full and fits."""
        for match in kind.finditer(self._text, low, limit + 1):
            cut = match.end()
            if cut <= limit or self._text[limit].isspace():
                yield cut

    def _splits_heading(self, cut: int) -> bool:
        i = bisect_left(self._heading_starts, cut) - 1
        return i >= 0 and cut <= self._bodies[i]

    def _next_solid(self, start: int) -> int:
        found = _SOLID.search(self._text, start)
        return found.start() if found else len(self._text)

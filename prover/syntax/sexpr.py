"""S-expressions with their places. It reads without recursion and refuses what is absurd."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

from prover.errors import Place, SourceError

MOST_BYTES = 1 << 18
MOST_NESTED = 1000

_TOKEN = re.compile(r'[\s]+|;[^\n]*|([()])|\|([^|\\]*)\||("(?:[^"]|"")*")|([^\s();|"]+)')


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """An atom, which has `text`, or a list of `items`. `offset` is where it begins in the file."""

    text: str
    items: tuple[Node, ...]
    offset: int
    is_list: bool = False

    @property
    def head(self) -> str:
        """The atom that a list begins with, or nothing."""
        return self.items[0].text if self.items and not self.items[0].is_list else ""

    def __str__(self) -> str:
        return f"({' '.join(map(str, self.items))})" if self.is_list else self.text


class Source:
    """The text of a file, and where its offsets lie."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.text = text
        self._lines = [0, *(found.end() for found in re.finditer("\n", text))]
        self._refuse_odd_text()

    @classmethod
    def of_bytes(cls, data: bytes, file: str) -> Source:
        start = Place(file, 1, 1)
        if len(data) > MOST_BYTES:
            raise SourceError(f"it is longer than {MOST_BYTES} bytes", start)
        try:
            return cls(data.decode("utf-8-sig"), file)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
            raise SourceError("it is not UTF-8 text", Place(file, line, column)) from None

    def _refuse_odd_text(self) -> None:
        odd = re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", self.text)
        if odd:
            raise self.error(f"control character {ord(odd[0]):#04x}", odd.start())

    def place(self, offset: int) -> Place:
        line = bisect_right(self._lines, offset)
        return Place(self.file, line, offset - self._lines[line - 1] + 1)

    def error(self, message: str, at: Node | int) -> SourceError:
        """An error at a node, with the node as its construct, or at an offset."""
        if isinstance(at, int):
            return SourceError(message, self.place(at))
        return SourceError(message, self.place(at.offset), _excerpt(at))


def _excerpt(node: Node) -> str:
    """The construct in at most a line: a long list is named by what it begins with."""
    if not node.is_list:
        return node.text if len(node.text) <= 60 else node.text[:57] + "..."
    words = [part.text if not part.is_list else "(...)" for part in node.items[:4]]
    return f"({' '.join(words)}{' ...' if len(node.items) > 4 else ''})"


def read(source: Source) -> tuple[Node, ...]:
    """All S-expressions of a file."""
    text, offset = source.text, 0
    opened: list[tuple[int, list[Node]]] = []
    top: list[Node] = []
    current = top
    while offset < len(text):
        token = _TOKEN.match(text, offset)
        if token is None:
            what = "a quoted symbol" if text[offset] == "|" else "a string"
            raise source.error(f"{what} is not closed", offset)
        bracket, quoted, string, atom = token.groups()
        if bracket == "(":
            if len(opened) == MOST_NESTED:
                raise source.error(f"nested deeper than {MOST_NESTED}", offset)
            current = []
            opened.append((offset, current))
        elif bracket == ")":
            if not opened:
                raise source.error("a ) closes nothing", offset)
            start, items = opened.pop()
            current = opened[-1][1] if opened else top
            current.append(Node("", tuple(items), start, True))
        elif (word := quoted if quoted is not None else string or atom) is not None:
            current.append(Node(word, (), offset))
        offset = token.end()
    if opened:
        raise source.error("a ( is never closed", opened[-1][0])
    return tuple(top)

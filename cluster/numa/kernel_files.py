"""How Linux writes facts down in /sys and /proc: short texts, and sets as `0-3,8,10-11`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Five digits: no machine has more cpus, and a torn file cannot ask for a set that fills the memory.
_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)


def read(file: Path) -> str:
    """Raises OSError. Bytes that are no text become characters that nobody expects."""
    return file.read_text(encoding="ascii", errors="replace").strip()


def read_if_there(file: Path) -> str:
    """Empty when there is no such file, or not for this process: kernels differ."""
    try:
        return read(file)
    except OSError:
        return ""


@contextmanager
def naming(place: Path) -> Iterator[None]:
    """Whoever cannot make sense of what is in there says where it was."""
    try:
        yield
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{place}: {error}") from error


def parse_ids(text: str) -> frozenset[int]:
    """Raises ValueError for what Linux would not write."""
    parts = text.strip().split(",") if text.strip() else []
    return frozenset(number for part in parts for number in _range(part))


def _range(part: str) -> range:
    found = _RANGE.fullmatch(part)
    if found is None:
        raise ValueError(f"{part!r} is neither a number nor a range")
    first, last = int(found[1]), int(found[2] or found[1])
    if last < first:
        raise ValueError(f"{part!r} runs backwards")
    return range(first, last + 1)


def format_ids(ids: Iterable[int]) -> str:
    """The shortest text that `parse_ids` reads as these."""
    runs: list[list[int]] = []
    for number in sorted(set(ids)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)

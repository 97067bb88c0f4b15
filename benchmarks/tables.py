"""The tables of the README, made from the results that are committed.

`python -m benchmarks --tables` prints them; a test holds them against the README.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
# Longer ones are for the JSON.
MAX_ROWS = 6


def tables(folder: Path = RESULTS) -> str:
    """Markdown for every result of the folder, in the order of their names."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return "\n\n".join("\n".join(_table(result)) for result in found)


def _table(result: dict[str, Any]) -> Iterator[str]:
    machine = result["machine"]
    yield f"`{result['command']}`, {machine['cores']} cores of {machine['processor']}:"
    yield ""
    rows = result["rows"]
    if len(rows) <= MAX_ROWS:
        yield _line(name.replace("_", " ") for name in rows[0])
        yield _line("---" for _ in rows[0])
        yield from (_line(map(_said, row.values())) for row in rows)
        yield ""
    yield from ("| aim | measured | met |", "| --- | --- | --- |")
    for verdict in result["verdicts"]:
        yield _line((verdict["aim"], verdict["measured"], "yes" if verdict["met"] else "**no**"))


def _line(cells: Any) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _said(cell: str | int | float) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)

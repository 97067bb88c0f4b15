"""What a benchmark leaves behind: rows, verdicts, and what a stranger needs to run it again."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

Cell = str | int | float
Row = Mapping[str, Cell]

LIBRARIES = ("thoth-cluster", "torch", "ray", "grpcio", "faiss-cpu", "numpy")


class CannotRun(Exception):
    """A benchmark wants something that this machine does not have; says what."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """An aim, what was measured for it, and whether that is enough. One not met is kept too."""

    aim: str
    measured: str
    met: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one benchmark found. All rows have the same keys."""

    rows: Sequence[Row]
    verdicts: Sequence[Verdict]
    seed: int


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle and the tails of some observations."""

    p10: float
    median: float
    p90: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Quantiles by linear interpolation. Raises ValueError without observations."""
        if not values:
            raise ValueError("no observations")
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        cuts = statistics.quantiles(values, n=10, method="inclusive")
        return cls(cuts[0], statistics.median(values), cuts[8])


def machine() -> dict[str, Cell]:
    """What the numbers depend on and a reader cannot guess."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True, slots=True)
class Setting:
    """What was run, and where it was about to run."""

    benchmark: str
    command: str
    machine: Mapping[str, Cell] = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)


def write(path: Path, setting: Setting, outcome: Outcome) -> None:
    """The whole result as JSON. Raises OSError."""
    found = {
        **asdict(setting),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": outcome.seed,
        "rows": [dict(row) for row in outcome.rows],
        "verdicts": [asdict(verdict) for verdict in outcome.verdicts],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")


def show(console: Console, benchmark: str, outcome: Outcome) -> None:
    """Rows as a table, then what they say about the aims."""
    console.print(_table(benchmark, outcome.rows))
    for verdict in outcome.verdicts:
        word = "met" if verdict.met else "NOT MET"
        console.print(f"{word}: {verdict.aim}: {verdict.measured}", soft_wrap=True)


def _table(title: str, rows: Sequence[Row]) -> Table:
    """A few rows of many cells stand upright, so that they fit the width of a terminal."""
    names = list(rows[0])
    lines = [names, *([_said(row[name]) for name in names] for row in rows)]
    if len(rows) < len(names):
        lines = [list(line) for line in zip(*lines, strict=True)]
    table = Table(title=title, show_header=len(rows) >= len(names))
    for heading in lines[0]:
        table.add_column(heading, justify="right")
    for line in lines if not table.show_header else lines[1:]:
        table.add_row(*line)
    return table


def _said(cell: Cell) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)

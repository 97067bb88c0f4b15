"""The tables of the README, made from the results that are committed.

`python -m benchmarks --tables` prints them; a test holds them against the README.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]

RESULTS = Path(__file__).parent / "results"
# Longer ones are for the JSON.
MAX_ROWS = 6
MAX_VERDICTS = 8

_SHOWN_LENGTHS = ("373 in, 45 out", "1000 in, 150 out")
_SHOWN_TIERS = ("56k + 256k", "1024k + 4096k")

# Of long results, the rows that say most.
_SHOWN: dict[str, Callable[[Row], bool]] = {
    "cache-sim": lambda row: row["setting"] == "default" and row["tiers"] in _SHOWN_TIERS,
    "engine": lambda row: row["what"] == "tokens per CPU s" and row["threads"] == 1,
    "offload": lambda row: row["arrivals"] == "at once" and row["host"] in ("100%", "10%"),
    "offload-sim": lambda row: row["mode"] != "gpu_only" and row["lengths"] in _SHOWN_LENGTHS,
    "rag": lambda row: row["note"] == "" or row["load"] == 0.5,
    "step": lambda row: row["threads"] == 1 and row["engine"] != "float32",
}
# Of wide results, the columns that say most.
_NAMES: dict[str, tuple[str, ...]] = {
    "offload": (
        "lengths",
        "weights",
        "cap_tokens",
        "host",
        "mode",
        "throughput_ratio",
        "throughput_ratio_low",
        "throughput_ratio_high",
        "latency_ratio",
        "gap_p99_ms",
        "two_batch",
        "preempted",
    ),
    "offload-sim": (
        "machine",
        "mode",
        "ratio",
        "whole_ratio",
        "two_batch",
        "one_batch",
        "host_rows",
        "recomputed",
        "latency_ms",
        "longest_gap_steps",
    ),
}


def tables(folder: Path = RESULTS) -> str:
    """Markdown for every result of the folder, in the order of their names."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return "\n\n".join("\n".join(_table(result)) for result in found)


def _table(result: dict[str, Any]) -> Iterator[str]:
    machine = result["machine"]
    yield f"`{result['command']}`, {machine['cores']} cores of {machine['processor']}:"
    yield ""
    rows = _rows(result)
    if rows:
        yield _line(name.replace("_", " ") for name in rows[0])
        yield _line("---" for _ in rows[0])
        yield from (_line(map(_said, row.values())) for row in rows)
        yield ""
    yield from _verdicts(result["verdicts"])


def _rows(result: dict[str, Any]) -> list[Row]:
    """Those to be shown, without the columns that are the same in all of them."""
    rows: list[Row] = result["rows"]
    if len(rows) <= MAX_ROWS:
        return rows
    if result["benchmark"] == "prover":
        return list(_solved(rows))
    is_shown = _SHOWN.get(result["benchmark"])
    shown = [row for row in rows if is_shown is not None and is_shown(row)]
    chosen = _NAMES.get(result["benchmark"], tuple(rows[0]))
    names = [name for name in chosen if len({str(row[name]) for row in shown}) > 1]
    return [{name: row[name] for name in names} for row in shown]


def _solved(rows: Sequence[Row]) -> Iterator[Row]:
    """A row for each set and limit: how many tasks each solver solved, if it was asked."""
    solvers = dict.fromkeys(row["solver"] for row in rows)
    found: dict[tuple[str, float], dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row["set"], row["limit_s"]), {})[row["solver"]] = row
    for (of, limit_s), by in sorted(found.items(), key=lambda each: each[0][1]):
        tasks = next(iter(by.values()))["tasks"]
        solved = {name: by[name]["solved"] if name in by else "" for name in solvers}
        yield {"set": of, "limit s": f"{limit_s:g}", "tasks": tasks, **solved}


def _verdicts(verdicts: Sequence[dict[str, Any]]) -> Iterator[str]:
    """All of them, or, of many, those that are not met."""
    if len(verdicts) > MAX_VERDICTS:
        num_met = sum(verdict["met"] for verdict in verdicts)
        yield f"{num_met} of {len(verdicts)} aims are met; these are not:"
        yield ""
        verdicts = [verdict for verdict in verdicts if not verdict["met"]]
    yield from ("| aim | measured | met |", "| --- | --- | --- |")
    for verdict in verdicts:
        yield _line((verdict["aim"], verdict["measured"], "yes" if verdict["met"] else "**no**"))


def _line(cells: Any) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _said(cell: str | int | float) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)

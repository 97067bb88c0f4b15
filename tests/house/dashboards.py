"""The panels of the dashboards, and the metric names inside a PromQL expression."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "grafana" / "dashboards"

# What is left of an expression when these are gone, in this order, are functions and names.
_NOT_NAMES = (
    re.compile(r'"(?:[^"\\]|\\.)*"'),
    re.compile(r"\{[^{}]*\}"),
    re.compile(r"\[[^\[\]]*\]"),
    re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)"),
)
_WORDS = frozenset({"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring"})
_NAME = re.compile(r"[a-zA-Z_:][\w:]*(?!\w|\s*\()")


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of one panel, and what its result is drawn in."""

    dashboard: str
    panel: str
    expression: str
    unit: str


def dashboards() -> dict[str, dict[str, Any]]:
    """File name to model."""
    return {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def panels(model: dict[str, Any]) -> list[dict[str, Any]]:
    """The panels that show something: rows are headings."""
    return [panel for panel in model["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Query]:
    for name, model in dashboards().items():
        for panel in panels(model):
            unit = panel["fieldConfig"]["defaults"]["unit"]
            for target in panel["targets"]:
                yield Query(name, panel["title"], target["expr"], unit)


def concrete(expression: str, interval: str = "1m") -> str:
    """The expression as Grafana sends it, with every variable at its widest."""
    return expression.replace("$__rate_interval", interval).replace("$worker", ".*")


def metric_names(expression: str) -> frozenset[str]:
    """The series an expression asks for.

    >>> sorted(metric_names('sum by (le) (rate(a_bucket{x="b(c)"}[5m])) / on (y) group_left () d'))
    ['a_bucket', 'd']
    """
    for pattern in _NOT_NAMES:
        expression = pattern.sub(" ", expression)
    return frozenset(_NAME.findall(expression)) - _WORDS

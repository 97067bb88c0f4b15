"""What a check of `thoth doctor` comes to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """`advice` says what to do; empty when all is well."""

    name: str
    level: Level
    found: str
    advice: str = ""

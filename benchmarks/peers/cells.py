"""What is asked of every engine, and what its answers come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, Protocol

from benchmarks.peers.protocol import Sample


class Measures(Protocol):
    """An engine, or its process."""

    def prefill(self, num_tokens: int) -> Sample: ...

    def decode(self, streams: int, num_tokens: int) -> Sample: ...


@dataclass(frozen=True, slots=True)
class Cell:
    """A prompt of `size` tokens, or `size` streams that decode `num_tokens` each."""

    kind: Literal["prefill", "decode"]
    size: int
    num_tokens: int = 0

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.size}"

    def sample(self, engine: Measures) -> Sample:
        if self.kind == "prefill":
            return engine.prefill(self.size)
        return engine.decode(self.size, self.num_tokens)


PREFILL_512 = Cell("prefill", 512)
PREFILL_2048 = Cell("prefill", 2048)
# A single stream's steps are short: more of them, for the clock's sake.
DECODE_1 = Cell("decode", 1, num_tokens=32)
DECODE_8 = Cell("decode", 8, num_tokens=16)
DECODE_32 = Cell("decode", 32, num_tokens=8)


@dataclass(frozen=True, slots=True)
class Rate:
    """Medians over the rounds: tokens per second that a core was busy and per second that passed.
    `spread` is (largest - smallest) / median of the former."""

    per_cpu_s: float
    per_s: float
    spread: float

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Rate:
        """Raises ValueError without samples."""
        per_cpu_s = [s.tokens / s.cpu_s for s in samples]
        middle = median(per_cpu_s)
        spread = (max(per_cpu_s) - min(per_cpu_s)) / middle
        return cls(middle, median(s.tokens / s.wall_s for s in samples), spread)


def count_of(number: int, thing: str) -> str:
    """`1 thread`, `2 threads`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Point:
    """Where an engine was measured."""

    threads: int
    cell: str

    def __str__(self) -> str:
        kind, _, size = self.cell.partition("_")
        of = count_of(int(size), "token" if kind == "prefill" else "stream")
        return f"{kind} of {of}, {count_of(self.threads, 'thread')}"


# By the variant's name, then by point. An engine that gave up has the points it reached.
Rates = Mapping[str, Mapping[Point, Rate]]

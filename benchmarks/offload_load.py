"""Which requests come, and when."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from math import inf
from pathlib import Path
from random import Random

from benchmarks.cache_traces import data_folder
from cluster.ids import RequestId
from cluster.request import Request, Sampling

AZURE = "azure-llm-2023"
# Lengths of a trace are divided by this, so that one core computes them in seconds; what is longer
# than this many tokens even then is left out.
SCALE = 4
MOST_TOKENS = 1000
# A timestamp has 100 nanoseconds: more digits than Python reads.
_DIGITS = 26
_WITHIN = 0.25
_FIRST_ID = 5


@dataclass(frozen=True, slots=True)
class Shape:
    """A request before it has a time: seconds after the first, and tokens."""

    at_s: float
    prompt: int
    answer: int


@dataclass(frozen=True, slots=True)
class Grid:
    """Prompts and answers within a quarter of these tokens, as Poisson has them arrive."""

    prompt: int
    answer: int

    def shapes(self, count: int, seed: int) -> Iterator[Shape]:
        random, at_s = Random(seed), 0.0
        for _ in range(count):
            yield Shape(at_s, _within(self.prompt, random), _within(self.answer, random))
            at_s += random.expovariate(1.0)

    def __str__(self) -> str:
        return f"{self.prompt} in, {self.answer} out"


@dataclass(frozen=True, slots=True)
class Traced:
    """Requests of a real service, one after another as they came, bursts and all."""

    file: Path

    def shapes(self, count: int, seed: int) -> Iterator[Shape]:
        """From a place in the trace that the seed draws."""
        shapes = _shapes(self.file)
        first = Random(seed).randrange(len(shapes) - count)
        yield from shapes[first : first + count]

    def __str__(self) -> str:
        return f"Azure {self.file.stem.rpartition('_')[2]} / {SCALE}"


def traces() -> tuple[Traced, Traced]:
    """Code and conversations. Raises CannotRun where THOTH_DATA does not have them."""
    folder = data_folder(AZURE)
    code, conversations = (
        Traced(folder / f"AzureLLMInferenceTrace_{name}.csv") for name in ("code", "conv")
    )
    return code, conversations


@cache
def _shapes(file: Path) -> Sequence[Shape]:
    with file.open() as lines:
        shapes = [_shape(row) for row in csv.DictReader(lines)]
    return [each for each in shapes if each.prompt + each.answer <= MOST_TOKENS]


def _shape(row: dict[str, str]) -> Shape:
    at = datetime.fromisoformat(row["TIMESTAMP"][:_DIGITS])
    prompt, answer = (int(row[f"{name}Tokens"]) // SCALE for name in ("Context", "Generated"))
    return Shape(at.timestamp(), max(1, prompt), max(1, answer))


def _within(mean: int, random: Random) -> int:
    return random.randint(round((1 - _WITHIN) * mean), round((1 + _WITHIN) * mean))


@dataclass(frozen=True, slots=True)
class Arrival:
    at_s: float
    request: Request


@dataclass(frozen=True, slots=True)
class Load:
    """`rate` requests a second on average, and with `inf` all at once. What is drawn depends on the
    seed and on nothing else; the model knows `vocab` ids."""

    lengths: Grid | Traced
    count: int
    rate: float = inf
    vocab: int = field(default=1024, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def arrivals(self) -> list[Arrival]:
        shapes = list(self.lengths.shapes(self.count, self.seed))
        span_s = shapes[-1].at_s - shapes[0].at_s
        slower = self.count / self.rate / max(span_s, 1e-9)
        return [
            Arrival(slower * (shape.at_s - shapes[0].at_s), self._request(number, shape))
            for number, shape in enumerate(shapes)
        ]

    def _request(self, number: int, shape: Shape) -> Request:
        random = Random(self.seed * self.count + number)
        ids = tuple(random.randrange(_FIRST_ID, self.vocab) for _ in range(shape.prompt))
        # Drawn and not greedy: an answer of random weights else soon repeats itself, and would be
        # the same with other bits.
        sampling = Sampling(temperature=1.0, seed=number, max_tokens=shape.answer)
        return Request(RequestId(f"r{number}"), (ids,), sampling, deadline_s=inf)

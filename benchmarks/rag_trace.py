"""Requests of a real service, RAGPulse, made short enough for two cores.

    prompt = system prompts, passages as they were retrieved | history, web pages, question

Lengths are those of the trace divided by LENGTH_DIVISOR; which request asks for which passages, in
which order and in what rhythm is the trace's own. Texts are not published: a passage is token ids
drawn from its number, so it is the same wherever it is asked for, and every question is its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.rag_clock import Ask
from benchmarks.result import CannotRun

LENGTH_DIVISOR = 8
# What comes first is shared and has a name; what comes after is somebody's own.
SHARED = ("sys_prompt", "passages_ids")
OWN = ("history", "web_search", "user_input")
# Kind of a part: the file with its lengths, and what a line calls its number.
LENGTHS = {
    "sys_prompt": ("1_sys_prompt.jsonl", "sys_prompt_id"),
    "passages_ids": ("2_passages.jsonl", "passage_id"),
    "history": ("3_history.jsonl", "history_id"),
    "user_input": ("4_user_input.jsonl", "user_input_id"),
    "web_search": ("5_web_search.jsonl", "web_search_id"),
}
# Ids below are the model's own marks.
FIRST_ID = 100

Lengths = Mapping[str, Mapping[int, int]]


@dataclass(frozen=True, slots=True)
class Traced:
    """A line of the trace: numbers of parts by their kind, tokens as they were."""

    at_s: float
    output_tokens: int
    parts: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Trace:
    """`requests` in order of arrival."""

    requests: Sequence[Traced]
    lengths: Lengths

    def asks(self, count: int, vocab_size: int, seed: int) -> list[Ask]:
        """The first `count` requests at their own times."""
        words = _Words(vocab_size, seed)
        return [
            self._ask(number, traced, words) for number, traced in enumerate(self.requests[:count])
        ]

    def _ask(self, number: int, traced: Traced, words: _Words) -> Ask:
        shared = [(kind, part) for kind in SHARED for part in traced.parts[kind]]
        own = [(kind, part) for kind in OWN for part in traced.parts[kind]]
        tail = sum(self._num_tokens(kind, part) for kind, part in own)
        names = tuple(f"{kind}/{part}" for kind, part in shared)
        sizes = [self._num_tokens(kind, part) for kind, part in shared]
        documents = [words.of(name, size) for name, size in zip(names, sizes, strict=True)]
        question = words.of(f"question/{number}", max(1, tail))
        return Ask(
            number=number,
            at_s=traced.at_s,
            segments=(*documents, question),
            names=names,
            max_tokens=shortened(traced.output_tokens),
        )

    def _num_tokens(self, kind: str, part: int) -> int:
        return shortened(self.lengths[kind][part])


def shortened(num_tokens: int) -> int:
    return max(1, num_tokens // LENGTH_DIVISOR)


@dataclass(frozen=True, slots=True)
class _Words:
    vocab_size: int
    seed: int

    def of(self, name: str, num_tokens: int) -> tuple[int, ...]:
        random = Random(f"{self.seed}/{name}")
        return tuple(random.randrange(FIRST_ID, self.vocab_size) for _ in range(num_tokens))


def load_trace() -> Trace:
    """Raises CannotRun where THOTH_DATA names no folder with ragpulse."""
    folder = Path(os.environ.get("THOTH_DATA", "")) / "ragpulse"
    if not (folder / "0_trace.jsonl").is_file():
        raise CannotRun("THOTH_DATA names no folder with ragpulse/0_trace.jsonl")
    return read_trace(folder)


def read_trace(folder: Path) -> Trace:
    lengths = {
        kind: {int(line[name]): int(line["token_length"]) for line in _lines(folder / file)}
        for kind, (file, name) in LENGTHS.items()
    }
    requests = [_traced(line) for line in _lines(folder / "0_trace.jsonl")]
    requests.sort(key=lambda traced: traced.at_s)
    return Trace(requests, lengths)


def _traced(line: Mapping[str, Any]) -> Traced:
    parts = {kind: tuple(line["hash_ids"].get(kind, ())) for kind in LENGTHS}
    return Traced(float(line["timestamp"]), int(line["output_length"]), parts)


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as opened:
        for line in opened:
            if line.strip():
                yield json.loads(line)


def at_rate(asks: Sequence[Ask], per_s: float) -> list[Ask]:
    """The same rhythm, stretched so that between two arrivals lie 1 / per_s seconds on average; the
    first comes at 0."""
    first_s, last_s = asks[0].at_s, asks[-1].at_s
    if last_s == first_s:
        return [replace(ask, at_s=0.0) for ask in asks]
    stretch = (len(asks) - 1) / (per_s * (last_s - first_s))
    return [replace(ask, at_s=(ask.at_s - first_s) * stretch) for ask in asks]


def reusable(asks: Sequence[Ask]) -> float:
    """The bound of a token hit rate: the share of prompt tokens that lie in documents which an
    earlier request had in the same place behind the same ones. Memory without end would get it."""
    seen: set[tuple[str, ...]] = set()
    hits = 0
    for ask in asks:
        paths = [ask.names[: i + 1] for i in range(len(ask.names))]
        # What was seen is closed downwards: of a path that was seen, every beginning was.
        hits += sum(len(ask.segments[i]) for i, path in enumerate(paths) if path in seen)
        seen.update(paths)
    return hits / sum(ask.num_tokens for ask in asks)

"""Our engine without a cache beside every other engine, in one run and by the same clock.

The same model, prompts, context and cores for all, each in a process of its own, pinned. For every
cell the engines are measured in turn, round after round, so that a busy machine hurts all alike.

    prefill_N   tokens of one prompt of N / seconds to its first token
    decode_S    tokens of S streams / seconds, greedy, each with 512 tokens before and no end

Tokens per CPU second (all cores that the process kept busy) stand beside tokens per wall second.
A bound is what reading weights and multiplying float32 alone would allow, measured in the same run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.catalogue import Scale
from benchmarks.peers import bounds
from benchmarks.peers.catalogue import VARIANTS, Places, Precision, Variant
from benchmarks.peers.cells import (
    DECODE_1,
    DECODE_8,
    DECODE_32,
    PREFILL_512,
    PREFILL_2048,
    Cell,
    Point,
    Rate,
    Rates,
    count_of,
)
from benchmarks.peers.child import cores_for
from benchmarks.peers.install import model_folder
from benchmarks.peers.protocol import STREAM_STRIDE
from benchmarks.peers.turns import Bench, Found, Size, take_turns
from benchmarks.peers.verdicts import Attendance, Bounds, equal_precision, every_peer
from benchmarks.result import Cell as Value
from benchmarks.result import Outcome, Row
from cluster.documents.reference import load_reference
from cluster.text.tokenizer import Tokenizer

# No draw is made: prompts are one text and decoding is greedy.
SEED = 0
# The longest prompt, and where the last of 32 streams begins.
TEXT_TOKENS = 2048 + 32 * STREAM_STRIDE
# Bytes of a weight while it is read, of those that are multiplied as they stand.
WEIGHT_BYTES = {Precision.FLOAT32: 4.0, Precision.EIGHT_BIT: 1.0}
NOT_MEASURED = "-"

# Two threads that wait for each other need two quiet cores to say anything; one is enough here.
SIZES = {
    Scale.QUICK: Size((1,), (PREFILL_512, DECODE_1, DECODE_8), num_rounds=1),
    Scale.FULL: Size(
        (1, 2), (PREFILL_512, PREFILL_2048, DECODE_1, DECODE_8, DECODE_32), num_rounds=3
    ),
}

PER_CPU_S = "tokens per CPU s"
SAYINGS: Mapping[str, Callable[[Rate], float]] = {
    PER_CPU_S: lambda rate: rate.per_cpu_s,
    "tokens per s": lambda rate: rate.per_s,
    "spread": lambda rate: rate.spread,
}


def run(scale: Scale, console: Console) -> Outcome:
    """Starts every engine that is installed, measures, and stops it."""
    size = SIZES[scale]
    places = Places.standard()
    folder = model_folder(places)
    bench = Bench(places, folder, _text(folder), console)
    variants = [v for v in VARIANTS if v.quick or scale is Scale.FULL]
    found = Found()
    bound: dict[tuple[Precision, Point], float] = {}
    for threads in size.threads:
        if threads > len(os.sched_getaffinity(0)):
            console.print(f"{count_of(threads, 'thread')}: left out, there are not as many cores")
            continue
        take_turns(bench, size, threads, variants, found)
        bound.update(_bounds(folder, size.cells, threads))
    rates = found.rates()
    verdicts = [
        Attendance(found.versions, found.missing).verdict(),
        *equal_precision(variants, rates, bound),
        *every_peer(variants, rates),
    ]
    return Outcome([*_rows(variants, size, rates), *_bound_rows(size, bound)], verdicts, SEED)


def _text(folder: Path) -> tuple[int, ...]:
    """Ids of the language reference, as many as the prompts need."""
    tokenizer = Tokenizer.from_folder(folder)
    ids: list[int] = []
    for document in load_reference():
        ids += tokenizer.encode(document.text)
        if len(ids) >= TEXT_TOKENS:
            break
    return tuple(ids[:TEXT_TOKENS])


def _bounds(folder: Path, cells: Sequence[Cell], threads: int) -> Bounds:
    machine = bounds.measured(cores_for(threads))
    shape = bounds.shape_of(folder)
    found = {}
    for precision, weight_bytes in WEIGHT_BYTES.items():
        multiply = precision is Precision.FLOAT32
        for cell in cells:
            point = Point(threads, cell.name)
            if cell.kind == "decode":
                rate = machine.decode(shape, cell.size, weight_bytes, multiply=multiply)
                found[precision, point] = rate
            elif multiply:
                found[precision, point] = machine.prefill(shape, cell.size)
    return found


def _rows(variants: Sequence[Variant], size: Size, rates: Rates) -> Iterator[Row]:
    """Of every engine tokens per CPU second, then tokens per second, then the former's spread."""
    for what, value in SAYINGS.items():
        for threads in size.threads:
            for variant in (v for v in variants if v.name in rates):
                head = _head(variant.name, variant.precision, threads, what)
                rate = rates[variant.name]
                yield head | {
                    cell.name: value(rate[point]) if point in rate else NOT_MEASURED
                    for cell in size.cells
                    for point in [Point(threads, cell.name)]
                }


def _bound_rows(size: Size, bound: Bounds) -> Iterator[Row]:
    for threads in size.threads:
        for precision in WEIGHT_BYTES:
            head = _head("bound", precision, threads, PER_CPU_S)
            yield head | {
                cell.name: bound.get((precision, Point(threads, cell.name)), NOT_MEASURED)
                for cell in size.cells
            }


def _head(engine: str, weights: Precision, threads: int, what: str) -> dict[str, Value]:
    return {"engine": engine, "weights": weights.value, "threads": threads, "what": what}

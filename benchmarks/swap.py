"""Documents come to the device, and others leave it, in a step that computes a question about them.

    load    documents lie on the host and come to the device
    swap    as many others leave the blocks that they come to

Each is done in three ways, in turn:

    nothing   the step alone, its documents already there
    before    all copies are made, and sealed, before the step begins
    beside    each layer waits for its own copies alone

Verifying what comes, and sealing what has left, is part of both ways that copy, and nothing
computes meanwhile.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from benchmarks.catalogue import Scale
from benchmarks.result import CannotRun, Outcome, Row, Verdict
from cluster.blocks.pool import BLOCK_TOKENS, blocks_for
from cluster.blocks.segment import SegmentView
from cluster.clock import MonotonicClock
from cluster.engine.assemble import assemble_engine
from cluster.engine.engine import Engine, HostHands
from cluster.engine.options import EngineOptions
from cluster.engine.shelves import Shelving
from cluster.engine.step import Step, lay_out
from cluster.ids import BlockId, RequestId
from cluster.knowledge.commands import Move, NodeRecord, SwapIn, SwapOut
from cluster.knowledge.keys import ROOT, NodeKey
from cluster.knowledge.node import Blocks, Tier
from cluster.models.catalogue import resolve_model
from cluster.request import Sampling, SegmentSource
from cluster.scheduling.plan import Chunk

SEED = 0
MODEL = "smollm2-135m-instruct"
DOCUMENT_TOKENS = 256
MOST_DOCUMENTS, MOST_ROWS = 8, 512
DEVICE_BLOCKS = blocks_for(MOST_DOCUMENTS * DOCUMENT_TOKENS) + blocks_for(MOST_ROWS)
HOST_BYTES = 2**28
# A step beside its copies may take so much of the time of one after them.
MOST_SHARE = 1.05
LEAST_HIDDEN = 0.5
LEAST_ADDED = 0.2


@dataclass(frozen=True, slots=True)
class Size:
    """Documents that are loaded, rows of the question, and how often each way is taken."""

    threads: tuple[int, ...]
    documents: tuple[int, ...]
    rows: tuple[int, ...]
    rounds: int


SIZES = {
    Scale.QUICK: Size((1,), (MOST_DOCUMENTS,), (16, 128), 5),
    Scale.FULL: Size((1, 2), (1, MOST_DOCUMENTS), (16, 128, MOST_ROWS), 11),
}


@dataclass(frozen=True, slots=True)
class Case:
    documents: int
    rows: int
    leaves: bool

    @property
    def kind(self) -> str:
        return "swap" if self.leaves else "load"

    def step(self) -> Step:
        """The question's rows over the documents, in the blocks behind them."""
        segments = [SegmentView(_device(i), DOCUMENT_TOKENS) for i in range(self.documents)]
        own = range(DEVICE_BLOCKS - blocks_for(self.rows), DEVICE_BLOCKS)
        segments.append(SegmentView(tuple(map(BlockId, own)), self.rows))
        ids = tuple((104_729 * i) % 40_000 + 5 for i in range(self.rows))
        start = self.documents * DOCUMENT_TOKENS
        return lay_out([Chunk(RequestId("question"), start, ids, tuple(segments), Sampling())])

    def moves(self) -> list[Move]:
        moves: list[Move] = []
        if self.leaves:
            moves += [_out(MOST_DOCUMENTS + i, _device(i)) for i in range(self.documents)]
        return moves + [SwapIn(_key(i), _host(i), _device(i)) for i in range(self.documents)]


def _key(number: int) -> NodeKey:
    return NodeKey(number.to_bytes(len(ROOT), "big"))


def _out(number: int, device: Blocks) -> SwapOut:
    record = NodeRecord(_key(number), ROOT, SegmentSource(), DOCUMENT_TOKENS)
    return SwapOut(record, device, _host(number))


def _device(number: int) -> Blocks:
    count = DOCUMENT_TOKENS // BLOCK_TOKENS
    return tuple(BlockId(number * count + i) for i in range(count))


# As on the device, and behind them those that leave it.
_host = _device


class Machine:
    """An engine's forward pass and its hands. On the host lie the documents that come."""

    def __init__(self, folder: Path, notes: Path, threads: int) -> None:
        options = EngineOptions(
            threads=threads,
            kv_blocks=DEVICE_BLOCKS,
            shelving=Shelving(tiers=(Tier.DEVICE, Tier.HOST), host_bytes=HOST_BYTES, notes=notes),
        )
        self._engine: Engine = assemble_engine(folder, options, MonotonicClock()).engine
        if self._engine.host is None:
            raise CannotRun("the host's memory cannot be had")
        self._host: HostHands = self._engine.host
        self._host.run([_out(i, _device(i)) for i in range(MOST_DOCUMENTS)])

    def nothing(self, step: Step, _moves: Sequence[Move]) -> None:
        self._engine.forward.logits(step)

    def before(self, step: Step, moves: Sequence[Move]) -> None:
        self._host.run(moves)
        self._engine.forward.logits(step)

    def beside(self, step: Step, moves: Sequence[Move]) -> None:
        self._host.begin(moves)
        self._engine.forward.logits(step)
        self._host.finish()


def run(scale: Scale, console: Console) -> Outcome:
    """A row for each number of threads, documents and rows, and whether something leaves."""
    size = SIZES[scale]
    rows: list[Row] = []
    with TemporaryDirectory(prefix="thoth-swap-") as temporary:
        folder = resolve_model(MODEL, Path(temporary)).path
        for threads in size.threads:
            machine = Machine(folder, Path(temporary), threads)
            for cell in product(size.documents, size.rows, (False, True)):
                case = Case(*cell)
                rows.append({"threads": threads, **_row(machine, case, size.rounds)})
            console.print(f"{threads} threads: done")
    return Outcome(rows, tuple(_verdicts(rows)), SEED)


def _row(machine: Machine, case: Case, rounds: int) -> Row:
    step, moves = case.step(), case.moves()
    ways = (machine.nothing, machine.before, machine.beside)
    taken: list[list[float]] = [[] for _ in ways]
    # The first round is not counted.
    for _ in range(rounds + 1):
        for way, seconds in zip(ways, taken, strict=True):
            seconds.append(_seconds(way, step, moves))
    nothing, before, beside = (statistics.median(seconds[1:]) for seconds in taken)
    return {
        "kind": case.kind,
        "document_tokens": case.documents * DOCUMENT_TOKENS,
        "question_tokens": case.rows,
        "nothing_ms": nothing * 1e3,
        "before_ms": before * 1e3,
        "beside_ms": beside * 1e3,
        "beside_share": statistics.median(
            b / a for a, b in zip(taken[1][1:], taken[2][1:], strict=True)
        ),
    }


def _seconds(
    way: Callable[[Step, Sequence[Move]], None], step: Step, moves: Sequence[Move]
) -> float:
    begun_s = time.perf_counter()
    way(step, moves)
    return time.perf_counter() - begun_s


def _verdicts(rows: Sequence[Row]) -> Iterator[Verdict]:
    shares = [float(row["beside_share"]) for row in rows]
    yield Verdict(
        f"a step beside its copies takes at most {MOST_SHARE:.2f}x the time of one after them",
        f"{min(shares):.2f}x to {max(shares):.2f}x, middle {statistics.median(shares):.2f}x",
        met=max(shares) <= MOST_SHARE,
    )
    for threads in sorted({int(row["threads"]) for row in rows}):
        yield from _hidden([row for row in rows if row["threads"] == threads], threads)


def _hidden(rows: Sequence[Row], threads: int) -> Iterator[Verdict]:
    """Over the cells where the copies add enough to be told from what else the machine does."""
    added = [(float(row["before_ms"]) / float(row["nothing_ms"]), row) for row in rows]
    hidden = [_hidden_share(row) for ratio, row in added if ratio >= 1.0 + LEAST_ADDED]
    if hidden:
        yield Verdict(
            f"of {threads} threads on {os.cpu_count()} cores a step hides {LEAST_HIDDEN:.0%} of "
            f"what copying, verifying and sealing add, where that is {LEAST_ADDED:.0%}",
            f"{min(hidden):.0%} to {max(hidden):.0%}, middle {statistics.median(hidden):.0%}",
            met=statistics.median(hidden) >= LEAST_HIDDEN,
        )


def _hidden_share(row: Row) -> float:
    nothing, before, beside = (float(row[f"{way}_ms"]) for way in ("nothing", "before", "beside"))
    return (before - beside) / (before - nothing)

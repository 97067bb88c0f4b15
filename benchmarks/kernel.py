"""Our attention kernels on the cpu against what the machine can do at most.

A decode step reads the keys and values of its context once, so it is bound by

    roofline = min(read bandwidth, 0.7 * multiply-add peak / operations a byte of KV)

where both are measured by probes between the runs of a cell, on the same threads. A cell is one
layer's attention for a batch; its blocks lie scattered at random, as an allocator leaves them after
a while. `sharers` rows attend one segment: `gain` is how much faster that is than the same rows,
blocks and call without grouping. A prefill chunk is 512 rows: its share is that of the multiply-add
peak. Cells of more than 1 GiB of KV are left out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from rich.console import Console

from benchmarks.catalogue import Scale
from benchmarks.kernel_cases import (
    LLAMA2,
    LLAMA3,
    LONG_TOKENS,
    OWN_TOKENS,
    SEED,
    SMOLLM2,
    Case,
    Pool,
    cases,
    shapes,
    without_sharing,
)
from benchmarks.result import CannotRun, Outcome, Row, Verdict
from cluster.attention.backend import AttentionBackend
from cluster.attention.native import NativeBackend
from cluster.attention.plan import AttentionPlan
from cluster.attention.reference import ReferenceBackend
from cluster.engine.huge_pages import zeros
from cluster.kernels import kernels, kernels_available, why_not

PROBE_FLOATS = 2**26
# As long as a read, and as a kernel at least: what else runs takes its share of all three.
PROBE_ROUNDS = 100_000
LEAST_S = 0.02
ROUNDS = {Scale.QUICK: 3, Scale.FULL: 5}
# The reference is slow: it is run once, and only where that is a moment.
TORCH_BYTES = 2**25
PEAK_SHARE = 0.7
LEAST_SHARE = 0.8
LEAST_PREFILL_SHARE = 0.5
LEAST_GAIN = 4.0


def seconds(work: Callable[[], object]) -> float:
    """Of one call, over as many as take `LEAST_S`."""
    started = time.perf_counter()
    num_calls, taken = 0, 0.0
    while taken < LEAST_S:
        work()
        num_calls += 1
        taken = time.perf_counter() - started
    return taken / num_calls


@dataclass(frozen=True, slots=True)
class Turn:
    """Bytes and operations a second at most, and the seconds that each work took."""

    read: float
    peak: float
    times: tuple[float, ...]

    def share(self, case: Case, kv_bytes: int, operations: int) -> float:
        """Of what the machine can do, 1 being all of it."""
        if case.kind == "prefill":
            return operations / self.peak / self.times[0]
        bound = max(kv_bytes / self.read, operations / (PEAK_SHARE * self.peak))
        return bound / self.times[0]


class Bench:
    """Cells of one pool, and the probes beside them."""

    def __init__(self, pool: Pool, num_threads: int, rounds: int) -> None:
        self.pool = pool
        self.num_threads = num_threads
        self.rounds = rounds
        self.threads = kernels().Threads(num_threads)
        self.backend = NativeBackend(self.threads)
        # In huge pages, as the caches are: the bound is what the kernel could read.
        self.probe = zeros((PROBE_FLOATS,), torch.float32)

    def work(self, plan: AttentionPlan, backend: AttentionBackend) -> Callable[[], object]:
        q = self.pool.queries(plan)
        attention = backend.prepare(plan)
        return lambda: attention.attend(q, self.pool.k, self.pool.v)

    def row(self, case: Case) -> Row:
        """Medians over the rounds; the gain is 1 where nothing is shared."""
        shape = self.pool.shape
        plan = self.pool.plan(case)
        works = [self.work(plan, self.backend)]
        if case.kind == "grouped":
            works.append(self.work(without_sharing(plan), self.backend))
        kv_bytes = case.kv_tokens * shape.token_bytes
        operations = 4 * case.num_scores * shape.heads * shape.head_dim
        turns = self._turns(works)
        median = statistics.median(turn.times[0] for turn in turns)
        return {
            "shape": shape.name,
            "kv_dtype": str(shape.dtype).removeprefix("torch."),
            "threads": self.num_threads,
            "kind": case.kind,
            "tokens": case.tokens,
            "batch": case.batch,
            "sharers": case.sharers,
            "ms": 1e3 * median,
            "kv_gb_s": kv_bytes / median / 1e9,
            "gflop_s": operations / median / 1e9,
            "read_gb_s": statistics.median(turn.read for turn in turns) / 1e9,
            "peak_gflop_s": statistics.median(turn.peak for turn in turns) / 1e9,
            "share": statistics.median(turn.share(case, kv_bytes, operations) for turn in turns),
            "gain": statistics.median(turn.times[-1] / turn.times[0] for turn in turns),
            "torch_ms": self._torch_ms(plan, kv_bytes),
        }

    def _turns(self, works: Sequence[Callable[[], object]]) -> list[Turn]:
        """The probes and the works in turn, so that what else the machine does falls on all."""
        for work in works:
            work()
        return [
            Turn(
                kernels().probe_read(self.probe, self.threads),
                kernels().probe_multiply_add(PROBE_ROUNDS, self.threads),
                tuple(seconds(work) for work in works),
            )
            for _ in range(self.rounds)
        ]

    def _torch_ms(self, plan: AttentionPlan, kv_bytes: int) -> float | str:
        if kv_bytes > TORCH_BYTES or self.num_threads > 1:
            return "-"
        torch.set_num_threads(1)
        return 1e3 * seconds(self.work(plan, ReferenceBackend()))


def run(scale: Scale, console: Console) -> Outcome:
    """One row a cell. Raises CannotRun where the kernels were not built."""
    if not kernels_available():
        raise CannotRun(f"the compiled kernels are not installed: {why_not()}")
    rows: list[Row] = []
    for shape in shapes(scale):
        found = list(cases(shape, scale))
        most = max(c.kv_tokens + c.sharers * OWN_TOKENS for c in found)
        pool = Pool(shape, most * shape.token_bytes)
        for num_threads, case in product((1, 2), found):
            row = Bench(pool, num_threads, ROUNDS[scale]).row(case)
            rows.append(row)
            console.print(
                f"{shape.name} {row['kv_dtype']} {case.kind} {case.tokens} x {case.batch}, "
                f"{case.sharers} sharers, {num_threads} threads: {row['share']:.2f} of the bound, "
                f"gain {row['gain']:.2f}",
                soft_wrap=True,
            )
    return Outcome(rows=rows, verdicts=verdicts(rows), seed=SEED)


def verdicts(rows: Sequence[Row]) -> tuple[Verdict, ...]:
    """What the rows say about the aims."""
    by_name = {s.name: s for s in (SMOLLM2, LLAMA3, LLAMA2)}

    def must_gain(row: Row) -> bool:
        group = by_name[str(row["shape"])].group
        return group == 1 or (group <= 3 and row["kv_dtype"] == "float32")

    long = [r for r in rows if r["kind"] == "decode" and int(r["tokens"]) >= LONG_TOKENS]
    eight = [r for r in rows if r["kind"] == "grouped" and r["sharers"] == 8]
    chunks = [r for r in rows if r["kind"] == "prefill"]
    return (
        _least(
            "decode at 16k tokens and above reaches 80% of the roofline", long, "share", LEAST_SHARE
        ),
        _least(
            "8 sharers gain 4x for MHA and for float32 KV up to 3 query heads per KV head",
            [r for r in eight if must_gain(r)],
            "gain",
            LEAST_GAIN,
        ),
        _least(
            "8 sharers elsewhere reach 80% of the roofline",
            [r for r in eight if not must_gain(r)],
            "share",
            LEAST_SHARE,
        ),
        _least(
            "a chunk of prefill reaches half the multiply-add peak",
            chunks,
            "share",
            LEAST_PREFILL_SHARE,
        ),
    )


def _least(aim: str, rows: Sequence[Row], column: str, least: float) -> Verdict:
    worst = min(rows, key=lambda row: float(row[column]))
    median = statistics.median(float(row[column]) for row in rows)
    met = sum(float(row[column]) >= least for row in rows)
    where = " ".join(str(worst[name]) for name in ("shape", "kv_dtype", "tokens", "batch"))
    return Verdict(
        aim,
        f"{met} of {len(rows)} cells; median {median:.2f}, least {float(worst[column]):.2f} "
        f"({where}, {worst['threads']} threads)",
        met == len(rows),
    )

"""Keys and values on the host, on machines that are not here: what NEO's evaluation reports, and
what our modes make of the same machines.

Nothing is computed. The scheduler is the product's; what a step takes follows from published sheets
of the machines and one set of efficiencies for all (`hardware`), none of which is fitted to what is
compared. Two sub-batches take the published pipeline's time in `neo`, ours in `adaptive`; copies
run beside the step, and what of them is longer than the step is waited for.

    all at once   throughput, as a ratio to gpu_only's
    moderate      arrivals at 0.7 of the rate that gpu_only reaches: seconds for a token, and gaps
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from rich.console import Console

from benchmarks.catalogue import Scale
from benchmarks.offload_sim_cells import MODERATE, Cell, Run, cells
from benchmarks.offload_sim_load import Found
from benchmarks.offload_sim_pays import grid
from benchmarks.offload_sim_verdicts import Results, verdicts
from benchmarks.result import Outcome, Row
from cluster.scheduling.offload import OffloadMode
from cluster.scheduling.plan import PlanKind


def run(scale: Scale, console: Console) -> Outcome:
    """A process a core."""
    wanted = cells(scale)
    at_once = _found((Run(cell, mode) for cell in wanted for mode in OffloadMode), console)
    rates = {
        cell: MODERATE * at_once[Run(cell, OffloadMode.GPU_ONLY)].answers_per_s for cell in wanted
    }
    runs = (Run(cell, mode, rates[cell]) for cell in wanted for mode in OffloadMode)
    results = Results(at_once, _found(runs, console), rates)
    rows = [_row(cell, mode, results) for cell in wanted for mode in OffloadMode]
    return Outcome(rows, verdicts(results, grid(scale)), seed=0)


def _found(runs: Iterable[Run], console: Console) -> Mapping[Run, Found]:
    found: dict[Run, Found] = {}
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn")) as pool:
        running = {pool.submit(each.found): each for each in runs}
        for done in as_completed(running):
            each = running[done]
            found[each] = done.result()
            console.print(
                f"{len(found)} of {len(running)}: {each.cell}, {each.mode}: "
                f"{found[each].tokens_per_s:.1f} tokens/s, {found[each].num_steps} steps",
                soft_wrap=True,
            )
    return found


def _row(cell: Cell, mode: OffloadMode, results: Results) -> Row:
    """`ratio` is of the tokens between the marks, `whole_ratio` of all, with the time in which the
    first prompts fill the machine and the last answers leave it. `gap`: of an answer, the longest
    time between two of its tokens."""
    full, moderate = results.at_once[Run(cell, mode)], results.moderate_of(cell, mode)
    return {
        "machine": str(cell.machine),
        "lengths": str(cell.lengths),
        "mode": mode.value,
        "ratio": results.ratio(cell, mode),
        "whole_ratio": results.whole_ratio(cell, mode, OffloadMode.GPU_ONLY),
        "tokens_per_s": full.tokens_per_s,
        "two_batch": full.kinds[PlanKind.TWO_BATCH],
        "one_batch": full.kinds[PlanKind.ONE_BATCH],
        "host_rows": full.host_share,
        "preempted": full.num_preempted,
        "recomputed": full.recomputed_share,
        "latency_ms": 1e3 * moderate.latency_s,
        "latency_p99_ms": 1e3 * moderate.latency_p99_s,
        "gap_p99_ms": 1e3 * moderate.gap_p99_s,
        "longest_gap_ms": 1e3 * moderate.longest_gap_s,
        "longest_gap_steps": max(full.longest_gap_steps, moderate.longest_gap_steps),
    }

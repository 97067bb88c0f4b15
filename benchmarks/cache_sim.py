"""The knowledge cache on traces of real services, without a model: what it finds, and what it
moves for that.

The cache is the product's, with its policies, tiers, admission and placement; a trace says what is
asked for. Beside each row stands the bound: what a cache in which everything stays would find.
Seconds are T(alpha, beta) of one fixed grid, so that no row depends on the machine.

    reused      share of the prompt tokens that were not computed
    work_saved  share of the prefill seconds that were not spent
    moved       blocks of 16 tokens between device and host; what is copied out once stays copied
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context

from rich.console import Console

from benchmarks.cache_cases import MOONCAKE, RAGPULSE, Case, cases
from benchmarks.cache_replay import Bound, Costs, Replay, Totals, bound, cache_of, prefill_cost
from benchmarks.cache_traces import Order, RagPulse, Trace, data_folder, mooncake
from benchmarks.cache_verdicts import Find, expected, verdicts
from benchmarks.catalogue import Scale
from benchmarks.result import Cell, Outcome, Row
from cluster.knowledge.node import Tier

FOLDERS = {RAGPULSE: "ragpulse", MOONCAKE: "mooncake-fast25"}
# Of the short run: so many prompts of each.
HEADS = {RAGPULSE: 1500, MOONCAKE: 600}


@dataclass(frozen=True, slots=True)
class Result:
    """What a cache found in a trace, and what it moved."""

    totals: Totals
    moved_out: int
    moved_in: int
    host_evictions: int

    @property
    def find(self) -> Find:
        return Find(self.totals.reused, self.totals.work_saved, self.moved_out)


@cache
def trace_of(name: str, order: Order, scale: Scale) -> Trace:
    """Raises CannotRun without the data."""
    folder = data_folder(FOLDERS[name])
    trace = mooncake(folder) if name == MOONCAKE else RagPulse.read(folder).trace(order)
    return trace if scale is Scale.FULL else trace.head(HEADS[name])


@cache
def _costs() -> Costs:
    return Costs(prefill_cost())


def replayed(case: Case, trace: Trace) -> Result:
    brain = cache_of(case.options, case.tiers.device_tokens)
    totals = Replay(brain, _costs()).run(trace.prompts)
    counts = brain.counts
    return Result(
        totals,
        counts.moved_blocks[Tier.DEVICE, Tier.HOST],
        counts.moved_blocks[Tier.HOST, Tier.DEVICE],
        sum(times for (tier, _), times in counts.evictions.items() if tier is Tier.HOST),
    )


def _replay(case: Case, scale: Scale) -> Result:
    return replayed(case, trace_of(case.trace, case.order, scale))


def run(scale: Scale, console: Console) -> Outcome:
    """A process a core. Raises CannotRun without the traces."""
    wanted = cases()
    orders = dict.fromkeys((case.trace, case.order) for case in wanted)
    bounds = {key: bound(trace_of(*key, scale).prompts, _costs()) for key in orders}
    whole = {key: bound(trace_of(*key, Scale.FULL).prompts, _costs()) for key in orders}
    results = _results(wanted, scale, console)
    rows = [_bound_row(name, order, found) for (name, order), found in bounds.items()]
    rows += [_row(case, results[case], bounds[case.trace, case.order]) for case in wanted]
    found = {case: result.find for case, result in results.items()}
    return Outcome(rows, [*expected(whole), *verdicts(found, bounds)], seed=0)


def _results(wanted: tuple[Case, ...], scale: Scale, console: Console) -> dict[Case, Result]:
    found: dict[Case, Result] = {}
    num_processes = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(num_processes, get_context("spawn")) as pool:
        running = {pool.submit(_replay, case, scale): case for case in wanted}
        for done in as_completed(running):
            case = running[done]
            found[case] = done.result()
            console.print(
                f"{len(found)} of {len(wanted)}: {case.trace} {case.tiers} {case.policy}: "
                f"{found[case].totals.reused:.1%} of the tokens reused",
                soft_wrap=True,
            )
    return found


def _row(case: Case, result: Result, most: Bound) -> Row:
    return {
        "trace": case.trace,
        "order": case.order.value,
        "tiers": str(case.tiers),
        "policy": case.policy.value,
        "setting": case.setting,
        **_found(result.totals, most),
        "moved_out": result.moved_out,
        "moved_in": result.moved_in,
        "host_evictions": result.host_evictions,
    }


def _bound_row(name: str, order: Order, most: Bound) -> Row:
    return {
        "trace": name,
        "order": order.value,
        "tiers": "unbounded",
        "policy": "-",
        "setting": "-",
        **_found(most.totals, most),
        "moved_out": 0,
        "moved_in": 0,
        "host_evictions": 0,
    }


def _found(totals: Totals, most: Bound) -> dict[str, Cell]:
    return {
        "reused": totals.reused,
        "bound": most.totals.reused,
        "from_device": totals.found[Tier.DEVICE] / totals.prompt_tokens,
        "from_host": totals.found[Tier.HOST] / totals.prompt_tokens,
        "documents_reused": totals.documents_reused,
        "work_saved": totals.work_saved,
        "bound_work_saved": most.totals.work_saved,
        "refused": totals.num_refused,
    }

"""A real service's requests through our engine and its peers, each with its own prefix cache.

RAGPulse, its lengths divided by 8 (`rag_trace`), arrives in an open loop at shares of what our
engine serves without a cache, on a clock that skips idle time alone (`rag_clock`). Every cell is a
process of its own, on the same cores, with empty caches and the same bytes for keys and values;
engines take turns at each load. Documents stay in the order of their retrieval and nothing is
computed before they are known, so what can be reused is a beginning of the prompt: the bound.

The SLO is SLO_FACTOR times the median time to first token of our engine without a cache when it
serves one request at a time, for the 99th percentile, and the same for everybody. A peer's replay
ends as soon as a tenth of it was later than that, and a load above one that it missed is left out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.console import Console

from benchmarks.catalogue import Scale
from benchmarks.peers.catalogue import FOLDER, Places
from benchmarks.peers.child import EngineFailed, cores_for
from benchmarks.peers.install import model_folder
from benchmarks.peers.protocol import EngineRefused
from benchmarks.peers.verdicts import Attendance
from benchmarks.rag_child import Cell, Replayed, command_of, run_cell
from benchmarks.rag_clock import Ask, Patience
from benchmarks.rag_engines import ABSENT, CACHED, ENGINES, LOADS, NO_CACHE, QUICK_LOAD, Engine
from benchmarks.rag_numbers import Summary
from benchmarks.rag_ours import block_bytes
from benchmarks.rag_rows import rows_of
from benchmarks.rag_tenants import timed
from benchmarks.rag_trace import at_rate, load_trace, reusable
from benchmarks.rag_verdicts import Replays, hits, tenants, ttft, work_saved
from benchmarks.result import CannotRun, Outcome, Verdict
from cluster.blocks.pool import BLOCK_TOKENS
from cluster.models.folder import read_json

SEED = 0
THREADS = 2
SLO_FACTOR = 5.0
# Requests of the probe that come one by one, so far apart that none ever waits for another.
APART_S = 1e4
LATE_SHARE = 0.1
CELL_LIMIT_S = 3600.0
# A process that loads weights and warms up, for the estimate.
START_S = 8.0
# Of float16, as llama.cpp keeps keys and values, against our float32.
HALF = 2


@dataclass(frozen=True, slots=True)
class Size:
    """Requests of a cell; of the probe, one by one and at once; what the tiers hold, so that they
    are too small for all documents; trials of the tenants."""

    num_requests: int
    num_alone: int
    num_at_once: int
    device_blocks: int
    host_bytes: int
    num_trials: int
    loads: tuple[float, ...]


SIZES = {
    Scale.QUICK: Size(12, 3, 6, 192, 2**26, 100, QUICK_LOAD),
    Scale.FULL: Size(300, 20, 60, 768, 2**30, 1000, LOADS),
}


@dataclass(slots=True)
class Found:
    """By engine and load. `ended` says of those that were cut short or left out why."""

    summaries: dict[tuple[str, float], Summary] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    ended: dict[tuple[str, float], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bench:
    """What does not change during a run."""

    places: Places
    folder: Path
    notes: str
    size: Size
    console: Console

    def replay(
        self, engine: Engine, asks: Sequence[Ask], patience: Patience | None = None
    ) -> Replayed:
        """Raises EngineRefused, EngineFailed."""
        python = self.places.python(engine.environment)
        model = self.folder if engine.source == FOLDER else self.places.models / engine.source
        for path in (python, model):
            if not path.exists():
                raise EngineRefused(f"{path.name} is not installed: python -m benchmarks.peers")
        kv_block = block_bytes(self.folder)
        cell = Cell(
            model=str(model),
            weights=engine.weights,
            threads=THREADS,
            cores=tuple(cores_for(THREADS)),
            device_bytes=self.size.device_blocks * kv_block,
            host_bytes=self.size.host_bytes,
            notes=self.notes,
            programs=str(self.places.programs),
            options={"kv_token_bytes": str(kv_block // BLOCK_TOKENS // HALF), **engine.options},
        )
        command = command_of(python, engine.module)
        return run_cell(command, cell, asks, patience or Patience(), CELL_LIMIT_S)


@dataclass(frozen=True, slots=True)
class Probed:
    """Our engine without a cache: median seconds to a first token alone, and requests per second
    when all are there at once."""

    alone_s: float
    per_s: float


def run(scale: Scale, console: Console) -> Outcome:
    """Replays every engine that is installed. Raises CannotRun without the trace, or with fewer
    cores than threads."""
    size = SIZES[scale]
    if len(os.sched_getaffinity(0)) < THREADS:
        raise CannotRun(f"{THREADS} cores are needed")
    trace, places = load_trace(), Places.standard()
    folder = model_folder(places)
    asks = trace.asks(size.num_requests, read_json(folder / "config.json")["vocab_size"], SEED)
    bound = reusable(asks)
    engines = [e for e in ENGINES if e.quick or scale is Scale.FULL]
    found = Found()
    with TemporaryDirectory(prefix="thoth-rag-") as notes:
        bench = Bench(places, folder, notes, size, console)
        probed = _probe(bench, asks)
        slo_s = SLO_FACTOR * probed.alone_s
        console.print(_estimate(engines, size, probed, bound), soft_wrap=True)
        for load in size.loads:
            for engine in (e for e in engines if load in e.loads):
                _measure(bench, engine, load, at_rate(asks, load * probed.per_s), slo_s, found)
    told = timed(size.num_trials, SEED)
    replays = Replays(found.summaries, bound, slo_s)
    rows = rows_of(engines, size.loads, replays, found.ended, probed.per_s)
    peers = [e.name for e in engines if not e.ours]
    verdicts = [
        _attendance(found),
        hits(replays, CACHED, peers),
        work_saved(replays, CACHED, NO_CACHE),
        ttft(replays, CACHED, peers),
        *tenants(told.stranger.auc, told.own.auc, size.num_trials),
    ]
    return Outcome(list(rows), verdicts, SEED)


def _attendance(found: Found) -> Verdict:
    """Who misses the SLO takes part too, though not to the end."""
    verdict = Attendance(found.versions, found.missing).verdict()
    beside = "; ".join(f"{name}: {why}" for name, why in ABSENT.items())
    measured = f"{verdict.measured}. Not of the table: {beside}"
    return replace(verdict, aim="every engine of the table takes part", measured=measured)


def _probe(bench: Bench, asks: Sequence[Ask]) -> Probed:
    """The first requests one by one, then others at once. Raises CannotRun."""
    (plain,) = (e for e in ENGINES if e.name == NO_CACHE)
    num_alone, size = bench.size.num_alone, bench.size
    together_s = num_alone * APART_S
    coming = [
        replace(ask, at_s=min(i * APART_S, together_s))
        for i, ask in enumerate(asks[: num_alone + size.num_at_once])
    ]
    try:
        served = bench.replay(plain, coming).served
    except (EngineRefused, EngineFailed) as error:
        raise CannotRun(f"{NO_CACHE}: {error}") from error
    alone = [each.ttft_s for each in served if each.at_s < together_s]
    last_s = max(each.done_s for each in served)
    return Probed(median(alone), size.num_at_once / (last_s - together_s))


def _estimate(engines: Sequence[Engine], size: Size, probed: Probed, bound: float) -> str:
    """Peers are taken to need as long as ours with a cache."""
    plain_s = size.num_requests / probed.per_s
    cells = [e for e in engines for _ in e.loads_of(size.loads)]
    seconds = sum(START_S + plain_s * (1 if e.name == NO_CACHE else 1 - bound) for e in cells)
    return (
        f"{probed.per_s:.2f} requests/s without a cache, first token alone after "
        f"{probed.alone_s:.3f} s; {len(cells)} cells: about {seconds / 60:.0f} minutes"
    )


def _measure(
    bench: Bench, engine: Engine, load: float, asks: Sequence[Ask], slo_s: float, found: Found
) -> None:
    key = (engine.name, load)
    if engine.name in found.missing:
        found.ended[key] = found.missing[engine.name]
        return
    missed = [
        at
        for (who, at), summary in found.summaries.items()
        if who == engine.name and not summary.meets(slo_s)
    ]
    if missed and not engine.ours:
        found.ended[key] = f"left out: it missed the SLO at load {min(missed)}"
        return
    late = Patience(slo_s, int(LATE_SHARE * len(asks))) if not engine.ours else Patience()
    bench.console.print(f"load {load}: {engine.name}")
    try:
        replayed = bench.replay(engine, asks, late)
    except (EngineRefused, EngineFailed) as error:
        found.missing[engine.name] = found.ended[key] = str(error)
        bench.console.print(f"left out: {engine.name}: {error}", markup=False)
        return
    found.versions[engine.name] = replayed.version
    found.summaries[key] = Summary.of(replayed.served, len(asks))
    if not found.summaries[key].is_whole:
        found.ended[key] = f"ended after {len(replayed.served)} of {len(asks)} requests, too late"

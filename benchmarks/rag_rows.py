"""The table of a replay: a row for every engine and load, also for those that were left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.rag_engines import Engine
from benchmarks.rag_numbers import Hits, Summary, per_s_at
from benchmarks.rag_verdicts import Replays
from benchmarks.result import Cell, Row

UNKNOWN = "-"


def rows_of(
    engines: Sequence[Engine],
    loads: Sequence[float],
    replays: Replays,
    ended: Mapping[tuple[str, float], str],
    capacity_per_s: float,
) -> Iterator[Row]:
    for engine in engines:
        at_slo = per_s_at(replays.slo_s, replays.at(engine.name).values())
        for load in (load for load in loads if load in engine.loads):
            key = (engine.name, load)
            summary = replays.summaries.get(key)
            yield {
                "engine": engine.name,
                "weights": engine.precision.value,
                "load": load,
                "arrivals_per_s": load * capacity_per_s,
                **_times(summary, replays.slo_s),
                "per_s_at_slo": at_slo if replays.at(engine.name) else UNKNOWN,
                **_hits(summary.hits if summary else None, replays.bound),
                "slo_s": replays.slo_s,
                "note": ended.get(key, ""),
            }


def _times(summary: Summary | None, slo_s: float) -> dict[str, Cell]:
    names = ("mean_ttft_s", "p50_ttft_s", "p99_ttft_s", "per_s")
    if summary is None:
        return dict.fromkeys((*names, "meets_slo"), UNKNOWN)
    found: dict[str, Cell] = {name: getattr(summary, name) for name in names}
    return found | {"meets_slo": "yes" if summary.meets(slo_s) else "no"}


def _hits(hits: Hits | None, bound: float) -> dict[str, Cell]:
    """Shares of the prompt tokens, and prompt tokens; `bound` is what `hit` could come to."""
    names = ("hit", "hit_device", "hit_host", "hit_disk", "computed_tokens", "saved")
    if hits is None:
        return dict.fromkeys(names, UNKNOWN) | {"bound": bound}
    return {
        "hit": hits.rate,
        "hit_device": hits.device / hits.prompt,
        "hit_host": hits.host / hits.prompt,
        "hit_disk": hits.disk / hits.prompt,
        "computed_tokens": hits.computed,
        "saved": hits.prompt / max(1, hits.computed),
        "bound": bound,
    }

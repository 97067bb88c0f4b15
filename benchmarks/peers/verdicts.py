"""What the measurements say: ahead of the best of equal weight precision, and of everyone.

Ahead is ahead twice, per CPU second and per wall second, so that neither idle cores nor spinning
ones make an engine look good. Where the best peer comes to 85% of what the machine can do, the same
is enough for us.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.peers.catalogue import Precision, Variant
from benchmarks.peers.cells import Point, Rate, Rates
from benchmarks.result import Verdict

ENOUGH_OF_BOUND = 0.85

# Tokens per CPU second, for weights of one width.
Bounds = Mapping[tuple[Precision, Point], float]


@dataclass(frozen=True, slots=True)
class Attendance:
    """Who took part: versions by variant, and why the others did not."""

    versions: Mapping[str, str]
    missing: Mapping[str, str]

    def verdict(self) -> Verdict:
        there = "; ".join(f"{name} ({version})" for name, version in self.versions.items())
        away = "; ".join(f"{name}: {why}" for name, why in self.missing.items())
        said = f"took part: {there or 'nobody'}"
        return Verdict(
            "every engine of the table takes part to the end",
            f"{said}. Left out: {away}" if away else said,
            not away,
        )


def equal_precision(variants: Sequence[Variant], rates: Rates, bounds: Bounds) -> list[Verdict]:
    """One for each of our variants and points at which a peer of its width was measured."""
    found = []
    for ours in (v for v in variants if v.ours):
        rivals = [v for v in variants if not v.ours and v.precision is ours.precision]
        for point, rate in rates.get(ours.name, {}).items():
            theirs = {
                v.name: rates[v.name][point] for v in rivals if point in rates.get(v.name, {})
            }
            if theirs:
                bound = bounds.get((ours.precision, point))
                found.append(_against_best(ours, point, rate, theirs, bound))
    return found


def _against_best(
    ours: Variant, point: Point, rate: Rate, theirs: Mapping[str, Rate], bound: float | None
) -> Verdict:
    by_cpu = max(theirs, key=lambda name: theirs[name].per_cpu_s)
    by_wall = max(theirs, key=lambda name: theirs[name].per_s)
    best_cpu, best_wall = theirs[by_cpu].per_cpu_s, theirs[by_wall].per_s
    ahead = rate.per_cpu_s >= best_cpu and rate.per_s >= best_wall
    measured = (
        f"{rate.per_cpu_s / best_cpu:.2f}x {by_cpu} per CPU second "
        f"({rate.per_cpu_s:.0f} against {best_cpu:.0f}), "
        f"{rate.per_s / best_wall:.2f}x {by_wall} per wall second"
    )
    if bound is not None:
        measured += f"; of the bound {rate.per_cpu_s / bound:.0%} and {best_cpu / bound:.0%}"
        ahead = ahead or min(rate.per_cpu_s, best_cpu) >= ENOUGH_OF_BOUND * bound
    aim = f"{ours.name} ahead of the best peer with {ours.precision} weights: {point}"
    return Verdict(aim, measured, ahead)


def every_peer(variants: Sequence[Variant], rates: Rates) -> list[Verdict]:
    """One for each pair of ours and a peer, with every point that both reached, lost ones first."""
    return [
        verdict
        for ours in variants
        if ours.ours
        for peer in variants
        if not peer.ours
        for verdict in _pair(ours, peer, rates)
    ]


def _pair(ours: Variant, peer: Variant, rates: Rates) -> Iterator[Verdict]:
    mine, theirs = rates.get(ours.name, {}), rates.get(peer.name, {})
    ratios = {p: mine[p].per_cpu_s / theirs[p].per_cpu_s for p in mine if p in theirs}
    if not ratios:
        return
    lost = {p: ratio for p, ratio in ratios.items() if ratio < 1}
    won = {p: ratio for p, ratio in ratios.items() if ratio >= 1}
    aim = f"{ours.name} ahead of {peer.name} ({peer.precision} weights) per CPU second everywhere"
    parts = [f"{word} {_listed(part)}" for word, part in (("lost", lost), ("won", won)) if part]
    yield Verdict(aim, "; ".join(parts), not lost)


def _listed(ratios: Mapping[Point, float]) -> str:
    return ", ".join(f"{p.cell}/{p.threads} {ratio:.2f}x" for p, ratio in ratios.items())

"""What the rows say about the design's figures: some it confirms, some it corrects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from benchmarks.cache_cases import MIDDLE, MOONCAKE, RAGPULSE, SIZES, Case, policy_sizes
from benchmarks.cache_replay import GRID, Bound
from benchmarks.cache_traces import Order
from benchmarks.result import Verdict
from cluster.knowledge.node import Admission
from cluster.knowledge.policies import PolicyName


@dataclass(frozen=True, slots=True)
class Find:
    """Of a case: the shares of the prompt tokens and of the prefill seconds that a cache saved, and
    the blocks that it moved from the device to the host."""

    reused: float
    work_saved: float
    moved_out: int


Found = Mapping[Case, Find]
Bounds = Mapping[tuple[str, Order], Bound]

LEAST_OF_BOUND = 0.9
LEAST_WORK_RATIO = 2.1
# A difference of a tenth of a percentage point is none.
TOLERANCE = 0.001


def verdicts(found: Found, bounds: Bounds) -> list[Verdict]:
    """What caches with limits found, beside one without."""
    return [*_reached(found, bounds), *_policies(found), *_defaults(found)]


def expected(bounds: Bounds) -> Iterator[Verdict]:
    """Figures that an earlier simulator gave for the whole trace, with a cache that keeps all."""
    retrieval = bounds[RAGPULSE, Order.RETRIEVAL]
    canonical = bounds[RAGPULSE, Order.CANONICAL].totals.documents_reused
    sent = bounds[RAGPULSE, Order.SENT].totals.documents_reused
    yield _near("in retrieval order", retrieval.totals.documents_reused, 0.29)
    yield _near("sorted by id", canonical, 0.38)
    yield Verdict(
        "RAGPulse: what changes with time and user, before the passages, leaves nothing of them "
        "to reuse (under 1%)",
        f"{sent:.2%} of the passages' tokens",
        sent < 0.01,
    )
    yield Verdict(
        "RAGPulse: 88% of the nodes are used once (within a point)",
        f"{retrieval.used_once:.1%} of {len(retrieval.uses)}",
        abs(retrieval.used_once - 0.88) <= 0.01,
    )


def _near(what: str, measured: float, expected: float) -> Verdict:
    return Verdict(
        f"RAGPulse: a cache that keeps all reuses {expected:.0%} of the passages' tokens {what} "
        "(within a point)",
        f"{measured:.1%}",
        abs(measured - expected) <= 0.01,
    )


def _reached(found: Found, bounds: Bounds) -> Iterator[Verdict]:
    for trace in (RAGPULSE, MOONCAKE):
        case = Case.of(trace)
        most = bounds[trace, case.order].totals
        share = found[case].reused / most.reused
        yield Verdict(
            f"{trace}: a cache of {case.tiers} tokens finds {LEAST_OF_BOUND:.0%} of what one "
            "without limit does",
            f"{share:.0%} ({found[case].reused:.1%} of {most.reused:.1%})",
            share >= LEAST_OF_BOUND,
        )
    ratio = bounds[RAGPULSE, Order.RETRIEVAL].totals.work_ratio
    canonical = bounds[RAGPULSE, Order.CANONICAL].totals.work_ratio
    yield Verdict(
        f"RAGPulse: {LEAST_WORK_RATIO}x less prefill than without a cache",
        f"a cache that keeps all: {ratio:.2f}x in retrieval order, {canonical:.2f}x sorted by id "
        f"(T of {GRID})",
        max(ratio, canonical) >= LEAST_WORK_RATIO,
    )


def _policies(found: Found) -> Iterator[Verdict]:
    """PGDSF against each of the others, at every size."""
    tokens = {case: find.reused for case, find in found.items()}
    seconds = {case: find.work_saved for case, find in found.items()}
    for other in (PolicyName.GDSF, PolicyName.LFU, PolicyName.LRU):
        pairs = [
            (case, replace(case, policy=other))
            for trace in SIZES
            for tiers in policy_sizes(trace)
            for case in [replace(Case.of(trace, tiers), policy=PolicyName.PGDSF)]
        ]
        name = other.upper()
        yield _ahead(f"PGDSF reuses the tokens that {name} does, at every size", pairs, tokens)
        aim = f"PGDSF saves the prefill seconds that {name} does, at every size"
        yield _ahead(aim, pairs, seconds)
    case = Case.of(RAGPULSE)
    textbook = [(case, replace(case, policy=other).forgetful) for other in PolicyName]
    aim = "the default reuses the tokens that policies do which forget what has left"
    yield _ahead(aim, textbook, tokens)


def _ahead(aim: str, pairs: list[tuple[Case, Case]], shares: Mapping[Case, float]) -> Verdict:
    """Whether the first of each pair saves at least what the second does."""
    ahead = {pair: shares[pair[0]] - shares[pair[1]] for pair in pairs}
    num_met = sum(difference >= -TOLERANCE for difference in ahead.values())
    said = ", ".join(f"{_name(*pair)} {100 * points:+.2f}" for pair, points in ahead.items())
    return Verdict(
        aim, f"{num_met} of {len(pairs)}; percentage points: {said}", num_met == len(pairs)
    )


def _name(ours: Case, other: Case) -> str:
    return f"{ours.trace} {ours.tiers} {other.policy}"


def _defaults(found: Found) -> Iterator[Verdict]:
    yield _admission(found)
    for trace in MIDDLE:
        case = Case.of(trace)
        without = found[replace(case, num_ghosts=0)].reused
        yield Verdict(
            f"{trace}: to remember what has left is worth a point",
            f"{without:.1%} -> {found[case].reused:.1%} of the tokens",
            found[case].reused - without >= 0.01,
        )
        yield _half_life(case, found)


def _admission(found: Found) -> Verdict:
    """What is used once and not copied saves bytes, and costs nothing."""
    cases = [Case.of(trace, tiers) for trace in SIZES for tiers in SIZES[trace]]
    said, met = [], True
    for case in cases:
        some = found[replace(case, admission=Admission.REUSED)]
        every = found[replace(case, admission=Admission.ALL)]
        gained = some.reused - every.reused
        met = met and some.moved_out <= every.moved_out and gained >= -TOLERANCE
        said.append(
            f"{case.trace} {case.tiers} {some.moved_out / max(1, every.moved_out):.2f}x the "
            f"blocks, {100 * gained:+.2f} points"
        )
    return Verdict(
        "admission of what was used twice moves no more, and reuses no less, than of all",
        "; ".join(said),
        met,
    )


def _half_life(case: Case, found: Found) -> Verdict:
    """Over all that were tried, ghosts or none."""
    tried = {
        other: find.reused
        for other, find in found.items()
        if replace(other, half_life=case.half_life, num_ghosts=case.num_ghosts) == case
    }
    best = max(tried, key=lambda other: tried[other])
    return Verdict(
        f"{case.trace}: no other half life or number of ghosts gains half a point",
        f"{case.half_life:.0f} and {case.num_ghosts}: {tried[case]:.1%}; "
        f"best of {len(tried)}: {best.half_life:.0f} and {best.num_ghosts}: {tried[best]:.1%}",
        tried[best] - tried[case] <= 0.005,
    )

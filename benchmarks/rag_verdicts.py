"""What the replay says about the aims: hits against the bound, work saved, time to first token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.rag_numbers import Summary
from benchmarks.result import Verdict

OF_BOUND = 0.9
WORK_SAVED = 2.1
TTFT_GAIN = 4.0
# Tokens of an AUC on either side of one half.
AUC_SLACK = 0.05
AUC_CONTROL = 0.9


@dataclass(frozen=True, slots=True)
class Replays:
    """By engine and load. `bound` is the share of prompt tokens that memory without end would
    have found; `slo_s` the 99th percentile of the time to first token that is asked for."""

    summaries: Mapping[tuple[str, float], Summary]
    bound: float
    slo_s: float

    def at(self, name: str) -> dict[float, Summary]:
        return {load: each for (who, load), each in self.summaries.items() if who == name}

    def hit_rate(self, name: str, load: float) -> float | None:
        """None: the engine does not tell."""
        summary = self.summaries.get((name, load))
        return None if summary is None or summary.hits is None else summary.hits.rate

    def left_to_compute(self, peer: str, ours: str, load: float) -> float | None:
        """(1 - h_peer) / (1 - h_ours): how much more a peer has to compute. A peer that does not
        tell is taken to find whatever can be found."""
        rate = self.hit_rate(ours, load)
        if rate is None or (peer, load) not in self.summaries:
            return None
        theirs = self.hit_rate(peer, load)
        return (1 - (self.bound if theirs is None else theirs)) / (1 - rate)


def hits(replays: Replays, ours: str, peers: Sequence[str]) -> Verdict:
    """At the load with the fewest."""
    rates = {
        load: rate
        for load in replays.at(ours)
        if (rate := replays.hit_rate(ours, load)) is not None
    }
    aim = f"{OF_BOUND:.0%} of the token hits that reuse in retrieval order allows: {ours}"
    if not rates:
        return Verdict(aim, "not measured", met=False)
    load = min(rates, key=lambda each: rates[each])
    rate = rates[load]
    beside = ", ".join(_left(replays, peer, ours, load) for peer in peers)
    measured = f"{rate:.1%} of {replays.bound:.1%} at load {load}"
    if beside:
        measured += f"; (1 - h_peer)/(1 - h_ours): {beside}"
    return Verdict(aim, measured, met=rate >= OF_BOUND * replays.bound)


def _left(replays: Replays, peer: str, ours: str, load: float) -> str:
    ratio = replays.left_to_compute(peer, ours, load)
    if ratio is None:
        return f"{peer} not measured"
    told = replays.hit_rate(peer, load) is not None
    return f"{peer} {ratio:.2f}" if told else f"{peer} at least {ratio:.2f}, it does not tell"


def work_saved(replays: Replays, ours: str, plain: str) -> Verdict:
    """Prompt tokens that were computed, at the load where least is saved."""
    aim = f"{WORK_SAVED}x less prefill work than without a cache: {ours}"
    ratios = {}
    for load, summary in replays.at(ours).items():
        without = replays.summaries.get((plain, load))
        if summary.hits is not None and without is not None and without.hits is not None:
            ratios[load] = without.hits.computed / max(1, summary.hits.computed)
    if not ratios:
        return Verdict(aim, "not measured", met=False)
    load = min(ratios, key=lambda each: ratios[each])
    most = 1 / (1 - replays.bound)
    measured = f"{ratios[load]:.2f}x at load {load}; memory without end: {most:.2f}x"
    return Verdict(aim, measured, met=ratios[load] >= WORK_SAVED)


def ttft(replays: Replays, ours: str, peers: Sequence[str]) -> Verdict:
    """Mean time to first token at the highest load at which a peer meets the SLO, against the best
    that does; where none does, at the lowest load, against the best of all."""
    aim = (
        f"{TTFT_GAIN:.0f}x the mean TTFT of the best peer, at the highest load at which it meets "
        f"the SLO: {ours}"
    )
    theirs = {
        (load, peer): summary
        for peer in peers
        for load, summary in replays.at(peer).items()
        if load in replays.at(ours)
    }
    if not theirs:
        return Verdict(aim, "no peer was measured", met=False)
    meeting = {key: each for key, each in theirs.items() if each.meets(replays.slo_s)}
    chosen = meeting or theirs
    load = max(load for load, _ in meeting) if meeting else min(load for load, _ in theirs)
    peer = min((p for at, p in chosen if at == load), key=lambda p: chosen[load, p].mean_ttft_s)
    mean_s, our_s = chosen[load, peer].mean_ttft_s, replays.at(ours)[load].mean_ttft_s
    measured = f"{mean_s / our_s:.2f}x {peer} at load {load}: {our_s:.3f} s against {mean_s:.3f} s"
    if not meeting:
        measured += "; no peer meets the SLO at any load"
    return Verdict(aim, measured, met=mean_s >= TTFT_GAIN * our_s)


def tenants(stranger: float, own: float, num_trials: int) -> Iterator[Verdict]:
    """From the AUC of a stranger's document and of one's own."""
    yield Verdict(
        f"tenant B's TTFT does not tell whether A used the document: AUC 0.5 +- {AUC_SLACK}",
        f"{stranger:.3f}, {num_trials:,} a class",
        met=abs(stranger - 0.5) <= AUC_SLACK,
    )
    yield Verdict(
        f"A's own does, so it could be seen: AUC at least {AUC_CONTROL}",
        f"{own:.3f}, {num_trials:,} a class",
        met=own >= AUC_CONTROL,
    )

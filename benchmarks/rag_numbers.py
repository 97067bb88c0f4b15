"""What observations come to: tails, throughput, hit rates, and how far two classes are apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean

from benchmarks.rag_clock import Reuse, Served


def quantile(values: Sequence[float], share: float) -> float:
    """By nearest rank: the least value that is not below so large a share of them. Raises
    ValueError without values."""
    if not values:
        raise ValueError("no observations")
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


@dataclass(frozen=True, slots=True)
class Hits:
    """Prompt tokens found in the tiers and computed; `computed` counts again what was lost and
    computed again."""

    prompt: int
    device: int
    host: int
    disk: int
    computed: int

    @classmethod
    def of(cls, reuses: Iterable[Reuse], prompt_tokens: int) -> Hits:
        told = list(reuses)
        return cls(
            prompt_tokens,
            sum(reuse.device for reuse in told),
            sum(reuse.host for reuse in told),
            sum(reuse.disk for reuse in told),
            sum(reuse.computed for reuse in told),
        )

    @property
    def rate(self) -> float:
        return (self.device + self.host + self.disk) / self.prompt


@dataclass(frozen=True, slots=True)
class Summary:
    """Of one replay. `hits` None: the server does not tell. `is_whole` False: it was ended early,
    and the numbers are of those served until then."""

    mean_ttft_s: float
    p50_ttft_s: float
    p99_ttft_s: float
    per_s: float
    hits: Hits | None
    is_whole: bool = True

    @classmethod
    def of(cls, served: Sequence[Served], num_asked: int) -> Summary:
        """Raises ValueError when nobody was served."""
        ttfts = [each.ttft_s for each in served]
        p50_ttft_s = quantile(ttfts, 0.5)
        span_s = max(each.done_s for each in served) - min(each.at_s for each in served)
        reuses = [each.reuse for each in served if each.reuse is not None]
        prompt_tokens = sum(each.prompt_tokens for each in served)
        return cls(
            mean_ttft_s=fmean(ttfts),
            p50_ttft_s=p50_ttft_s,
            p99_ttft_s=quantile(ttfts, 0.99),
            per_s=len(served) / span_s,
            hits=Hits.of(reuses, prompt_tokens) if len(reuses) == len(served) else None,
            is_whole=len(served) == num_asked,
        )

    def meets(self, slo_s: float) -> bool:
        return self.is_whole and self.p99_ttft_s <= slo_s


def per_s_at(slo_s: float, summaries: Iterable[Summary]) -> float:
    """The largest throughput among replays that meet the SLO; 0 when none does."""
    return max((each.per_s for each in summaries if each.meets(slo_s)), default=0.0)


def auc(low: Sequence[float], high: Sequence[float]) -> float:
    """The chance that one of `high` is larger than one of `low`, ties counting half: 0.5 when the
    classes cannot be told apart (Mann and Whitney). Raises ValueError for an empty class."""
    if not low or not high:
        raise ValueError("a class has no observations")
    marked = sorted([(value, 0) for value in low] + [(value, 1) for value in high])
    wins, num_below, start = 0.0, 0, 0
    while start < len(marked):
        end = start
        while end < len(marked) and marked[end][0] == marked[start][0]:
            end += 1
        num_high = sum(label for _, label in marked[start:end])
        num_low = end - start - num_high
        wins += num_high * (num_below + num_low / 2)
        num_below += num_low
        start = end
    return wins / (len(low) * len(high))

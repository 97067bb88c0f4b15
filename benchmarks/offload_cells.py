"""What is measured: which load, on how small a device, beside how quick a host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from benchmarks.catalogue import Scale
from benchmarks.offload_load import Grid, Traced, traces
from benchmarks.offload_rig import GPU_ONLY, TWO_THREADS, UNCAPPED, Setup, Way
from benchmarks.result import CannotRun
from cluster.engine.options import WeightFormat
from cluster.scheduling.offload import OffloadMode

# The host's speed as a share of a core.
SHARES = (1.0, 0.2, 0.1, 0.05)
FEW_SHARES = (1.0, 0.1)
# Tokens that a capped device has room for; 0: no pressure.
TIGHT, WIDE, ALL = 1280, 3840, 0
# Of gpu_only's requests a second when all come at once.
MODERATE, HIGH = 0.7, 1.0
COUNTS = {Scale.QUICK: 16, Scale.FULL: 20}
ROUNDS = {Scale.QUICK: 2, Scale.FULL: 5}
# All requests at once, and none longer than this.
MOST_REQUEST_TOKENS = 1056


@dataclass(frozen=True, slots=True)
class Case:
    """`rate` is a share of gpu_only's throughput; `inf`: all requests come at once."""

    lengths: Grid | Traced
    cap_tokens: int = TIGHT
    rate: float = inf
    weights: WeightFormat = WeightFormat.FLOAT32
    shares: tuple[float, ...] = SHARES

    @property
    def arrivals(self) -> str:
        return "at once" if self.rate == inf else f"{self.rate:g} of gpu_only"

    @property
    def ways(self) -> tuple[Way, ...]:
        """In their turn. What a device of room for everything makes of another pool is the same."""
        offloading = [
            Way(mode, share)
            for share in self.shares
            for mode in (OffloadMode.NEO, OffloadMode.ADAPTIVE)
        ]
        others = (UNCAPPED, TWO_THREADS) if self.cap_tokens else ()
        return (GPU_ONLY, *offloading, *others)

    def setup(self, count: int) -> Setup:
        return Setup(self.weights, self.cap_tokens, count * MOST_REQUEST_TOKENS)

    def __str__(self) -> str:
        cap = f"{self.cap_tokens} tokens" if self.cap_tokens else "no cap"
        return f"{self.lengths}, {cap}, {self.arrivals}, {self.weights}"


def cases(scale: Scale) -> tuple[list[Case], str]:
    """Those of one setup together; and in words what is left out."""
    middle = Grid(192, 64)
    if scale is Scale.QUICK:
        return [
            Case(middle, shares=FEW_SHARES),
            Case(middle, ALL, shares=(1.0,)),
        ], "the traces, other caps, rates and lengths are left out of the quick run"
    try:
        of_services, left_out = list(_traced()), ""
    except CannotRun as reason:
        of_services, left_out = [], f"the traces are skipped: {reason}"
    return [
        *of_services,
        Case(Grid(128, 64)),
        Case(middle),
        Case(middle, rate=MODERATE, shares=FEW_SHARES),
        Case(middle, rate=HIGH, shares=FEW_SHARES),
        Case(Grid(512, 16)),
        Case(middle, WIDE),
        Case(middle, weights=WeightFormat.INT8),
        Case(middle, ALL, shares=FEW_SHARES),
        Case(middle, ALL, MODERATE, shares=FEW_SHARES),
    ], left_out


def _traced() -> Iterator[Case]:
    for trace in traces():
        for rate in (inf, MODERATE):
            yield Case(trace, rate=rate, shares=SHARES if rate == inf else FEW_SHARES)

"""When two sub-batches pay, on machines made for the question: decoding alone, linear operators
that take as long for one row as for all, and nothing else that costs time.

With N_G and N_C keys a second of the device's attention and the host's, and T_l and T_a seconds of
the device's linear operators and attention, in rows a second (APEX, arXiv 2506.03296):

    device alone       N_G T_a / (T_l + T_a)
    two sub-batches    (N_G T_a + N_C (2 T_l + T_a)) / (2 T_l + T_a)
    it pays if         N_G / N_C < 2 T_l / T_a + 3 + T_a / T_l

at least 5.83, where T_a is 1.41 T_l, and 6 where they are alike.

A plan that NEO does not have, rows of the host beside the device's attention in one batch, is
better than the device alone at any ratio, for T_l is paid already. Beside it two sub-batches pay if
N_G / N_C < 2 T_l / T_a + 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.catalogue import Scale
from benchmarks.offload_sim_clock import SimulatedEngine, Step
from benchmarks.offload_sim_load import request_of
from cluster.blocks.pool import BlockPool, blocks_for
from cluster.knowledge.cache import no_cache
from cluster.scheduling.curves import line
from cluster.scheduling.iteration import IterationScheduler
from cluster.scheduling.limits import IterationLimits
from cluster.scheduling.offload import Offload, OffloadMode
from cluster.scheduling.plan import PlanKind
from cluster.scheduling.stages import StageCosts

LINEAR_S = 0.01
# Long, so that what an answer adds in the steps that are looked at hardly counts.
PROMPT_TOKENS, ANSWER_TOKENS = 1600, 200
DEVICE_ROWS, HOST_ROWS = 30, 100
STEPS = 30
# Nobody on the host is promised a row, as in the published scheduler: the promise is kept even
# where it does not pay.
NO_PROMISE = 2**20
RATIOS = (1.0, 2.0, 4.0, 5.0, 7.5, 10.0, 16.0)
SHARES = {Scale.QUICK: (1.0,), Scale.FULL: (0.5, 1.0, 3.0)}
# Rows are whole and contexts grow: this near to the border either is right.
BORDER = 0.1


@dataclass(frozen=True, slots=True)
class Point:
    """N_G / N_C, T_a / T_l, whether two sub-batches were planned, and the rows a second of what was
    planned."""

    ratio: float
    share: float
    is_two_batch: bool
    rows_per_s: float

    @property
    def border(self) -> float:
        return 2 / self.share + 3 + self.share

    @property
    def border_of_one(self) -> float:
        """Between two sub-batches and one with rows of the host."""
        return 2 / self.share + 1

    def is_clear_of(self, border: float) -> bool:
        return abs(self.ratio / border - 1) > BORDER


Grid = dict[OffloadMode, list[Point]]


def grid(scale: Scale) -> Grid:
    return {
        mode: [point(mode, ratio, share) for share in SHARES[scale] for ratio in RATIOS]
        for mode in OffloadMode
    }


def point(mode: OffloadMode, ratio: float, share: float) -> Point:
    """Decodes until nothing else is left to do, and then some; the last steps are looked at."""
    engine = _engine(mode, ratio, share)
    for number in range(DEVICE_ROWS + HOST_ROWS):
        engine.arrived(request_of(number, PROMPT_TOKENS, ANSWER_TOKENS))
    steps: list[Step] = []
    while len(steps) < STEPS:
        step = engine.step()
        is_decoding = all(len(chunk.token_ids) == 1 for chunk in step.plan.chunks)
        steps = [*steps, step] if is_decoding else []
    late = steps[STEPS // 2 :]
    num_two = sum(step.plan.why.kind is PlanKind.TWO_BATCH for step in late)
    rows = sum(step.num_tokens for step in late)
    return Point(ratio, share, 2 * num_two > len(late), rows / sum(s.seconds for s in late))


def _engine(mode: OffloadMode, ratio: float, share: float) -> SimulatedEngine:
    """The device's pool holds its rows as long as they are looked at, and a twentieth beside, so
    that nothing moves; prompts cost nothing."""
    context = PROMPT_TOKENS + STEPS // 2
    key_s = share * LINEAR_S / (DEVICE_ROWS * context)
    limits = IterationLimits(2**17, 1024, 1024, 2**12)
    blocks = int(DEVICE_ROWS * blocks_for(PROMPT_TOKENS + 2 * STEPS) / 0.95)
    cache = no_cache(BlockPool(blocks), host_blocks=64 * blocks)
    costs = [_costs(key_s, ratio * key_s) for _ in range(2)]
    offload = Offload(mode, NO_PROMISE, 1.0, costs[0])
    return SimulatedEngine(IterationScheduler(limits, cache, offload), costs[1], mode)


def _costs(key_s: float, host_key_s: float) -> StageCosts:
    return StageCosts(
        linear=line(0.0, LINEAR_S), prefill=line(0.0), decode=line(key_s), host=line(host_key_s)
    )

"""What a decoding request keeps from step to step."""

from __future__ import annotations

import pytest

from cluster.blocks.pool import BlockPool
from cluster.errors import InvariantBroken
from cluster.ids import RequestId
from cluster.knowledge.cache import no_cache
from cluster.request import Request, Sampling
from cluster.scheduling.iteration import IterationScheduler
from cluster.scheduling.limits import IterationLimits
from cluster.scheduling.sequence import Sequence

ID = RequestId("r")


@pytest.fixture
def scheduler() -> IterationScheduler:
    """With a request that has its first token."""
    made = IterationScheduler(IterationLimits(64, 4, 4, 400), no_cache(BlockPool(16)))
    made.arrived(Request(ID, ((1,) * 20, (1,) * 10), Sampling(max_tokens=20), 1e9), 0.0)
    step(made)
    return made


def step(scheduler: IterationScheduler) -> None:
    scheduler.plan(0.0)
    scheduler.record({ID: 1}, 0.0)


def sequence_of(scheduler: IterationScheduler) -> Sequence:
    (sequence,) = scheduler.requests.running
    return sequence


def test_a_row_is_looked_up_only_where_its_segment_needs_a_block(
    scheduler: IterationScheduler,
) -> None:
    kept = []
    for _ in range(16):
        kept.append(sequence_of(scheduler).has_row)
        step(scheduler)
        scheduler.check()
    # The last segment has ten tokens of the prompt: six rows, and sixteen after the next block.
    assert kept == [True] * 6 + [False] + [True] * 9


def test_whoever_gives_up_its_blocks_keeps_nothing(scheduler: IterationScheduler) -> None:
    sequence = sequence_of(scheduler)
    assert sequence.still
    scheduler.requests.preempt(sequence)
    assert not sequence.has_row
    assert not sequence.still


def test_what_is_kept_and_true_no_more_is_noticed(scheduler: IterationScheduler) -> None:
    sequence_of(scheduler).room_until += 16
    with pytest.raises(InvariantBroken, match="keeps what is true no more"):
        scheduler.check()

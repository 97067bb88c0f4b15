"""What the simulator of machines reckons with: their sheets, loads and copies."""

from __future__ import annotations

from math import inf

import pytest

from benchmarks.hardware import (
    A10G,
    G5,
    LLAMA_2_7B,
    LLAMA_3_8B,
    LLAMA_3_70B,
    T4,
    device_blocks,
    stage_costs,
)
from benchmarks.offload_sim_clock import Bus, work_of
from benchmarks.offload_sim_load import Lengths, Load
from benchmarks.offload_sim_pays import Point
from benchmarks.offload_sim_verdicts import sides
from cluster.blocks.segment import Home, SegmentView
from cluster.ids import BlockId, RequestId
from cluster.knowledge.commands import PageIn, PageOut
from cluster.scheduling.plan import Chunk, StepPlan
from cluster.scheduling.stages import Work


def chunk(start: int, rows: int, home: Home) -> Chunk:
    blocks = tuple(map(BlockId, range(-(-(start + rows) // 16))))
    view = SegmentView(blocks, start + rows, home)
    return Chunk(RequestId("r"), start, (1,) * rows, (view,), None)


def test_models_have_the_weights_and_keys_that_are_published() -> None:
    assert LLAMA_2_7B.weight_bytes == pytest.approx(2 * 6.738e9, rel=0.001)
    assert LLAMA_3_8B.weight_bytes == pytest.approx(2 * 8.030e9, rel=0.001)
    assert LLAMA_3_70B.weight_bytes == pytest.approx(2 * 70.55e9, rel=0.001)
    assert LLAMA_3_8B.token_bytes == 128 * 1024
    assert LLAMA_3_8B.exchanged_bytes // LLAMA_3_8B.layers == 20 * 1024


def test_few_rows_wait_for_the_weights_and_many_for_the_products() -> None:
    costs = stage_costs(A10G, G5["g5.4xlarge"], LLAMA_3_8B)
    assert costs.linear.at(1) == costs.linear.at(64) == pytest.approx(15.0e9 / 480e9, rel=0.01)
    assert costs.linear.at(2048) == pytest.approx(2 * 6.98e9 * 2048 / 42e12, rel=0.01)


def test_the_host_is_as_quick_as_its_share_of_the_machine() -> None:
    keys = [stage_costs(A10G, host, LLAMA_3_8B).host.at(1000) for host in G5.values()]
    assert [keys[0] / each for each in keys] == pytest.approx([1, 2, 4, 8])


def test_weights_that_fill_a_device_leave_nothing() -> None:
    assert device_blocks(T4, LLAMA_3_70B) == 0


def test_work_is_read_off_where_a_chunk_lies() -> None:
    assert work_of([chunk(99, 1, Home.DEVICE)]) == Work(1, 0, 100)
    assert work_of([chunk(99, 1, Home.HOST)]) == Work(1, 0, 0, 1, 100)
    assert work_of([chunk(10, 3, Home.DEVICE)]) == Work(3, 11 + 12 + 13)
    assert work_of([chunk(10, 3, Home.STREAMED)]) == Work(3, 11 + 12 + 13, streamed_rows=3)


def test_copies_in_both_directions_go_on_at_once() -> None:
    three, one = tuple(map(BlockId, range(3))), (BlockId(5),)
    moves = (PageOut(device=three, host=three), PageIn(host=one, device=one))
    assert Bus(2.0).seconds(StepPlan((), (), (), moves)) == 6.0


def test_a_streamed_prompt_is_written_once_and_what_precedes_it_read() -> None:
    batches = ((chunk(64, 16, Home.STREAMED),),)
    assert Bus(1.0).seconds(StepPlan(batches, (), ())) == 4.0


def test_all_at_once_some_answers_are_begun() -> None:
    load = list(Load(Lengths(100, 50), 40, begun=20).arrivals())
    answers = [arrival.request.sampling.max_tokens for arrival in load]
    assert {arrival.at_s for arrival in load} == {0.0}
    assert min(answers[:20]) < min(answers[20:])
    assert all(arrival.request.deadline_s == inf for arrival in load)


def test_a_plan_on_the_wrong_side_of_the_border_is_named() -> None:
    points = [Point(2.0, 1.0, True, 1.0), Point(9.0, 1.0, True, 1.0), Point(6.1, 1.0, False, 1.0)]
    below, above = sides("neo", "x", [(point, point.border) for point in points])
    assert below.met
    assert (above.met, above.measured) == (False, "0 of 1; not at 9 with T_a / T_l 1")

"""What lies on the host is attended there, or loaded, or computed again, as was chosen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import Tensor

from cluster.attention.port import AttentionPort, Exchange
from cluster.attention.split import PartPlan
from cluster.attention.state import State
from cluster.errors import Lost
from cluster.ids import RequestId
from cluster.knowledge.cache import HostUse
from cluster.knowledge.node import Node, Placement
from cluster.request import CachedTokens
from tests.engines import Recorder
from tests.reuse.rigs import Rig, Tiers
from tests.reuse.stories import Story, assert_same_bits, step
from tests.reuse.test_sharing import CONFIG, DOCUMENT, LIBRARY, SYSTEM, ask, cached, rig

BLOCKS = 1 + 2 * 3


def sunk(
    folder: Path, host_use: HostUse, placement: Placement = Placement.TREE, num_blocks: int = 128
) -> tuple[Rig, Recorder]:
    """A system prompt and two documents on the host alone."""
    tiers = Tiers(64, host_use=host_use, placement=placement)
    machine, recorder = rig(folder, tiers, num_blocks)
    ask(machine, recorder, LIBRARY.request("first", [0, 1], (7, 8)))
    sink(machine)
    return machine, recorder


def sink(machine: Rig) -> None:
    cache = machine.shelves.cache
    assert cache.make_room(cache.pool.num_blocks)
    assert machine.engine.host is not None
    assert machine.engine.host.run(cache.take_moves()) == ()


def nodes_of(machine: Rig) -> list[Node]:
    return list(machine.shelves.cache.tree.nodes.values())


@pytest.mark.parametrize(
    ("host_use", "attended", "found", "on_device"),
    [
        (HostUse.ATTEND, BLOCKS, SYSTEM + 2 * DOCUMENT, 0),
        (HostUse.LOAD, 0, SYSTEM + 2 * DOCUMENT, 3),
        (HostUse.RECOMPUTE, 0, 0, 3),
    ],
)
def test_a_document_on_the_host_is_used_as_was_chosen(
    host_use: HostUse, attended: int, found: int, on_device: int, tmp_path: Path
) -> None:
    machine, recorder = sunk(tmp_path, host_use)
    (story,) = ask(machine, recorder, LIBRARY.request("second", [0, 1], (9, 3)))
    assert cached(story) == CachedTokens(host=found)
    assert machine.shelves.cache.counts.attended_blocks == attended
    assert sum(bool(node.device) for node in nodes_of(machine)) == on_device
    (whole,) = ask(*rig(tmp_path / "whole"), LIBRARY.request("second", [0, 1], (9, 3)))
    assert_same_bits(story, whole)


def test_many_attend_one_copy_and_take_no_block_for_it(tmp_path: Path) -> None:
    machine, recorder = sunk(tmp_path, HostUse.ATTEND)
    stories = {RequestId(f"r{i}"): Story() for i in range(8)}
    for i, name in enumerate(stories):
        machine.engine.submit(LIBRARY.request(name, [0, 1], (i + 1,)))
    step(machine.engine, recorder, stories)
    pool = machine.engine.scheduler.pool
    assert pool.num_blocks - pool.num_free == len(stories)
    assert {node.pins for node in nodes_of(machine)} == {len(stories)}
    while machine.engine.has_work:
        step(machine.engine, recorder, stories)
    assert all(len(story.tokens) == 4 for story in stories.values())


def test_what_another_loads_is_attended_on_the_device_from_then_on(tmp_path: Path) -> None:
    machine, recorder = sunk(tmp_path, HostUse.ATTEND)
    cache = machine.shelves.cache
    stories = {RequestId(name): Story() for name in ("attends", "loads")}
    machine.engine.submit(LIBRARY.request("attends", [0, 1], (5,)))
    step(machine.engine, recorder, stories)
    counted = Counting(machine.attending.own)
    machine.attending.attach(counted)
    step(machine.engine, recorder, stories)
    assert counted.num_steps == 1
    cache.options = cache.options.__class__(host_blocks=64, host_use=HostUse.LOAD)
    machine.engine.submit(LIBRARY.request("loads", [0, 1], (5,)))
    # The elder's step is planned before the younger one has loaded anything.
    step(machine.engine, recorder, stories)
    assert counted.num_steps == 2
    while machine.engine.has_work:
        step(machine.engine, recorder, stories)
    assert counted.num_steps == 2
    assert_same_bits(stories[RequestId("attends")], stories[RequestId("loads")])
    assert len(stories[RequestId("loads")].tokens) == 4


@dataclass
class Counting:
    """A port that counts the steps it serves."""

    port: AttentionPort
    num_steps: int = 0

    def carries(self, plan: PartPlan, /) -> bool:
        return True

    def prepare(self, plan: PartPlan, /) -> Exchange:
        self.num_steps += 1
        return self.port.prepare(plan)

    def close(self) -> None:
        """It is the machine's own that stands behind it."""


def test_in_a_tree_what_is_computed_under_a_document_on_the_host_is_not_kept(
    tmp_path: Path,
) -> None:
    for placement, is_kept in ((Placement.TREE, False), (Placement.SEGMENT, True)):
        machine, recorder = sunk(tmp_path, HostUse.ATTEND, placement)
        for name in ("a", "b"):
            (story,) = ask(machine, recorder, LIBRARY.request(name, [0, 1, 2], (9,)))
            assert len(story.tokens) == 4
        found = CachedTokens(host=SYSTEM + 2 * DOCUMENT, device=DOCUMENT * is_kept)
        assert cached(story) == found


def test_two_who_cannot_keep_what_they_compute_do_not_wait_for_each_other(tmp_path: Path) -> None:
    machine, recorder = sunk(tmp_path, HostUse.ATTEND)
    stories = {RequestId(name): Story() for name in ("a", "b")}
    for name in stories:
        machine.engine.submit(LIBRARY.request(name, [0, 1, 2], (9,)))
    report = step(machine.engine, recorder, stories)
    assert report.num_prefill_rows == 64
    while machine.engine.has_work:
        step(machine.engine, recorder, stories)
    assert_same_bits(stories[RequestId("a")], stories[RequestId("b")])


@dataclass
class Failing:
    """A port that is lost in the middle of a step, when it is told to be."""

    port: AttentionPort
    fails_at: int | None = None

    def carries(self, plan: PartPlan, /) -> bool:
        return True

    def prepare(self, plan: PartPlan, /) -> FailingExchange:
        return FailingExchange(self, self.port.prepare(plan))

    def close(self) -> None:
        """It is the machine's own that stands behind it."""


@dataclass
class FailingExchange:
    port: Failing
    exchange: Exchange

    @property
    def busy_s(self) -> float:
        return self.exchange.busy_s

    def post(self, layer: int, q: Tensor, /) -> None:
        self.exchange.post(layer, q)

    def collect(self, layer: int, /) -> State:
        if layer == self.port.fails_at:
            raise Lost("the attention worker is gone")
        return self.exchange.collect(layer)

    def close(self) -> None:
        self.exchange.close()


@pytest.mark.parametrize("layer", [0, CONFIG.num_layers - 1])
def test_when_the_port_is_lost_its_layer_is_computed_here_and_the_step_goes_on(
    layer: int, tmp_path: Path
) -> None:
    machine, recorder = sunk(tmp_path, HostUse.ATTEND)
    failing = Failing(machine.attending.own)
    machine.attending.attach(failing)
    requests = [
        LIBRARY.request("on the host", [0, 1], (9, 3)),
        LIBRARY.request("not", [3], (4,), salt=b"another"),
    ]
    stories = {request.id: Story() for request in requests}
    for request in requests:
        machine.engine.submit(request)
    while not all(story.tokens for story in stories.values()):
        step(machine.engine, recorder, stories)
    failing.fails_at = layer
    lost = step(machine.engine, recorder, stories)
    assert (len(lost.tokens), lost.num_preempted) == (2, 0)
    assert (machine.attending.worker, machine.attending.num_lost) == (None, 1)
    while machine.engine.has_work:
        step(machine.engine, recorder, stories)
    for request in requests:
        (whole,) = ask(*rig(tmp_path / str(request.id)), request)
        assert_same_bits(stories[request.id], whole)
        assert len(stories[request.id].tokens) == 4


def flip(machine: Rig, node: Node) -> None:
    assert machine.shelves.arena is not None
    machine.shelves.arena.payload(node.host[0])[5] ^= 4


def test_a_flipped_bit_is_found_before_the_document_is_attended(tmp_path: Path) -> None:
    machine, recorder = sunk(tmp_path, HostUse.ATTEND)
    flip(machine, nodes_of(machine)[1])
    request = LIBRARY.request("second", [0, 1], (9, 3))
    (story,) = ask(machine, recorder, request)
    assert cached(story) == CachedTokens(host=SYSTEM)
    (whole,) = ask(*rig(tmp_path / "whole"), request)
    assert_same_bits(story, whole)


def test_who_attends_a_copy_that_is_found_damaged_begins_again(tmp_path: Path) -> None:
    machine, recorder = sunk(tmp_path, HostUse.ATTEND)
    stories = {RequestId(name): Story() for name in ("early", "late")}
    machine.engine.submit(LIBRARY.request("early", [0, 1], (9, 3)))
    step(machine.engine, recorder, stories)
    flip(machine, nodes_of(machine)[1])
    machine.engine.submit(LIBRARY.request("late", [0, 1], (9, 3)))
    assert step(machine.engine, recorder, stories).num_preempted == 1
    while machine.engine.has_work:
        step(machine.engine, recorder, stories)
    (whole,) = ask(*rig(tmp_path / "whole"), LIBRARY.request("late", [0, 1], (9, 3)))
    for story in stories.values():
        assert_same_bits(story, whole)
        assert len(story.tokens) == 4


def test_a_prompt_whose_documents_lie_on_the_host_needs_room_for_its_question_alone(
    tmp_path: Path,
) -> None:
    machine, recorder = sunk(tmp_path, HostUse.ATTEND, num_blocks=BLOCKS + 1)
    stories = {RequestId(name): Story() for name in ("holds most", "finds all")}
    machine.engine.submit(LIBRARY.request("holds most", [2], (9,), salt=b"another"))
    machine.engine.submit(LIBRARY.request("finds all", [0, 1], (9,)))
    step(machine.engine, recorder, stories)
    assert machine.engine.scheduler.pool.num_free < BLOCKS
    assert stories[RequestId("finds all")].tokens

"""Documents are computed once: by whoever comes first, for all who come with it and after it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from cluster.engine.engine import Engine
from cluster.engine.tiers.host_arena import HostArena
from cluster.errors import InvalidArgument
from cluster.ids import RequestId
from cluster.models.config import decoder_config
from cluster.request import CachedTokens, Request
from cluster.scheduling.limits import IterationLimits
from tests.engines import Recorder, hands_of_every_backend
from tests.reuse.rigs import Build, Rig, Tiers
from tests.reuse.stories import Library, Story, run, step
from tests.tiny_model import tiny_config

CONFIG = decoder_config(tiny_config())
HANDS = hands_of_every_backend()[-1]
LIBRARY = Library(tuple(range(10)), tuple(tuple(range(n, n + 48)) for n in range(20, 80, 10)))
DOCUMENT, SYSTEM = 48, 10


def build(folder: Path, tiers: Tiers | None = None, num_blocks: int = 128) -> Build:
    limits = IterationLimits(64, 8, 64, CONFIG.max_position)
    return Build(CONFIG, HANDS, limits, num_blocks, tiers or Tiers(), folder)


def rig(folder: Path, tiers: Tiers | None = None, num_blocks: int = 128) -> tuple[Rig, Recorder]:
    recorder = Recorder(HANDS.model(CONFIG))
    return build(folder, tiers, num_blocks).rig(recorder), recorder


def ask(rig: Rig, recorder: Recorder, *requests: Request) -> list[Story]:
    stories = run(rig.engine, recorder, list(requests))
    return [stories[request.id] for request in requests]


def cached(story: Story) -> CachedTokens:
    assert story.first is not None
    return story.first.cached


def test_the_second_of_two_finds_what_the_first_has_computed(tmp_path: Path) -> None:
    machine, recorder = rig(tmp_path)
    (first,) = ask(machine, recorder, LIBRARY.request("a", [0, 1], (7, 8)))
    (second,) = ask(machine, recorder, LIBRARY.request("b", [0, 1], (9,)))
    assert cached(first) == CachedTokens()
    assert cached(second) == CachedTokens(device=SYSTEM + 2 * DOCUMENT)
    assert second.first is not None
    assert second.first.num_computed == 1


def test_a_document_in_another_order_is_another_document(tmp_path: Path) -> None:
    machine, recorder = rig(tmp_path)
    ask(machine, recorder, LIBRARY.request("a", [0, 1], (7, 8)))
    (second,) = ask(machine, recorder, LIBRARY.request("b", [1, 0], (7, 8)))
    assert cached(second) == CachedTokens(device=SYSTEM)


def test_eight_who_come_together_compute_their_documents_once(tmp_path: Path) -> None:
    machine, recorder = rig(tmp_path)
    requests = [LIBRARY.request(f"r{i}", [2, 3], (i + 1, 5)) for i in range(8)]
    stories = ask(machine, recorder, *requests)
    computed = sum(story.first.num_computed for story in stories if story.first is not None)
    assert computed == SYSTEM + 2 * DOCUMENT + 8 * 2


def test_whoever_waited_computes_when_the_first_one_leaves(tmp_path: Path) -> None:
    machine, recorder = rig(tmp_path)
    stories = {RequestId(name): Story() for name in ("a", "b")}
    for name in stories:
        machine.engine.submit(LIBRARY.request(name, [0, 1, 2, 3], (3, 4)))
    step(machine.engine, recorder, stories)
    machine.engine.cancel(RequestId("a"))
    while machine.engine.has_work:
        step(machine.engine, recorder, stories)
    story = stories[RequestId("b")]
    assert len(story.tokens) == 4
    # The system prompt and one document were whole by then.
    assert cached(story) == CachedTokens(device=SYSTEM + DOCUMENT)


def test_salts_part_tenants(tmp_path: Path) -> None:
    machine, recorder = rig(tmp_path)
    ask(machine, recorder, LIBRARY.request("a", [0], (7,), salt=b"one"))
    (other,) = ask(machine, recorder, LIBRARY.request("b", [0], (7,), salt=b"two"))
    (same,) = ask(machine, recorder, LIBRARY.request("c", [0], (7,), salt=b"one"))
    assert cached(other) == CachedTokens()
    assert cached(same) == CachedTokens(device=SYSTEM + DOCUMENT)


@pytest.mark.parametrize("document", [0, 1])
def test_another_tenants_use_of_a_document_changes_nothing(document: int, tmp_path: Path) -> None:
    """Tenant one used document 0, or document 1 of the same length: tenant two's steps are those of
    a machine where it was the other way, row for row."""
    assert steps_of_tenant_two(tmp_path / "0", 0) == steps_of_tenant_two(tmp_path / "1", document)


def steps_of_tenant_two(folder: Path, used_by_one: int) -> list[tuple[int, int, CachedTokens]]:
    machine, recorder = rig(folder, Tiers(host_blocks=12), num_blocks=24)
    ask(machine, recorder, LIBRARY.request("one", [used_by_one], (7,), salt=b"one"))
    seen = []
    random = Random(4)
    for number in range(12):
        documents = random.sample(range(4), 2)
        request = LIBRARY.request(f"two {number}", documents, (number + 1,), salt=b"two")
        stories = {request.id: Story()}
        machine.engine.submit(request)
        while machine.engine.has_work:
            report = step(machine.engine, recorder, stories)
            seen.append(
                (report.num_prefill_rows, report.num_decode_rows, _cached(stories[request.id]))
            )
    return seen


def _cached(story: Story) -> CachedTokens:
    return CachedTokens() if story.first is None else story.first.cached


def test_what_leaves_the_device_comes_back_from_the_host(tmp_path: Path) -> None:
    machine, recorder = rig(tmp_path, Tiers(host_blocks=64), num_blocks=14)
    for number in range(5):
        ask(machine, recorder, LIBRARY.request(f"r{number}", [number, number + 1][:2], (1,)))
    (again,) = ask(machine, recorder, LIBRARY.request("again", [0, 1], (2,)))
    assert cached(again).host
    assert cached(again).total == SYSTEM + 2 * DOCUMENT


def test_a_restart_finds_documents_on_disk(tmp_path: Path) -> None:
    tiers = Tiers(host_blocks=64, disk_blocks=64)
    machine, recorder = rig(tmp_path, tiers)
    (before,) = ask(machine, recorder, LIBRARY.request("a", [0, 1], (7, 8)))
    machine.close()
    machine, recorder = rig(tmp_path, tiers)
    (after,) = ask(machine, recorder, LIBRARY.request("b", [0, 1], (7, 8)))
    assert cached(after) == CachedTokens(disk=SYSTEM + 2 * DOCUMENT)
    assert after.tokens == before.tokens
    machine.close()


def test_a_worker_finds_again_what_a_dead_one_left_on_the_host(tmp_path: Path) -> None:
    tiers = Tiers(host_blocks=64)
    machine, recorder = rig(tmp_path, tiers, num_blocks=14)
    for salt in (b"one", b"two", b"three"):
        ask(machine, recorder, LIBRARY.request("r", [0, 1], (1,), salt=salt))
    arena = machine.shelves.arena
    assert arena is not None
    left_fd = os.dup(arena.fd)
    recorder = Recorder(HANDS.model(CONFIG))
    heir = build(tmp_path, tiers).rig(
        recorder, left=lambda layout: HostArena.attach(left_fd, layout)
    )
    heir.shelves.cache.check()
    (story,) = ask(heir, recorder, LIBRARY.request("again", [0, 1], (2,), salt=b"one"))
    assert cached(story) == CachedTokens(host=SYSTEM + 2 * DOCUMENT)


def test_documents_are_found_again_under_a_system_prompt_that_never_left_the_device(
    tmp_path: Path,
) -> None:
    tiers = Tiers(host_blocks=64)
    machine, recorder = rig(tmp_path, tiers, num_blocks=10)
    for number in range(3):
        ask(machine, recorder, LIBRARY.request(f"r{number}", [number], (1,)))
    (system,) = machine.shelves.cache.tree.root.children.values()
    assert system.device
    assert machine.shelves.arena is not None
    left_fd = os.dup(machine.shelves.arena.fd)
    recorder = Recorder(HANDS.model(CONFIG))
    heir = build(tmp_path, tiers).rig(
        recorder, left=lambda layout: HostArena.attach(left_fd, layout)
    )
    (story,) = ask(heir, recorder, LIBRARY.request("again", [0], (2,)))
    assert cached(story) == CachedTokens(host=SYSTEM + DOCUMENT)


def test_a_disk_that_fails_costs_its_tier_and_no_request(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    machine, recorder = rig(folder, Tiers(host_blocks=12, disk_blocks=64), num_blocks=16)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    folder.rmdir()
    folder.write_text("no folder any more")
    for number in range(8):
        documents = [number % 5, (number + 1) % 5]
        (story,) = ask(machine, recorder, LIBRARY.request(f"r{number}", documents, (1,)))
        assert len(story.tokens) == 4
    assert machine.shelves.cache.counts.failed_writes
    machine.close()


def test_the_last_segment_is_nobody_elses(tmp_path: Path) -> None:
    machine, _ = rig(tmp_path)
    request = LIBRARY.request("a", [0], (1,))
    everything = replace(request, sources=(*request.sources, request.sources[-1]))
    with pytest.raises(InvalidArgument, match="3 of 3 segments have a source"):
        machine.engine.submit(everything)


def test_no_block_leaks_when_requests_are_cancelled_at_any_step(tmp_path: Path) -> None:
    machine, recorder = rig(tmp_path, Tiers(host_blocks=16), num_blocks=24)
    random = Random(9)
    stories: dict[RequestId, Story] = {}
    for number in range(150):
        request = LIBRARY.request(f"r{number}", random.sample(range(5), 2), (number % 9 + 1,))
        stories[request.id] = Story()
        machine.engine.submit(request)
        for _ in range(random.randrange(6)):
            step(machine.engine, recorder, stories)
        machine.engine.cancel(random.choice(list(stories)))
    drain(machine.engine, recorder, stories)
    cache = machine.shelves.cache
    nodes = cache.tree.nodes.values()
    assert not any(node.pins for node in nodes)
    assert cache.pool.num_free + sum(len(node.device) for node in nodes) == cache.pool.num_blocks


def drain(engine: Engine, recorder: Recorder, stories: dict[RequestId, Story]) -> None:
    while engine.has_work:
        step(engine, recorder, stories)

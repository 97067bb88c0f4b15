"""What lies on the host is attended by another process, which may be killed or stand still."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.ids import RequestId
from cluster.kernels import kernels_available
from cluster.knowledge.cache import HostUse
from tests.attention.workers import RemoteWorker, Worker, ended
from tests.engines import Hands, Recorder
from tests.reuse import rigs
from tests.reuse.machines import assert_promises
from tests.reuse.rigs import Door, Rig, Tiers
from tests.reuse.stories import Story, assert_same_bits, step
from tests.reuse.test_in_place import sink
from tests.reuse.test_sharing import CONFIG, HANDS, LIBRARY, ask, build, rig

pytestmark = pytest.mark.skipif(not kernels_available(), reason="the kernels were not built")

NATIVE = (Hands("float32"), HANDS)


@pytest.fixture(scope="module", params=["shared memory", "grpc"])
def door(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Door]:
    with ended(RemoteWorker(tmp_path_factory.mktemp("door") / "door")) as worker:
        yield worker.path if request.param == "shared memory" else worker.address


@pytest.mark.parametrize("hands", NATIVE, ids=str)
@pytest.mark.parametrize("part", range(2))
def test_twenty_machines_answer_as_if_all_were_computed(
    part: int, hands: Hands, door: Door, tmp_path: Path
) -> None:
    attended = 0
    for seed in range(3000 + part, 3020, 2):
        case = assert_promises(seed, CONFIG, hands, tmp_path / str(seed), door)
        attended += sum(counts.attended_blocks for counts in case.counts)
    assert attended


def machine_at(door: Door, folder: Path) -> tuple[Rig, Recorder]:
    """Its documents 0 and 1 lie on the host alone, and are attended there."""
    recorder = Recorder(HANDS.model(CONFIG))
    tiers = Tiers(64, host_use=HostUse.ATTEND)
    machine = replace(build(folder, tiers), door=door).rig(recorder)
    ask(machine, recorder, LIBRARY.request("first", [0, 1], (7, 8)))
    sink(machine)
    return machine, recorder


@pytest.mark.parametrize("is_near", [True, False], ids=["shared memory", "grpc"])
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=str)
def test_when_the_worker_dies_or_stands_still_nobody_notices(
    blow: signal.Signals, is_near: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rigs, "TIMEOUT_S", 0.5)
    at, next_at = tmp_path / "door", tmp_path / "next"
    with ended(RemoteWorker(at)) as worker, ended(RemoteWorker(next_at)) as heir:
        machine, recorder = machine_at(worker.path if is_near else worker.address, tmp_path)
        requests = [
            LIBRARY.request("on the host", [0, 1], (9, 3)),
            LIBRARY.request("not", [3], (4,), salt=b"another"),
        ]
        stories = {request.id: Story() for request in requests}
        for request in requests:
            machine.engine.submit(request)
        while not all(story.tokens for story in stories.values()):
            step(machine.engine, recorder, stories)
        worker.strike(blow)
        while machine.engine.has_work:
            assert step(machine.engine, recorder, stories).num_preempted == 0
        worker.process.send_signal(signal.SIGCONT)
        for request in requests:
            (whole,) = ask(*rig(tmp_path / str(request.id)), request)
            assert_same_bits(stories[request.id], whole)
            assert len(stories[request.id].tokens) == 4
        assert_served_again(machine, recorder, heir, tmp_path)


def assert_served_again(machine: Rig, recorder: Recorder, heir: Worker, folder: Path) -> None:
    """By another worker, over the same memory."""
    arena = machine.shelves.arena
    assert arena is not None
    before = machine.shelves.cache.counts.attended_blocks
    assert (machine.attending.worker, machine.attending.num_lost) == (None, 1)
    entered = build(folder).enter(heir.path, arena)
    machine.attending.attach(entered)
    sink(machine)
    stories = {RequestId("again"): Story()}
    machine.engine.submit(LIBRARY.request("again", [0, 1], (2,)))
    while machine.engine.has_work:
        step(machine.engine, recorder, stories)
    assert len(stories[RequestId("again")].tokens) == 4
    assert machine.shelves.cache.counts.attended_blocks > before
    assert machine.attending.worker is entered
    machine.close()

"""An engine as a user gets it: its parts know of each other what they must."""

from __future__ import annotations

import signal
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from cluster.attention.door import enter
from cluster.clock import ManualClock, MonotonicClock
from cluster.engine.assemble import Assembled, assemble_engine
from cluster.engine.options import Backend, EngineOptions
from cluster.engine.shelves import Shelving
from cluster.engine.tiers.copies import ThreadCopier
from cluster.ids import RequestId
from cluster.kernels import kernels_available
from cluster.knowledge.node import Tier
from cluster.request import Request, Sampling
from cluster.scheduling.offload import OffloadMode, OffloadOptions
from cluster.scheduling.plan import PlanKind
from tests.attention.workers import PATIENCE_S, worker_at
from tests.tiny_model import CONTEXT_TOKENS

BACKENDS = [Backend.TORCH, Backend.NATIVE] if kernels_available() else [Backend.TORCH]


FEW_BLOCKS = 12


def assembled(
    folder: Path,
    backend: Backend,
    mode: OffloadMode = OffloadMode.GPU_ONLY,
    kv_blocks: int = CONTEXT_TOKENS // 16,
) -> Assembled:
    options = EngineOptions(
        backend=backend,
        threads=1,
        kv_blocks=kv_blocks,
        shelving=Shelving(tiers=(Tier.DEVICE, Tier.HOST), host_bytes=2**20),
        offload=OffloadOptions(mode, host_share=1.0),
    )
    clock = ManualClock() if mode is OffloadMode.GPU_ONLY else MonotonicClock()
    return assemble_engine(folder, options, clock)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_layer_waits_for_the_copies_of_the_host(
    backend: Backend, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited_for: list[tuple[ThreadCopier, int]] = []
    monkeypatch.setattr(
        ThreadCopier, "wait", lambda copier, layer: waited_for.append((copier, layer))
    )
    machine = assembled(tiny_folder, backend)
    assert machine.shelves.host is not None
    waited_for.clear()
    machine.engine.submit(Request(RequestId("r"), ((5, 6, 7),), Sampling(max_tokens=1), 1e12))
    machine.engine.step()
    copier = machine.shelves.host._copier
    assert waited_for == [(copier, 0), (copier, 1)]
    machine.shelves.close(ManualClock())


def crowd(machine: Assembled) -> tuple[dict[str, list[int]], Counter[PlanKind]]:
    """The answers of more requests than the device has room for, and the plans they took."""
    answers: dict[str, list[int]] = defaultdict(list)
    for number in range(6):
        ids = tuple(range(number + 1, number + 60))
        sampling = Sampling(temperature=0.0, max_tokens=30)
        machine.engine.submit(Request(RequestId(f"r{number}"), (ids,), sampling, 1e12))
    kinds: Counter[PlanKind] = Counter()
    while machine.engine.has_work:
        report = machine.engine.step()
        kinds[report.why.kind] += 1
        for request_id, token in report.tokens:
            answers[request_id].append(token)
    return answers, kinds


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mode_has_the_costs_of_this_machine_and_the_answers_of_the_device_alone(
    backend: Backend, tiny_folder: Path
) -> None:
    alone = assembled(tiny_folder, backend, kv_blocks=FEW_BLOCKS)
    expected, kinds = crowd(alone)
    assert set(kinds) == {PlanKind.GPU_ONLY}
    machine = assembled(tiny_folder, backend, OffloadMode.NEO, FEW_BLOCKS)
    costs = machine.engine.scheduler.offload.costs
    assert min(costs.linear.at(1), costs.prefill.at(100), costs.decode.at(16)) > 0.0
    assert costs.host.at(16) > 0.0
    # Nobody attends beside this process yet.
    assert not costs.is_beside
    answers, kinds = crowd(machine)
    assert answers == expected
    assert set(kinds) - {PlanKind.GPU_ONLY}
    for each in (alone, machine):
        each.close(ManualClock())


@pytest.mark.skipif(not kernels_available(), reason="the kernels were not built")
def test_costs_are_of_the_worker_as_long_as_there_is_one(tiny_folder: Path, tmp_path: Path) -> None:
    machine = assembled(tiny_folder, Backend.NATIVE, OffloadMode.NEO, FEW_BLOCKS)
    engine, attention = machine.engine, machine.engine.attention
    assert attention is not None
    costs, own = engine.scheduler.offload.costs, attention.own
    with worker_at(tmp_path / "door") as worker:
        arena = attention.arena
        port = enter(worker.path, attention.sizes, arena.kv, arena.fd, timeout_s=PATIENCE_S)
        attention.attach(port)
        expected, kinds = crowd(machine)
        assert expected
        assert costs.is_beside
        assert costs.host is not own.keys
        assert set(kinds) - {PlanKind.GPU_ONLY}
        worker.strike(signal.SIGKILL)
    answers, _ = crowd(machine)
    assert answers == expected
    assert attention.port.num_lost == 1
    assert not costs.is_beside
    assert costs.host is own.keys
    machine.close(ManualClock())


@pytest.mark.skipif(not kernels_available(), reason="the kernels were not built")
def test_a_host_that_is_wrongly_thought_dear_is_probed(tiny_folder: Path) -> None:
    """Nobody has to lie there for it, and the answers stay."""
    alone = assembled(tiny_folder, Backend.NATIVE, kv_blocks=FEW_BLOCKS)
    expected, _ = crowd(alone)
    machine = assembled(tiny_folder, Backend.NATIVE, OffloadMode.ADAPTIVE, FEW_BLOCKS)
    costs = machine.engine.scheduler.offload.costs
    costs.host.scale = 1e6
    answers, _ = crowd(machine)
    assert answers == expected
    assert costs.host.scale < 0.5e6
    for each in (alone, machine):
        each.close(ManualClock())


def test_without_a_host_tier_there_is_no_mode_but_the_device_alone(
    tiny_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = EngineOptions(kv_blocks=64, offload=OffloadOptions(OffloadMode.ADAPTIVE))
    machine = assemble_engine(tiny_folder, options, ManualClock())
    assert machine.engine.scheduler.offload.mode is OffloadMode.GPU_ONLY
    assert "needs a host tier" in caplog.text
    machine.close(ManualClock())

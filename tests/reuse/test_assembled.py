"""An engine as a user gets it: its parts know of each other what they must."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.clock import ManualClock
from cluster.engine.assemble import Assembled, assemble_engine
from cluster.engine.options import Backend, EngineOptions
from cluster.engine.shelves import Shelving
from cluster.engine.tiers.copies import ThreadCopier
from cluster.ids import RequestId
from cluster.kernels import kernels_available
from cluster.knowledge.node import Tier
from cluster.request import Request, Sampling
from tests.tiny_model import CONTEXT_TOKENS

BACKENDS = [Backend.TORCH, Backend.NATIVE] if kernels_available() else [Backend.TORCH]


def assembled(folder: Path, backend: Backend) -> Assembled:
    shelving = Shelving(tiers=(Tier.DEVICE, Tier.HOST), host_bytes=2**20)
    options = EngineOptions(
        backend=backend, threads=1, kv_blocks=CONTEXT_TOKENS // 16, shelving=shelving
    )
    return assemble_engine(folder, options, ManualClock())


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

"""Our engine with its knowledge cache, built as a worker builds it, driven by `submit` and `step`.

Options: `tiers` (a list of their labels with commas; empty: no cache), `policy`, `placement`.
What lies on the host is loaded. Shelves are filled by the replay alone: each begins with empty
ones, on disk too.
"""

from __future__ import annotations

import atexit
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.peers.protocol import EngineRefused
from benchmarks.rag_child import Cell, serve
from benchmarks.rag_clock import Ask, Event, Reuse, SkippingClock
from cluster.blocks.pool import BLOCK_TOKENS
from cluster.engine.assemble import Assembled, assemble_engine
from cluster.engine.engine import StepReport
from cluster.engine.options import EngineOptions, WeightFormat
from cluster.engine.shelves import Shelving
from cluster.errors import ThothError
from cluster.ids import RequestId
from cluster.knowledge.cache import HostUse
from cluster.knowledge.node import Placement, Tier
from cluster.knowledge.policies import PolicyName
from cluster.models.config import decoder_config
from cluster.models.folder import read_json
from cluster.request import Request, Sampling, SegmentSource
from cluster.scheduling.plan import FirstToken

COLLECTION = "rag"
WARM_TOKENS = 64
# Nobody is turned away: whoever cannot be served yet waits.
MOST_WAITING = 100_000
# More than all that a replay writes.
DISK_BYTES = 8 * 2**30
FLOAT32_BYTES = 4


class Ours:
    """Documents are named by the trace, and are the same to everybody."""

    def __init__(self, assembled: Assembled) -> None:
        self._engine = assembled.engine
        self._firsts: dict[RequestId, FirstToken] = {}

    def warm(self) -> None:
        """A prompt that leaves nothing in the cache."""
        ask = Ask(-1, 0.0, ((0,) * WARM_TOKENS,), (), 2)
        self.submit(ask)
        while self._engine.has_work:
            self._engine.step()

    def submit(self, ask: Ask) -> None:
        request = Request(
            RequestId(str(ask.number)),
            ask.segments,
            Sampling(temperature=0.0, max_tokens=ask.max_tokens),
            float("inf"),
            sources=tuple(SegmentSource(COLLECTION, name) for name in ask.names),
        )
        self._engine.submit(request)

    def step(self, _: float) -> list[Event]:
        report = self._engine.step()
        if report.failed:
            raise RuntimeError(f"failed: {report.failed}")
        return [*self._first(report), *self._last(report)]

    def _first(self, report: StepReport) -> list[Event]:
        self._firsts |= {first.request_id: first for first in report.first_tokens}
        return [Event(int(first.request_id), is_last=False) for first in report.first_tokens]

    def _last(self, report: StepReport) -> list[Event]:
        events = []
        for end in report.finished:
            first = self._firsts.pop(end.request_id)
            cached, computed = first.cached, first.num_computed + end.num_recomputed
            reuse = Reuse(cached.device, cached.host, cached.disk, computed)
            events.append(Event(int(end.request_id), is_last=True, reuse=reuse))
        return events


def block_bytes(folder: Path) -> int:
    """Of keys and values in float32, the product's default on the cpu."""
    config = decoder_config(read_json(folder / "config.json"))
    width = config.num_kv_heads * config.head_dim
    return 2 * config.num_layers * width * FLOAT32_BYTES * BLOCK_TOKENS


def load(cell: Cell, clock: SkippingClock) -> tuple[str, Ours]:
    """Raises EngineRefused for what the installed project does not know."""
    disk = TemporaryDirectory(prefix="thoth-rag-")
    atexit.register(disk.cleanup)
    folder = Path(cell.model)
    labels = [label for label in cell.options["tiers"].split(",") if label]
    shelving = Shelving(
        tiers=tuple(tier for tier in Tier if tier.label in labels),
        policy=PolicyName(cell.options["policy"]),
        placement=Placement(cell.options["placement"]),
        host_use=HostUse.LOAD,
        host_bytes=cell.host_bytes,
        disk_bytes=DISK_BYTES,
        disk_folder=Path(disk.name),
        notes=Path(cell.notes),
    )
    options = EngineOptions(
        weights=WeightFormat(cell.weights),
        threads=cell.threads,
        kv_blocks=cell.device_bytes // block_bytes(folder),
        max_waiting=MOST_WAITING,
        shelving=shelving,
    )
    try:
        assembled = assemble_engine(folder, options, clock)
    except ThothError as error:
        raise EngineRefused(str(error)) from error
    _check(assembled, cell, labels)
    server = Ours(assembled)
    server.warm()
    return f"{version('thoth-cluster')}, {assembled.backend}", server


def _check(assembled: Assembled, cell: Cell, labels: list[str]) -> None:
    """What was built is what was asked for: nobody is measured under another's name."""
    if f"{cell.weights} weights" not in assembled.backend:
        raise EngineRefused(f"weights {cell.weights} were asked for: {assembled.backend}")
    shelves = assembled.shelves
    if (shelves.arena is None) is ("host" in labels) or (shelves.disk is None) is (
        "disk" in labels
    ):
        raise EngineRefused(f"the tiers {', '.join(labels)} cannot be had here")


if __name__ == "__main__":
    serve(load)

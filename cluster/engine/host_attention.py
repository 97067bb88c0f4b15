"""Who attends what lies on the host, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.attention.fallback import FallbackPort
from cluster.attention.port import AttentionPort
from cluster.attention.shared_memory import ChannelSizes
from cluster.engine.host_bench import HostBench
from cluster.engine.tiers.host_arena import HostArena
from cluster.errors import ThothError
from cluster.scheduling.stages import HostCosts


@dataclass(slots=True)
class HostAttention:
    """`port` is the one that steps use; what a worker has to be told is `arena.kv`, `arena.fd` and
    `sizes`. `own` and `own_block_s`, see `TransferCost.attend_block_s`, are what it costs this
    process."""

    port: FallbackPort
    bench: HostBench
    own: HostCosts
    own_block_s: float = 0.0
    _worker: HostCosts = field(init=False)
    _worker_block_s: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._worker = self.own

    @property
    def arena(self) -> HostArena:
        return self.bench.arena

    @property
    def sizes(self) -> ChannelSizes:
        return self.bench.sizes

    @property
    def block_s(self) -> float:
        """For whoever attends now."""
        return self.own_block_s if self.port.worker is None else self._worker_block_s

    @property
    def costs(self) -> HostCosts:
        """Of rows that lie on the host whole, for whoever attends now."""
        return self.own if self.port.worker is None else self._worker

    def attach(self, worker: AttentionPort | None) -> None:
        """Between two steps: the worker that attends from now on, once it has shown how long it
        takes. Raises Lost, with its port closed and nothing changed, when it does not."""
        if worker is not None:
            try:
                more_s = self.bench.block_s(worker) - self.bench.block_s(self.port.own)
                costs = self._costs(worker)
            except ThothError:
                worker.close()
                raise
            self._worker_block_s = max(0.0, self.own_block_s + more_s)
            self._worker = costs
        self.port.attach(worker)

    def _costs(self, worker: AttentionPort) -> HostCosts:
        """Rows that grow there are not every worker's: what it does not carry is attended here."""
        if not self.bench.carries_growing(worker):
            return self.own
        return self.bench.costs(worker, is_beside=True)

    def probe(self) -> tuple[int, int, float] | None:
        """As `HostBench.probe`, of whoever attends now."""
        return self.bench.probe(self.port)

    def close(self) -> None:
        self.port.close()

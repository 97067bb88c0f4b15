"""Whether requests may lie on the host while they decode, and how that is decided.

gpu_only   never: who finds no room on the device waits, or is computed again
neo        as published (arXiv 2411.01142), but that it can neither hang nor starve anybody
adaptive   gpu_only as long as there is room, and beyond it what the costs say
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from cluster.errors import InvalidArgument
from cluster.scheduling.stages import StageCosts, free_costs


class OffloadMode(StrEnum):
    GPU_ONLY = "gpu_only"
    NEO = "neo"
    ADAPTIVE = "adaptive"


@dataclass(frozen=True, slots=True)
class OffloadOptions:
    """What a user chooses. Who decodes on the host gets a row at least every `progress_steps`
    steps. Requests take at most `host_share` of the host's blocks: the rest is for documents.
    Raises InvalidArgument."""

    mode: OffloadMode = OffloadMode.GPU_ONLY
    progress_steps: int = 32
    host_share: float = 0.5

    def __post_init__(self) -> None:
        if self.progress_steps < 1:
            raise InvalidArgument(
                f"progress_steps is {self.progress_steps}",
                field="progress_steps",
                limit="1 or more",
            )
        if not 0.0 <= self.host_share <= 1.0:
            raise InvalidArgument(
                f"host_share is {self.host_share}", field="host_share", limit="from 0 to 1"
            )

    def with_costs(self, costs: StageCosts) -> Offload:
        return Offload(self.mode, self.progress_steps, self.host_share, costs)


@dataclass(frozen=True, slots=True)
class Offload(OffloadOptions):
    """`costs` are believed at first and corrected by every step."""

    costs: StageCosts = field(default_factory=free_costs)

"""Memory that its owner has left: kept for a while, so that whoever comes next finds it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from cluster.clock import Clock


@dataclass(frozen=True, slots=True)
class _Kept:
    memory: int
    until_s: float


@dataclass(slots=True)
class KeptMemories:
    """Descriptors by the names of their owners, each for `keep_s`."""

    clock: Clock
    keep_s: float
    _kept: dict[str, _Kept] = field(init=False, default_factory=dict)

    def keep(self, owner: str, memory: int) -> None:
        """The descriptor is this one's from now on; what the owner left before is forgotten."""
        self.forget(owner)
        self._kept[owner] = _Kept(memory, self.clock.now_s() + self.keep_s)

    def of(self, owner: str) -> int | None:
        """To be used before anything else is called."""
        kept = self._kept.get(owner)
        return None if kept is None else kept.memory

    def forget(self, owner: str) -> None:
        kept = self._kept.pop(owner, None)
        if kept is not None:
            os.close(kept.memory)

    def forget_old(self) -> None:
        now_s = self.clock.now_s()
        for owner in [owner for owner, kept in self._kept.items() if kept.until_s <= now_s]:
            self.forget(owner)

    @property
    def patience_s(self) -> float | None:
        """Until something is old; None where nothing is kept."""
        if not self._kept:
            return None
        until_s = min(kept.until_s for kept in self._kept.values())
        return max(0.0, until_s - self.clock.now_s())

    def close(self) -> None:
        for owner in list(self._kept):
            self.forget(owner)

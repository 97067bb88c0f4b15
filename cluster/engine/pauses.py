"""Python's collector of cycles, where a tree of a hundred thousand nodes is alive and steps are
short.

A full collection walks over everything that lives, for as long as tens of steps. So what has once
lived through one is frozen: the next one walks over what came since. The tree needs no collector,
for a node that has left is in no cycle; what is in one, and died frozen, is found by every
`WHOLE_EVERY`th full collection, which walks over everything again.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping

# New objects before the young are collected, and younger collections before an older one. Python's
# own 700 young ones would be several thousand here: old nodes that leave count against new ones.
THRESHOLDS = (200, 20, 10)
WHOLE_EVERY = 64
_FULL = 2
_PYTHONS = gc.get_threshold()


class ShortPauses:
    """From `begin` to `end`, for the whole process."""

    def __init__(self) -> None:
        self._num_full = 0

    def begin(self) -> None:
        """Called when what lives as long as the process, a model for one, is there."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(*THRESHOLDS)
        gc.callbacks.append(self._collecting)

    def end(self) -> None:
        """The collector is Python's own again; also when it was never anything else."""
        if self._collecting in gc.callbacks:
            gc.callbacks.remove(self._collecting)
        gc.set_threshold(*_PYTHONS)
        gc.unfreeze()

    def _collecting(self, phase: str, told: Mapping[str, int]) -> None:
        if told["generation"] != _FULL:
            return
        if phase == "stop":
            gc.freeze()
            return
        self._num_full += 1
        if self._num_full % WHOLE_EVERY == 0:
            gc.unfreeze()

"""What computing a chunk of a prompt costs here, measured once and remembered.

A coarse grid of T(alpha, beta) takes a few seconds; steps correct it from then on. It is kept for
the model, backend, shape, threads and version it was measured with.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.engine.bench import Bench
from cluster.engine.notes import note_in, remembered
from cluster.knowledge.prefill_cost import PrefillCost

log = logging.getLogger(__name__)


def prefill_cost(bench: Bench, folder: Path | None, name: str) -> PrefillCost:
    """As remembered in the folder under this name, or measured now."""

    def measure() -> PrefillCost:
        begun_s = bench.clock.now_s()
        cost = bench.measure()
        log.info("prefill profiled in %.1f s: %s", bench.clock.now_s() - begun_s, _said(cost))
        return cost

    return remembered(note_in(folder, name), measure, _written, _read)


def _said(cost: PrefillCost) -> str:
    rate = cost.betas[-1] / max(cost.seconds[0][-1], 1e-9)
    return f"{rate:.0f} tokens/s without a cache"


def _written(cost: PrefillCost) -> Mapping[str, object]:
    return {"alphas": cost.alphas, "betas": cost.betas, "seconds": cost.seconds}


def _read(content: Mapping[str, Any]) -> PrefillCost:
    return PrefillCost(
        tuple(map(int, content["alphas"])),
        tuple(map(int, content["betas"])),
        [[float(value) for value in row] for row in content["seconds"]],
    )

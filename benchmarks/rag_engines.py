"""Who takes part in the replay, as data: our engine with its shelves in several ways, and peers
with prefix caches of their own.

The plain engine, ours with its defaults and the peers are measured at every load; what differs from
the defaults in one thing, at one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.peers.catalogue import FOLDER, Precision

# Shares of what our engine serves without a cache.
LOADS = (0.5, 0.8, 1.2)
ONE_LOAD = (LOADS[1],)
QUICK_LOAD = ONE_LOAD

NO_CACHE = "ours int8, no cache"
CACHED = "ours int8, pgdsf, device+host, tree"


@dataclass(frozen=True, slots=True)
class Engine:
    """`weights` is what the engine itself calls them; `source` and `environment` as in the
    catalogue of peers. Those with `quick` take part in the short run too."""

    name: str
    module: str
    precision: Precision
    weights: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    loads: tuple[float, ...] = LOADS
    source: str = FOLDER
    environment: str = ""
    ours: bool = False
    quick: bool = False

    def loads_of(self, chosen: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(load for load in self.loads if load in chosen)


def _ours(
    policy: str = "pgdsf",
    tiers: str = "device+host",
    placement: str = "tree",
    loads: tuple[float, ...] = ONE_LOAD,
) -> Engine:
    kept = f"{policy}, {tiers}, {placement}" if tiers else "no cache"
    name = f"ours int8, {kept}"
    return Engine(
        name,
        "rag_ours",
        Precision.EIGHT_BIT,
        "int8",
        {"tiers": tiers.replace("+", ","), "policy": policy, "placement": placement},
        loads=loads,
        ours=True,
        quick=name in (NO_CACHE, CACHED),
    )


ENGINES: tuple[Engine, ...] = (
    _ours(tiers="", loads=LOADS),
    _ours(loads=LOADS),
    Engine(
        "OpenVINO Q8_0",
        "rag_openvino",
        Precision.EIGHT_BIT,
        source="Q8_0.gguf",
        environment="openvino",
        quick=True,
    ),
    Engine("llama.cpp Q8_0", "rag_llama_cpp", Precision.EIGHT_BIT, source="Q8_0.gguf"),
    Engine("transformers float32", "rag_transformers", Precision.FLOAT32),
    _ours(policy="lru"),
    _ours(policy="lfu"),
    _ours(policy="gdsf"),
    _ours(tiers="device"),
    _ours(tiers="device+host+disk"),
    _ours(placement="segment"),
)

# Known engines that have no place in the table, and why.
ABSENT = {
    "CTranslate2 int8": "keeps no prompt from one call to the next but one static prefix",
    "vLLM": "its CPU build is not among the peers that are installed here",
}

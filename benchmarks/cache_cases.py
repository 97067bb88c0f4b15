"""The caches that are compared: a subset of the cross product, one question after the other.

policy      who leaves first, at every size
forgetful   the policies as textbooks have them: what has left is forgotten, nothing fades
admission   all that leaves the device is copied, or only what was used twice; both placements
memory      how fast uses fade, and whether those of a node that has left are remembered
order       which order the documents stand in
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import inf

from benchmarks.cache_traces import Order
from cluster.blocks.pool import BLOCK_TOKENS
from cluster.knowledge.cache import CacheOptions
from cluster.knowledge.node import Admission, Placement
from cluster.knowledge.policies import PolicyName

RAGPULSE, MOONCAKE = "ragpulse", "mooncake"
K = 1024


@dataclass(frozen=True, slots=True)
class Tiers:
    """Tokens that the device and the host hold."""

    device_tokens: int
    host_tokens: int

    def __str__(self) -> str:
        return f"{self.device_tokens // K}k + {self.host_tokens // K}k"


DEVICE_ONLY = Tiers(56 * K, 0)
SIZES = {
    RAGPULSE: (Tiers(16 * K, 64 * K), Tiers(56 * K, 256 * K), Tiers(224 * K, 1024 * K)),
    MOONCAKE: (Tiers(256 * K, 1024 * K), Tiers(1024 * K, 4096 * K)),
}
# Of each trace the size at which the other questions are asked.
MIDDLE = {trace: sizes[1] for trace, sizes in SIZES.items()}
ORDERS = {RAGPULSE: Order.RETRIEVAL, MOONCAKE: Order.SENT}
DEFAULT = CacheOptions()
HALF_LIVES = {RAGPULSE: (1_000.0, 5_000.0, 100_000.0, inf), MOONCAKE: (5_000.0, 100_000.0)}


@dataclass(frozen=True, slots=True)
class Case:
    """A trace, and a cache of this size; the rest as `CacheOptions` has it by default."""

    trace: str
    tiers: Tiers
    order: Order
    policy: PolicyName = DEFAULT.policy
    admission: Admission = DEFAULT.admission
    placement: Placement = DEFAULT.placement
    half_life: float = DEFAULT.half_life
    num_ghosts: int = DEFAULT.num_ghosts

    @classmethod
    def of(cls, trace: str, tiers: Tiers | None = None) -> Case:
        """All by default."""
        return cls(trace, tiers or MIDDLE[trace], ORDERS[trace])

    @property
    def options(self) -> CacheOptions:
        return CacheOptions(
            policy=self.policy,
            placement=self.placement,
            admission=self.admission,
            host_blocks=self.tiers.host_tokens // BLOCK_TOKENS,
            half_life=self.half_life,
            num_ghosts=self.num_ghosts,
        )

    @property
    def forgetful(self) -> Case:
        return replace(self, half_life=inf, num_ghosts=0)

    @property
    def setting(self) -> str:
        """What is not as by default, but for the policy."""
        half_life = "no half life" if self.half_life == inf else f"half life {self.half_life:.0f}"
        differs = {
            f"admission {self.admission}": self.admission is not DEFAULT.admission,
            f"placement {self.placement}": self.placement is not DEFAULT.placement,
            half_life: self.half_life != DEFAULT.half_life,
            f"{self.num_ghosts} ghosts": self.num_ghosts != DEFAULT.num_ghosts,
        }
        return ", ".join(name for name, is_other in differs.items() if is_other) or "default"


def cases() -> tuple[Case, ...]:
    """Each once, the longest traces first."""
    return tuple(dict.fromkeys([*_of(MOONCAKE), *_of(RAGPULSE), *_of_ragpulse()]))


def _of(trace: str) -> Iterator[Case]:
    for tiers, policy in product(policy_sizes(trace), PolicyName):
        yield replace(Case.of(trace, tiers), policy=policy)
    for tiers in SIZES[trace]:
        yield replace(Case.of(trace, tiers), admission=Admission.ALL)
    case = Case.of(trace)
    yield from (replace(case, half_life=half_life) for half_life in HALF_LIVES[trace])
    yield replace(case, num_ghosts=0)


def _of_ragpulse() -> Iterator[Case]:
    """Questions that the shorter trace answers."""
    case = Case.of(RAGPULSE)
    yield from (replace(case, policy=policy).forgetful for policy in PolicyName)
    for admission in Admission:
        yield replace(case, admission=admission, placement=Placement.SEGMENT)
    yield replace(case, half_life=5_000.0, num_ghosts=0)
    for order, policy in product(Order, (PolicyName.PGDSF, PolicyName.LRU)):
        yield replace(case, order=order, policy=policy)


def policy_sizes(trace: str) -> tuple[Tiers, ...]:
    return (DEVICE_ONLY, *SIZES[trace]) if trace == RAGPULSE else SIZES[trace]

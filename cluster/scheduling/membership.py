"""Who should be alive, who is, and what to do about the difference.

A member *holds a lease*; whatever follows, follows from leases ending.

    wanted, never seen          -> Start (beside another: once that one was seen)
    wanted, lease ended         -> Start again (after a pause that doubles), counted as a restart
    not wanted, lease ended     -> forgotten
    no gateway for `idle_s`     -> ShutDown

A gateway is never wanted here: Ray Serve starts them, and while one lives the cluster does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from cluster.errors import InvariantBroken


class Role(StrEnum):
    GATEWAY = "gateway"
    SCHEDULER = "scheduler"
    GPU_WORKER = "gpu_worker"
    ATTENTION_WORKER = "attention_worker"
    RETRIEVER = "retriever"
    PROVER = "prover"
    SUPERVISOR = "supervisor"


@dataclass(frozen=True, slots=True)
class Member:
    """A process of the cluster. `name` outlives it, `incarnation` does not; `runs_on` says in words
    what it computes with."""

    role: Role
    name: str
    incarnation: str
    address: str
    metrics_address: str
    is_ready: bool
    pid: int
    node: str = ""
    runs_on: str = ""


@dataclass(frozen=True, slots=True)
class Desired:
    """An actor that should be alive: on the node of the one that it is to stand `beside`, if one is
    named."""

    role: Role
    name: str
    beside: str = ""


@dataclass(frozen=True, slots=True)
class Start:
    """Command: bring this actor up, on `node` if that is named. The first attempt adopts one that
    lives under the name already; a later one replaces it, for it no longer answers."""

    desired: Desired
    attempt: int
    node: str = ""


@dataclass(frozen=True, slots=True)
class ShutDown:
    """Command: nobody uses this cluster any more."""

    why: str


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    """Seconds. `start_s`: how long a started actor may take until its first renewal."""

    lease_s: float = 5.0
    start_s: float = 180.0
    idle_s: float = 60.0
    backoff_s: float = 1.0
    max_backoff_s: float = 30.0


@dataclass(slots=True)
class _Seat:
    desired: Desired
    member: Member | None = None
    expires_s: float = 0.0
    renewed_s: float | None = None
    num_starts: int = 0
    num_failures: int = 0
    start_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SeatStatus:
    """A seat as the outside sees it. `lease_age_s` None: never came up."""

    desired: Desired
    member: Member | None
    num_restarts: int
    lease_age_s: float | None


@dataclass(slots=True)
class Membership:
    """The brain: `renewed`, `lost` and `tick` in, commands out."""

    desired: tuple[Desired, ...]
    policy: LeasePolicy
    now_s: float
    _seats: dict[str, _Seat] = field(init=False)
    _gateways: dict[str, tuple[Member, float]] = field(init=False, default_factory=dict)
    # When the last lease of any gateway ends, or ended.
    _gateway_until_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._seats = {d.name: _Seat(d, start_after_s=self.now_s) for d in self.desired}
        self._gateway_until_s = self.now_s

    def renewed(self, member: Member, now_s: float) -> None:
        """A member spoke. An older incarnation than the one seated cannot be told from a newer one,
        so the last to speak holds the seat; names are unique in Ray, so two speak only while one is
        dying."""
        self.now_s = now_s
        if member.role is Role.GATEWAY:
            self._gateways[member.name] = (member, now_s + self.policy.lease_s)
            self._gateway_until_s = now_s + self.policy.lease_s
            return
        seat = self._seats.get(member.name)
        if seat is None:
            return
        seat.member = member
        seat.renewed_s = now_s
        seat.expires_s = now_s + self.policy.lease_s
        if member.is_ready:
            seat.num_failures = 0

    def start_failed(self, name: str, now_s: float) -> None:
        """A Start did not succeed, or its process died before it spoke."""
        self.now_s = now_s
        self._vacate(self._seats[name])

    def tick(self, now_s: float) -> list[Start | ShutDown]:
        """Ends leases, and says what to do now."""
        self.now_s = now_s
        self._gateways = {n: g for n, g in self._gateways.items() if g[1] > now_s}
        idle_s = now_s - self._gateway_until_s
        if idle_s >= self.policy.idle_s:
            return [ShutDown(f"no gateway for {idle_s:.0f} s (limit {self.policy.idle_s:.0f} s)")]
        commands: list[Start | ShutDown] = []
        for seat in self._seats.values():
            if seat.expires_s and now_s >= seat.expires_s:
                self._vacate(seat)
            node = self._node_for(seat.desired)
            if not seat.expires_s and now_s >= seat.start_after_s and node is not None:
                seat.num_starts += 1
                seat.expires_s = now_s + self.policy.start_s
                commands.append(Start(seat.desired, seat.num_starts, node))
        return commands

    def _node_for(self, desired: Desired) -> str | None:
        """None: the one to stand beside is not there."""
        if not desired.beside:
            return ""
        neighbour = self._seats[desired.beside].member
        return None if neighbour is None else neighbour.node

    def _vacate(self, seat: _Seat) -> None:
        pause_s = min(self.policy.backoff_s * 2**seat.num_failures, self.policy.max_backoff_s)
        # The first failure is followed by a start at once: most deaths are single.
        seat.start_after_s = self.now_s + (pause_s if seat.num_failures else 0.0)
        seat.num_failures += 1
        seat.member = None
        seat.expires_s = 0.0

    def members(self) -> tuple[Member, ...]:
        """Everyone who holds a lease."""
        seated = tuple(s.member for s in self._seats.values() if s.member is not None)
        return seated + tuple(g[0] for g in self._gateways.values())

    def status(self) -> tuple[SeatStatus, ...]:
        """Every seat, taken or not, then the gateways."""
        seats = [
            SeatStatus(
                s.desired,
                s.member,
                max(0, s.num_starts - 1),
                None if s.renewed_s is None else self.now_s - s.renewed_s,
            )
            for s in self._seats.values()
        ]
        gateways = [
            SeatStatus(
                Desired(Role.GATEWAY, m.name), m, 0, self.now_s - (until - self.policy.lease_s)
            )
            for m, until in self._gateways.values()
        ]
        return (*seats, *gateways)

    def check(self) -> None:
        """A seated member sits on its own seat, holds a lease, and no seat that waits for a start
        is taken."""
        for name, seat in self._seats.items():
            if seat.member is not None and seat.member.name != name:
                raise InvariantBroken(f"{seat.member.name} sits on the seat of {name}")
            if seat.member is not None and not seat.expires_s:
                raise InvariantBroken(f"{name} is seated without a lease")
            if seat.num_starts == 0 and seat.num_failures > 1 and seat.member is not None:
                raise InvariantBroken(f"{name} failed {seat.num_failures} times, never started")

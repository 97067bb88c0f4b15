"""Which worker a request goes to: the one with the least to do.

    work(worker) = prompt tokens it has still to compute, as it reported
                 + prompt tokens routed to it since that report
                 + `DECODE_TOKENS` for each request it holds
                 + of all those tokens and the newcomer's, what finds no room on its device:
                   a share of `HOST_SHARE` if there is room on its host, else all of it

What finds no room in either memory waits until somebody has ended; on the host it begins at once,
but decodes more slowly. Documents that nobody uses are room.

A report is as old as the last one that arrived; what was routed after it is remembered here until a
report names it or `estimate_s` have passed. A worker that reports no more is forgotten.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from cluster.blocks.pool import BLOCK_TOKENS
from cluster.errors import InvariantBroken, Overloaded, Starting
from cluster.ids import Incarnation, RequestId, WorkerName
from cluster.request import WorkerLoad

# A running or waiting request slows a newcomer about as much as so many prompt tokens.
DECODE_TOKENS = 64
# A token that decodes on the host is as much worse than one on the device as this share of one that
# waits.
HOST_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class RoutingPolicy:
    """Seconds. `estimate_s`: a routed request that no report names by then never arrived."""

    expiry_s: float = 5.0
    estimate_s: float = 5.0
    retry_after_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to send a request, and the decision with its numbers."""

    worker: WorkerName
    incarnation: Incarnation
    address: str
    why: str


@dataclass(frozen=True, slots=True)
class _Work:
    """In tokens: what is to be computed, what of it and of the newcomer goes to the host, and what
    waits for room."""

    own: int
    on_host: int
    roomless: int

    @property
    def total(self) -> float:
        return self.own + HOST_SHARE * self.on_host + self.roomless


@dataclass(slots=True)
class _Worker:
    incarnation: Incarnation
    address: str
    load: WorkerLoad
    reported_s: float
    # Routed here and not yet in a report: prompt tokens, and when.
    estimates: dict[RequestId, tuple[int, float]] = field(default_factory=dict)

    @property
    def num_requests(self) -> int:
        return self.load.num_running + self.load.num_waiting + len(self.estimates)

    @property
    def prompt_tokens(self) -> int:
        """Still to be computed, and to be given room."""
        return self.load.prefill_tokens + sum(tokens for tokens, _ in self.estimates.values())

    @property
    def device_tokens(self) -> int:
        """Room on the device."""
        return BLOCK_TOKENS * (self.load.num_free_blocks + self.load.num_evictable_blocks)

    @property
    def host_tokens(self) -> int:
        """Room on the host: none where requests never lie there."""
        return BLOCK_TOKENS * max(0, self.load.num_host_blocks - self.load.num_lent_host_blocks)

    def work(self, prompt_tokens: int) -> _Work:
        """With a newcomer of so many tokens."""
        beyond = max(0, self.prompt_tokens + prompt_tokens - self.device_tokens)
        on_host = min(beyond, self.host_tokens)
        own = self.prompt_tokens + DECODE_TOKENS * self.num_requests
        return _Work(own, on_host, beyond - on_host)

    @property
    def is_full(self) -> bool:
        """Whether the next one would find neither a seat nor a place in the queue: a free seat is
        one only where either memory has room. One more is sent to a worker without free seats: it
        may have got one since it reported."""
        has_room = self.device_tokens or self.host_tokens
        free_seats = self.load.max_running - self.load.num_running if has_room else 0
        pending = self.load.num_waiting + len(self.estimates)
        return pending >= self.load.max_waiting + max(1, free_seats)


@dataclass(slots=True)
class Router:
    """The brain: reports in, destinations out."""

    policy: RoutingPolicy
    _workers: dict[WorkerName, _Worker] = field(init=False, default_factory=dict)

    def reported(
        self,
        source: tuple[WorkerName, Incarnation, str],
        load: WorkerLoad,
        request_ids: Collection[RequestId],
        now_s: float,
    ) -> None:
        """`source` is name, incarnation and address; `request_ids` arrived there since its last
        report."""
        name, incarnation, address = source
        known = self._workers.get(name)
        if known is None or known.incarnation != incarnation:
            known = self._workers[name] = _Worker(incarnation, address, load, now_s)
        known.load = load
        known.reported_s = now_s
        for request_id in request_ids:
            known.estimates.pop(request_id, None)

    def route(
        self,
        request_id: RequestId,
        prompt_tokens: int,
        excluded: Collection[WorkerName],
        now_s: float,
    ) -> Destination:
        """Raises Starting when no worker is known, Overloaded when all of them are full."""
        self._forget_silent(now_s)
        candidates = {n: w for n, w in self._workers.items() if n not in excluded}
        if not candidates:
            raise Starting(
                f"no worker is ready ({len(self._workers)} known, {len(excluded)} excluded)",
                retry_after_s=self.policy.retry_after_s,
            )
        open_ones = {n: w for n, w in candidates.items() if not w.is_full}
        if not open_ones:
            num_roomy = sum(w.device_tokens + w.host_tokens > 0 for w in candidates.values())
            raise Overloaded(
                f"the queues of all {len(candidates)} workers are full; {num_roomy} have KV blocks "
                "left, on the device or the host",
                retry_after_s=self.policy.retry_after_s,
                limit="gpu_worker.max_waiting",
            )
        works = {name: worker.work(prompt_tokens) for name, worker in open_ones.items()}
        name = min(works, key=lambda name: (works[name].total, name))
        worker, work = open_ones[name], works[name]
        why = (
            f"least work: {work.total:.0f} tokens = {worker.load.prefill_tokens} reported"
            f" + {len(worker.estimates)} routed since + {DECODE_TOKENS} x {worker.num_requests}"
            f" requests + {HOST_SHARE} x {work.on_host} to the host + {work.roomless} without room,"
            f" of {len(open_ones)} open workers"
        )
        worker.estimates[request_id] = (prompt_tokens, now_s)
        return Destination(name, worker.incarnation, worker.address, why)

    def _forget_silent(self, now_s: float) -> None:
        policy = self.policy
        self._workers = {
            n: w for n, w in self._workers.items() if now_s - w.reported_s < policy.expiry_s
        }
        for worker in self._workers.values():
            worker.estimates = {
                r: (tokens, since)
                for r, (tokens, since) in worker.estimates.items()
                if now_s - since < policy.estimate_s
            }

    def check(self) -> None:
        """A request is estimated at one worker at most once per name, and what is free is there."""
        for name, worker in self._workers.items():
            load = worker.load
            if load.num_free_blocks + load.num_evictable_blocks > load.num_blocks:
                raise InvariantBroken(f"{name} reports more free blocks than it has")
            if load.num_lent_host_blocks > load.num_host_blocks:
                raise InvariantBroken(f"{name} lends more blocks of its host than it may")

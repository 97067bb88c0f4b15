"""The requests of a worker, and the blocks that they hold.

    waiting -> running            admitted: a seat is free, and there is room
    running -> waiting            preempted: an older one needed its blocks; it waits in its place
    device  -> host -> device     paged: its own keys and values change memory, and nothing is lost
    waiting | running -> done     stop id, max_tokens, cancelled, deadline

Both queues are in order of arrival.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush

from cluster.blocks.pool import BlockPool
from cluster.blocks.segment import Home
from cluster.errors import InvariantBroken
from cluster.ids import RequestId
from cluster.knowledge.cache import KnowledgeCache
from cluster.knowledge.commands import PageIn, PageOut
from cluster.knowledge.node import Blocks, Tier
from cluster.request import FinishReason
from cluster.scheduling.plan import Finished
from cluster.scheduling.sequence import Held, Sequence


@dataclass(slots=True)
class Requests:
    """Who waits and who runs. `host_share` of the host's blocks may be theirs."""

    cache: KnowledgeCache
    host_share: float = 0.0
    waiting: deque[Sequence] = field(init=False, default_factory=deque)
    running: list[Sequence] = field(init=False, default_factory=list)
    # Prompt tokens that those who wait have still to compute.
    waiting_tokens: int = field(init=False, default=0)
    # Preempted since the last plan.
    preempted: list[RequestId] = field(init=False, default_factory=list)
    _known: dict[RequestId, Sequence] = field(init=False, default_factory=dict)
    _deadlines: list[tuple[float, int, RequestId]] = field(init=False, default_factory=list)
    _num_arrived: int = field(init=False, default=0)

    @property
    def pool(self) -> BlockPool:
        return self.cache.pool

    @property
    def host_limit(self) -> int:
        """Blocks of the host that requests may hold."""
        return int(self.host_share * self.cache.host.pool.num_blocks)

    def __contains__(self, request_id: RequestId) -> bool:
        return request_id in self._known

    def all(self) -> Iterator[Sequence]:
        yield from self.running
        yield from self.waiting

    def arrived(self, sequence: Sequence) -> None:
        self._num_arrived += 1
        sequence.ordinal = self._num_arrived
        request = sequence.request
        self._known[request.id] = sequence
        heappush(self._deadlines, (request.deadline_s, sequence.ordinal, request.id))
        self._wait(sequence)

    def _wait(self, sequence: Sequence) -> None:
        """In its place: at the end whoever arrives; whoever is preempted is older than most."""
        waiting = self.waiting
        if not waiting or waiting[-1].ordinal < sequence.ordinal:
            waiting.append(sequence)
        else:
            later = (i for i, other in enumerate(waiting) if other.ordinal > sequence.ordinal)
            waiting.insert(next(later), sequence)
        self.waiting_tokens += sequence.num_remaining

    def admit(self, home: Home = Home.DEVICE) -> Sequence:
        """The one that has waited longest runs from now on."""
        sequence = self.waiting.popleft()
        self.waiting_tokens -= sequence.num_remaining
        sequence.settle(home)
        sequence.is_running = True
        insort(self.running, sequence, key=_ordinal)
        return sequence

    def preempt(self, victim: Sequence) -> None:
        self.running.remove(victim)
        self._give_back(victim.let_go())
        self._wait(victim)
        self.preempted.append(victim.request.id)

    def finish(self, sequence: Sequence, reason: FinishReason) -> Finished:
        del self._known[sequence.request.id]
        if sequence.is_running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
            self.waiting_tokens -= sequence.num_remaining
        self._give_back(sequence.let_go())
        return Finished(sequence.request.id, reason, sequence.num_recomputed)

    def find(self, request_id: RequestId) -> Sequence | None:
        return self._known.get(request_id)

    def expired(self, now_s: float) -> Iterator[Sequence]:
        """Those whose deadline has passed, each once."""
        while self._deadlines and self._deadlines[0][0] <= now_s:
            _, ordinal, request_id = heappop(self._deadlines)
            sequence = self._known.get(request_id)
            if sequence is not None and sequence.ordinal == ordinal:
                yield sequence

    def cut(self, sequence: Sequence, num_nodes: int) -> None:
        self._give_back(sequence.cut(num_nodes))

    def _give_back(self, held: Held) -> None:
        self.pool.release(held.device)
        if held.host:
            self.cache.host.take_back(held.host)
        self.cache.unpin(held.nodes)

    def host_room(self, count: int) -> bool:
        """Whether requests may take so many blocks more of the host's."""
        return self.cache.host.num_lent + count <= self.host_limit

    def lend(self, count: int) -> Blocks | None:
        return self.cache.host.lend(count) if self.host_room(count) else None

    def grow(self, sequence: Sequence, end: int) -> bool:
        """Takes the blocks that `end` tokens need. The device's are free; False, and nothing is
        taken, when the host has too few."""
        if sequence.home is Home.HOST and (on_host := sequence.missing(end, Home.HOST)):
            lent = self.lend(on_host)
            if lent is None:
                return False
            sequence.grow(end, lent, Home.HOST)
        if missing := sequence.missing(end):
            sequence.grow(end, self.pool.allocate(missing))
        return True

    def page_out(self, sequence: Sequence) -> bool:
        """False, and nothing is changed, when the host has no room for it."""
        own = tuple(sequence.pageable())
        lent = self.lend(len(own))
        if lent is None:
            return False
        if own:
            self.cache.host.moves.append(PageOut(own, lent))
        self.cache.counts.paged_blocks[Tier.DEVICE, Tier.HOST] += len(own)
        self.pool.release(own)
        sequence.page(Home.HOST, lent)
        return True

    def page_in(self, sequence: Sequence) -> None:
        """The device has room for it."""
        own = tuple(sequence.pageable())
        blocks = self.pool.allocate(len(own))
        if own:
            self.cache.host.moves.append(PageIn(own, blocks))
        self.cache.counts.paged_blocks[Tier.HOST, Tier.DEVICE] += len(own)
        self.cache.host.take_back(own)
        sequence.page(Home.DEVICE, blocks)

    def check(self) -> None:
        """Blocks: of exactly one sequence, of a node, or free (P5). Pins: of the running ones (P7).
        Order: arrival, in both queues."""
        self.cache.check()
        nodes = self.cache.tree.nodes.values()
        held = [block for s in self.all() for block in s.blocks()]
        held += [block for node in nodes for block in node.device]
        if len(held) != len(set(held)) or len(held) + self.pool.num_free != self.pool.num_blocks:
            raise InvariantBroken(f"{len(held)} blocks in tables, {self.pool.num_free} free")
        on_host = [block for s in self.all() for block in s.blocks(Home.HOST)]
        host = self.cache.host
        if len(set(on_host)) != len(on_host) or len(on_host) != host.num_lent:
            raise InvariantBroken(f"{len(on_host)} blocks of the host held, {host.num_lent} lent")
        if not host.pool.holds(on_host) or host.num_lent > self.host_limit:
            raise InvariantBroken("requests hold blocks of the host that are free, or too many")
        if any(s.blocks() or s.blocks(Home.HOST) or s.nodes for s in self.waiting):
            raise InvariantBroken("a waiting sequence holds blocks")
        for queue in (self.running, self.waiting):
            ordinals = [sequence.ordinal for sequence in queue]
            if ordinals != sorted(ordinals):
                raise InvariantBroken("a queue is out of order of arrival")
        if self.waiting_tokens != sum(s.num_remaining for s in self.waiting):
            raise InvariantBroken(f"{self.waiting_tokens} tokens are said to wait")
        pins = Counter(node.key for s in self.running for node in s.nodes)
        if any(node.pins != pins[node.key] for node in nodes):
            raise InvariantBroken("a node is pinned by nobody, or not by somebody who uses it")
        for sequence in self.running:
            _check_running(sequence)


def _ordinal(sequence: Sequence) -> int:
    return sequence.ordinal


def _check_running(sequence: Sequence) -> None:
    request = sequence.request
    if any(sequence.missing(sequence.num_computed, home) for home in (Home.DEVICE, Home.HOST)):
        raise InvariantBroken(f"{request.id} computed tokens it has no blocks for")
    for node, table in zip(sequence.nodes, sequence.tables, strict=False):
        lies = node.device if table.home is Home.DEVICE else node.host
        if not lies or (table.is_shared and table.blocks != lies):
            raise InvariantBroken(f"{request.id} uses a node where it does not lie")
    _check_still(sequence)
    counted = sequence.cached_tokens.total + sequence.num_fresh
    if counted != min(sequence.num_reached, request.num_prompt_tokens):
        raise InvariantBroken(f"{request.id}: {counted} tokens cached and computed")


def _check_still(sequence: Sequence) -> None:
    """What it keeps from row to row is what it would find anew."""
    kept = sequence.room_until, sequence.still
    if kept[0]:
        sequence.forget()
        sequence.stand()
        if kept != (sequence.room_until, sequence.still):
            raise InvariantBroken(f"{sequence.request.id} keeps what is true no more: {kept}")

"""What lies on disk, and what is on its way there and back.

Writing goes on behind everybody's back: when the host begins to fill, the nodes that it will give
up first are copied to disk, parents before children, so that they can be dropped without waiting.

    host copy --Write--> job --DiskDone--> on disk        a failed write: not on disk, a pause
    on disk   --Read---> job --DiskDone--> host copy      a failed read: not on disk, a counted miss

A node may be dropped while a job runs for it: the job keeps its blocks until it has ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.errors import InvariantBroken
from cluster.ids import BlockId
from cluster.knowledge.commands import Delete, DiskCommand, DiskDone, Read, Write
from cluster.knowledge.counts import CacheCounts, Eviction
from cluster.knowledge.host_tier import HostTier, record_of
from cluster.knowledge.keys import NodeKey
from cluster.knowledge.node import Admission, Blocks, Job, Node, Tier
from cluster.knowledge.ranking import Ranking
from cluster.knowledge.tree import KnowledgeTree

# Writing begins when less than this share of the host is free.
FREE_SHARE = 0.25
MAX_JOBS = 4
# After a write that failed nothing is written for so long: a full disk stays full for a while.
PAUSE_S = 30.0


@dataclass(slots=True)
class _Running:
    """`node` is gone when it was dropped meanwhile; then the blocks are freed with the job."""

    kind: Job
    num_blocks: int
    node: Node | None
    blocks: Blocks


@dataclass(slots=True)
class DiskTier:
    """`capacity` and `num_used` are in blocks; `commands` are those not yet taken."""

    tree: KnowledgeTree
    ranking: Ranking
    counts: CacheCounts
    host: HostTier
    capacity: int
    admission: Admission
    num_used: int = field(init=False, default=0)
    commands: list[DiskCommand] = field(init=False, default_factory=list)
    _jobs: dict[NodeKey, _Running] = field(init=False, default_factory=dict)
    _paused_until_s: float = field(init=False, default=0.0)

    @property
    def num_jobs(self) -> int:
        return len(self._jobs)

    def write_behind(self, now_s: float) -> None:
        """Begins to write what the host will give up first. What is not admitted is asked about
        again when something about it changes."""
        delayed: list[Node] = []
        while self._may_write(now_s) and len(delayed) < MAX_JOBS:
            node = self.tree.unwritten.pop()
            if node is None:
                break
            first = _first_unwritten(node)
            is_ready = self._is_ready(first)
            if is_ready and self._is_admitted(node) and self._make_room(first):
                self._write(first)
            if not is_ready or first is not node:
                delayed.append(node)
        for node in delayed:
            self.tree.refresh(node)

    def write(self, node: Node) -> bool:
        """Begins to write the node, or what must be there before it. False: not now; a copy on the
        host may have been asked for."""
        first = _first_unwritten(node)
        if not self._is_ready(first) or not self._make_room(first):
            return False
        self._write(first)
        return True

    def _may_write(self, now_s: float) -> bool:
        is_filling = self.host.pool.num_free < FREE_SHARE * self.host.pool.num_blocks
        return is_filling and len(self._jobs) < MAX_JOBS and now_s >= self._paused_until_s

    def _is_admitted(self, node: Node) -> bool:
        has_room = self.num_used + node.num_blocks <= self.capacity
        return has_room or self.admission is Admission.ALL or node.history.is_reused

    def _is_ready(self, node: Node) -> bool:
        """Whether its copy on the host has been made and no other job is in the way."""
        if not node.host and (blocks := self.host.take(node.num_blocks)):
            self.host.copy_out(node, blocks)
        is_copied = bool(node.host) and not self.host.is_pending(node)
        return is_copied and node.key not in self._jobs

    def _write(self, node: Node) -> None:
        self.num_used += node.num_blocks
        self._begin(node, Job.WRITING, ())
        self.commands.append(Write(record_of(node), node.host))
        self.counts.moved_blocks[Tier.HOST, Tier.DISK] += node.num_blocks

    def read(self, node: Node) -> bool:
        """Begins to bring the node up to the host. False: there is no room for it."""
        if node.key in self._jobs:
            return node.job is Job.READING
        blocks = self.host.take(node.num_blocks)
        if blocks is None:
            return False
        self._begin(node, Job.READING, blocks)
        self.commands.append(Read(record_of(node), blocks))
        return True

    def _begin(self, node: Node, kind: Job, blocks: Blocks) -> None:
        node.job = kind
        self._jobs[node.key] = _Running(kind, node.num_blocks, node, blocks)
        self.tree.refresh(node)

    def done(self, event: DiskDone, now_s: float) -> Node | None:
        """A job has ended. The node, when it was to be read and is lost."""
        job = self._jobs.pop(event.key, None)
        if job is None:
            raise InvariantBroken(f"no job runs for node {event.key.hex()}")
        if job.kind is Job.WRITING:
            self._written(event, job, now_s)
            return None
        return self._read(event, job)

    def _written(self, event: DiskDone, job: _Running, now_s: float) -> None:
        node = job.node
        if not event.is_good:
            self.counts.failed_writes += 1
            self._paused_until_s = now_s + PAUSE_S
        self.host.free(job.blocks)
        if node is not None:
            node.job = None
            if event.is_good and node.parent and self.tree.may_lie_on_disk(node.parent):
                self.enter(node)
                return
            self.tree.refresh(node)
        self.num_used -= job.num_blocks
        self.commands.append(Delete(event.key))

    def _read(self, event: DiskDone, job: _Running) -> Node | None:
        node = job.node
        if node is None:
            self.host.free(job.blocks)
            return None
        node.job = None
        if event.is_good and not node.host and self._may_enter_host(node):
            self.counts.moved_blocks[Tier.DISK, Tier.HOST] += job.num_blocks
            node.is_from_disk = not node.device
            self.host.enter(node, job.blocks)
            return None
        self.host.free(job.blocks)
        self.tree.refresh(node)
        if event.is_good:
            return None
        self.counts.faults[Tier.DISK] += 1
        return node

    def _may_enter_host(self, node: Node) -> bool:
        """Its parent may have sunk to disk meanwhile."""
        parent = node.parent
        return parent is None or self.tree.may_lie(parent, Tier.HOST)

    def _make_room(self, node: Node) -> bool:
        """Deletes nodes of lower priority until the node fits. What is still on the host would only
        be written again, and without its parent there the node itself could not stay."""
        if node.num_blocks > self.capacity:
            return False
        self.ranking.rank(node, Tier.DISK)
        while self.num_used + node.num_blocks > self.capacity:
            victim = self.tree.candidates[Tier.DISK].lowest()
            if victim is None or victim.host or victim is node.parent:
                return False
            if victim.priority[Tier.DISK] > node.priority[Tier.DISK]:
                return False
            self.evict(victim)
        return True

    def enter(self, node: Node) -> None:
        """The node is on disk now; its blocks there are counted already."""
        self.ranking.rank(node, Tier.DISK)
        self.tree.put_disk(node, True)

    def evict(self, node: Node) -> None:
        """The node's copy on disk goes; if it was the last one, the node is forgotten."""
        self.ranking.left(node, Tier.DISK)
        self.remove(node)
        how = Eviction.DROPPED if node.nearest is None else Eviction.COPY
        self.counts.evictions[Tier.DISK, how] += 1
        if node.nearest is None:
            self.tree.detach(node)
            self.ranking.forgot(node)

    def remove(self, node: Node) -> None:
        self.num_used -= node.num_blocks
        self.commands.append(Delete(node.key))
        self.tree.put_disk(node, False)

    def forget(self, node: Node) -> None:
        """The node's copy on disk is of no use; nor is what is being read from it."""
        if node.job is Job.READING:
            self.abandon(node)
        if node.on_disk:
            self.remove(node)

    def abandon(self, node: Node) -> bool:
        """The node is dropped. True: a job still reads its blocks on the host and frees them."""
        job = self._jobs.get(node.key)
        if job is None or job.node is not node:
            return False
        job.node, node.job = None, None
        if job.kind is Job.WRITING:
            job.blocks = node.host
        return job.kind is Job.WRITING

    def held_blocks(self) -> list[BlockId]:
        """Host blocks that only a job holds."""
        return [block for job in self._jobs.values() for block in job.blocks]

    def check(self) -> None:
        """The tier's size, and jobs and nodes that know of each other."""
        used = sum(node.num_blocks for node in self.tree.nodes.values() if node.on_disk)
        used += sum(job.num_blocks for job in self._jobs.values() if job.kind is Job.WRITING)
        if used != self.num_used or used > self.capacity:
            raise InvariantBroken(f"{used} blocks on disk, {self.num_used} counted")
        for node in self.tree.nodes.values():
            job = self._jobs.get(node.key)
            runs = job.kind if job is not None and job.node is node else None
            if node.job is not runs:
                raise InvariantBroken(f"node {node.key.hex()} waits for no job")


def _first_unwritten(node: Node) -> Node:
    """The node, or the first above it that is not on disk: what must be written first."""
    return next(above for above in node.path if not above.on_disk)

"""The knowledge cache: what a request may reuse, what is kept of it, and who makes room.

One idea: a document's keys and values are a node under everything that came before it, so a request
walks down from the root as far as its own documents lie, and computes from there.

    find -> pin -> (device: use | host: load, attend | disk: read, wait) -> .. -> insert the rest

P2 a node is usable only if all above it is: the walk begins at the root. P5 capacity is counted in
blocks: nodes and running requests share the device's pool. P6 a copy equals its original, for keys
and values are never changed. P7 what a request has pinned leaves no tier; a block that a command
still reads or writes is not given out, save in the order of the moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from cluster.blocks.pool import BlockPool
from cluster.errors import InvariantBroken
from cluster.ids import BlockId
from cluster.knowledge.commands import DiskCommand, DiskDone, Found, Move
from cluster.knowledge.counts import CacheCounts
from cluster.knowledge.device_tier import DeviceTier
from cluster.knowledge.disk_tier import DiskTier
from cluster.knowledge.ghosts import Ghosts
from cluster.knowledge.host_tier import HostTier
from cluster.knowledge.keys import NodeKey, chain
from cluster.knowledge.node import Admission, Job, Node, Placement, Tier
from cluster.knowledge.policies import PolicyName
from cluster.knowledge.prefill_cost import PrefillCost, TransferCost
from cluster.knowledge.ranking import Ranking
from cluster.knowledge.restore import Restore
from cluster.knowledge.tree import KnowledgeTree
from cluster.request import Request, SegmentSource


class HostUse(StrEnum):
    """What a request does with a document on the host: whatever is quickest, or always the same."""

    AUTO = "auto"
    LOAD = "load"
    ATTEND = "attend"
    RECOMPUTE = "recompute"


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """`host_blocks` and `disk_blocks` 0: without that tier; a disk needs a host. `kept_blocks`
    bounds what system prompts may keep for good. `is_on` False: nothing is kept or reused.

    `half_life`: after so many accesses of the tree an old one counts half. `num_ghosts` bounds the
    nodes that are remembered after they have left.
    """

    is_on: bool = True
    policy: PolicyName = PolicyName.PGDSF
    placement: Placement = Placement.TREE
    admission: Admission = Admission.REUSED
    host_blocks: int = 0
    disk_blocks: int = 0
    kept_blocks: int = 0
    half_life: float = 20_000.0
    num_ghosts: int = 65_536
    host_use: HostUse = HostUse.AUTO


class Way(StrEnum):
    """What to do about a node that a request has reached."""

    USE = "use"  # it lies on the device
    LOAD = "load"  # it lies on the host, and is copied to the device
    ATTEND = "attend"  # it lies on the host, and stays there
    WAIT = "wait"  # it is being read from disk
    COMPUTE = "compute"  # computing it anew is quicker, or nothing else can be done


@dataclass(frozen=True, slots=True)
class Visit:
    """How a request comes to a node: with `alpha` tokens before it; `num_rows` of its rows will
    attend it. `is_last`: no document that is still to be read or computed follows."""

    alpha: int = 0
    num_rows: int = 1
    is_last: bool = True


@dataclass(slots=True)
class KnowledgeCache:
    """The brain. `pool` is the device's, shared with the requests that run."""

    options: CacheOptions
    fingerprint: bytes
    pool: BlockPool
    prefill: PrefillCost
    transfer: TransferCost
    counts: CacheCounts = field(init=False, default_factory=CacheCounts)
    tree: KnowledgeTree = field(init=False)
    ranking: Ranking = field(init=False)
    host: HostTier = field(init=False)
    disk: DiskTier = field(init=False)
    device: DeviceTier = field(init=False)

    def __post_init__(self) -> None:
        options = self.options
        if options.disk_blocks and not options.host_blocks:
            raise InvariantBroken("a disk tier without a host tier has no way to the device")
        tree = KnowledgeTree(
            options.placement, bool(options.host_blocks), bool(options.disk_blocks)
        )
        ghosts = Ghosts(options.num_ghosts)
        ranking = Ranking(options.policy, options.half_life, options.kept_blocks, ghosts)
        counts, admission = self.counts, options.admission
        host = HostTier(tree, ranking, counts, BlockPool(options.host_blocks))
        disk = DiskTier(tree, ranking, counts, host, options.disk_blocks, admission)
        self.tree, self.ranking, self.host, self.disk = tree, ranking, host, disk
        self.device = DeviceTier(tree, ranking, counts, self.pool, host, disk, admission)

    def chain(self, request: Request) -> tuple[NodeKey, ...]:
        """The keys of the request's leading segments; none while the cache is off."""
        if not self.options.is_on:
            return ()
        return chain(self.fingerprint, request.template, request.segments, request.sources)

    def find(self, key: NodeKey) -> Node | None:
        return self.tree.nodes.get(key)

    @property
    def num_available(self) -> int:
        """Blocks of the device that are free, or held by nodes that nobody uses."""
        return self.pool.num_free + self.tree.num_evictable

    def pin(self, node: Node) -> None:
        """From here to `unpin` the node stays where it lies. Its parent is pinned before it."""
        self.tree.pin(node)

    def unpin(self, nodes: Sequence[Node]) -> None:
        """The deepest first, whatever order they are given in."""
        for node in reversed(nodes):
            self.tree.unpin(node)

    def way(self, node: Node, visit: Visit) -> Way:
        """How a request gets at a node; a disk begins to read here."""
        if node.device:
            return Way.USE
        if node.job is Job.READING:
            return Way.WAIT
        if node.host:
            return self.way_on_host(node, visit)
        compute_s = self.prefill.prefill_s(visit.alpha, node.num_tokens)
        read_s = node.num_blocks * (self.transfer.disk_block_s + self.transfer.host_block_s)
        # What is read comes to the host, and is of use only if that is.
        is_wanted = read_s < compute_s and self.options.host_use is not HostUse.RECOMPUTE
        return Way.WAIT if is_wanted and self.disk.read(node) else Way.COMPUTE

    def way_on_host(self, node: Node, visit: Visit) -> Way:
        """The quickest of those that are possible, or the one that was chosen for all. A node that
        does not lie on the host is to be computed.

        With `Placement.TREE` nothing that is loaded or computed under a node that is attended on
        the host can be kept, so only the end of a path is.
        """
        if not node.host:
            return Way.COMPUTE
        may_load = self.may_extend(node.parent)
        match self.options.host_use:
            case HostUse.AUTO:
                seconds = dict(self._seconds_on_host(node, visit, may_load))
                return min(seconds, key=lambda way: seconds[way])
            case HostUse.ATTEND:
                return Way.ATTEND
            case HostUse.LOAD:
                return Way.LOAD if may_load else Way.COMPUTE
            case HostUse.RECOMPUTE:
                return Way.COMPUTE

    def _seconds_on_host(
        self, node: Node, visit: Visit, may_load: bool
    ) -> Iterator[tuple[Way, float]]:
        yield Way.COMPUTE, self.prefill.prefill_s(visit.alpha, node.num_tokens)
        if may_load:
            yield Way.LOAD, node.num_blocks * self.transfer.host_block_s
        is_kept = visit.is_last or self.options.placement is Placement.SEGMENT
        if is_kept:
            rows = node.num_blocks * visit.num_rows
            yield Way.ATTEND, rows * self.transfer.attend_block_s

    def may_extend(self, parent: Node | None) -> bool:
        """Whether what is computed under the node (None: the root) may be kept on the device."""
        return self.tree.may_lie(parent or self.tree.root, Tier.DEVICE)

    def attended_in(self, block_s: float) -> None:
        """Whoever attends on the host from now on takes so long for a block."""
        self.transfer = replace(self.transfer, attend_block_s=block_s)

    def attend(self, node: Node) -> None:
        """A pinned node on the host is attended where it lies, until it is unpinned."""
        self.host.attend(node)

    def load(self, node: Node) -> None:
        """Brings a pinned node from the host to blocks of the device, which are free."""
        self.device.load(node)

    def accessed(self, node: Node) -> None:
        """A request uses the node. Not called for what may turn out not to be wanted."""
        self.ranking.accessed(node)
        self.tree.refresh(node)

    def insert(
        self,
        parent: Node | None,
        key: NodeKey,
        source: SegmentSource,
        num_tokens: int,
        blocks: tuple[BlockId, ...],
    ) -> Node:
        """The node of a segment that was computed under `parent`, which is pinned (None: the root).

        It takes the blocks over, unless its `device` says that it had others.
        """
        node = self.tree.nodes.get(key)
        if node is None:
            parent = parent or self.tree.root
            node = self.ranking.newcomer(parent, key, source, num_tokens)
            self.tree.attach(parent, node)
        if not node.device:
            self.counts.inserted_tokens += num_tokens
            node.is_from_disk = False
            self.device.enter(node, blocks)
        return node

    def make_room(self, count: int) -> bool:
        """Frees blocks of the device, lowest priority first, until `count` are free or nobody may
        leave any more: False."""
        return self.device.make_room(count)

    def damaged(self, key: NodeKey) -> None:
        """A `SwapIn` or `Verify` found that the host's copy is not what was written. Nobody uses
        the node any more; the blocks that it was to be loaded to are free again."""
        self.device.damaged(self.tree.nodes[key])

    def disk_done(self, event: DiskDone, now_s: float) -> None:
        """The disk has ended a `Write` or a `Read`."""
        lost = self.disk.done(event, now_s)
        if lost is not None:
            self.device.lose_disk(lost)

    def take_moves(self) -> tuple[Move, ...]:
        """What is to be done, in this order, before the step that was planned."""
        moves = tuple(self.host.moves)
        self.host.moves.clear()
        return moves

    def take_disk_commands(self, now_s: float) -> tuple[DiskCommand, ...]:
        """What a disk is to do, in this order, after the moves that were taken."""
        if self.options.disk_blocks:
            self.disk.write_behind(now_s)
        commands = tuple(self.disk.commands)
        self.disk.commands.clear()
        return commands

    def unwritten(self) -> list[NodeKey]:
        """What a stop would lose: nodes that are not on disk, the most valuable first."""
        nodes = [node for node in self.tree.nodes.values() if not node.on_disk]
        nodes.sort(key=lambda node: node.priority[node.nearest or 0], reverse=True)
        return [node.key for node in nodes]

    def restore(self, on_host: Iterable[Found], on_disk: Iterable[Found]) -> None:
        """Builds the tree from what a scan found; only while it is empty. What has no parent, or no
        room, is cleared and deleted."""
        if self.tree.nodes:
            raise InvariantBroken("a tree with nodes is not built from a scan")
        restore = Restore(self.tree, self.ranking, self.host, self.disk, self.prefill)
        restore.run(on_host, on_disk)

    def check(self) -> None:
        """P1 to P9, as far as they are the cache's."""
        self.tree.check()
        self.ranking.check(self.tree.nodes.values())
        self.pool.check()
        self.host.pool.check()
        self.disk.check()
        nodes = self.tree.nodes.values()
        on_device = [block for node in nodes for block in node.device]
        on_host = [block for node in nodes for block in node.host] + self.disk.held_blocks()
        if len(set(on_device)) != len(on_device) or not self.pool.holds(on_device):
            raise InvariantBroken("a block of the device is free, or of two nodes")
        if len(set(on_host)) != len(on_host) or not self.host.pool.holds(on_host):
            raise InvariantBroken("a block of the host is free, or of two nodes")
        num_known = len(on_host) + self.host.num_lent + self.host.pool.num_free
        if num_known != self.host.pool.num_blocks:
            raise InvariantBroken("blocks of the host leaked")


def no_cache(pool: BlockPool, host_blocks: int = 0) -> KnowledgeCache:
    """Keeps nothing: every request is computed whole. Blocks of the host are for requests."""
    nothing = PrefillCost((0,), (1,), [[0.0]])
    options = CacheOptions(is_on=False, host_blocks=host_blocks)
    return KnowledgeCache(options, b"", pool, nothing, TransferCost(0.0, 0.0))

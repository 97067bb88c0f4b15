"""A world around the cache: requests, three memories, a disk that answers when it likes.

Beside the cache stands a naive model of what it must know: plain dicts and lists, recomputed from
scratch.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace

import pytest

from cluster.blocks.pool import BlockPool, blocks_for
from cluster.ids import BlockId
from cluster.knowledge.cache import CacheOptions, KnowledgeCache, Visit, Way
from cluster.knowledge.commands import (
    DiskCommand,
    Found,
    Write,
)
from cluster.knowledge.device_tier import DeviceTier
from cluster.knowledge.keys import ROOT, NodeKey
from cluster.knowledge.node import Node, Placement
from cluster.knowledge.prefill_cost import PrefillCost, TransferCost
from tests.knowledge.memories import Memories, content_of, reachable
from tests.knowledge.visitors import FINGERPRINT, Path, Visitor

# Loading always beats computing, so that every way is gone.
PREFILL = PrefillCost((0, 64), (1, 64), [[1.0, 2.0], [1.5, 4.0]])
TRANSFER = TransferCost(host_block_s=0.01, disk_block_s=0.02)
# A single row attends on the host rather than to load, wherever it may.
ATTENDING = replace(TRANSFER, attend_block_s=0.005)


@dataclass(slots=True)
class WatchedDevice(DeviceTier):
    victims: list[NodeKey] = field(default_factory=list)

    def evict(self, node: Node) -> bool:
        has_left = DeviceTier.evict(self, node)
        if has_left:
            self.victims.append(node.key)
        return has_left


class World:
    def __init__(self, options: CacheOptions, device_blocks: int) -> None:
        self.options = options
        self.device_blocks = device_blocks
        self.now_s = 0.0
        self.num_visitors = 0
        self.num_restarts = 0
        self.num_attended = 0
        self._begin(Memories())

    def _begin(self, memories: Memories) -> None:
        self.memories = memories
        self.visitors: list[Visitor] = []
        self.num_accesses = 0
        self.accesses: defaultdict[NodeKey, list[int]] = defaultdict(list)
        self.costs: defaultdict[NodeKey, list[float]] = defaultdict(list)
        self.ages: dict[NodeKey, tuple[float, int]] = {}
        self.num_ages = 0
        pool = BlockPool(self.device_blocks)
        self.cache = KnowledgeCache(self.options, FINGERPRINT, pool, PREFILL, ATTENDING)
        c = self.cache
        self.watched = WatchedDevice(
            c.tree, c.ranking, c.counts, c.pool, c.host, c.disk, self.options.admission
        )
        c.device = self.watched

    # Requests.

    def arrive(self, wanted: Path) -> Visitor:
        self.num_visitors += 1
        visitor = Visitor(b"visitor %d" % self.num_visitors, wanted)
        self.visitors.append(visitor)
        return visitor

    def advance(self, visitor: Visitor) -> Way | None:
        """Walks as far as the tree goes, then takes blocks for what comes next. None: no room."""
        if visitor.reserved or visitor.question:
            return None
        while (key := visitor.next_key) is not None:
            node = self.cache.find(key)
            alpha = sum(node.num_tokens for node in visitor.nodes)
            visit = Visit(alpha, is_last=self._is_last(visitor))
            way = Way.COMPUTE if node is None else self.cache.way(node, visit)
            if way is Way.WAIT:
                return way
            if way is Way.COMPUTE or node is None:
                if not self.cache.may_extend(visitor.nodes[-1] if visitor.nodes else None):
                    break
                count = blocks_for(visitor.path.lengths[len(visitor.nodes)])
                if not self.make_room(count):
                    return None
                visitor.reserved = self.cache.pool.allocate(count)
                return Way.COMPUTE
            if not self._adopt(visitor, node, way):
                return None
        if self.make_room(1):
            visitor.question = self.cache.pool.allocate(1)
        return Way.USE

    def _is_last(self, visitor: Visitor) -> bool:
        after = [self.cache.find(key) for key in visitor.path.keys[len(visitor.nodes) + 1 :]]
        return all(node is not None and (node.device or node.host) for node in after)

    def _adopt(self, visitor: Visitor, node: Node, way: Way) -> bool:
        self.cache.pin(node)
        self._age()
        if way is Way.ATTEND:
            self.cache.attend(node)
            visitor.attended[node.key] = node.host
            self.num_attended += 1
        if way is Way.LOAD:
            if not self.make_room(node.num_blocks):
                self._unpin([node])
                return False
            self.cache.load(node)
            self._age()
        visitor.nodes.append(node)
        self._accessed(node)
        return True

    def _accessed(self, node: Node) -> None:
        self.num_accesses += 1
        self.accesses[node.key].append(self.num_accesses)
        self.cache.accessed(node)
        self._age()

    def _unpin(self, nodes: list[Node]) -> None:
        for node in reversed(nodes):
            self.cache.unpin([node])
            self._age()

    def leave(self, visitor: Visitor) -> None:
        """Ended or cancelled, wherever it stood."""
        self.cache.pool.release(visitor.reserved + visitor.question)
        self._unpin(visitor.nodes)
        self.visitors.remove(visitor)

    def make_room(self, count: int) -> bool:
        expected = self._naive_victims(count)
        self.watched.victims.clear()
        has_room = self.cache.make_room(count)
        assert has_room == (self.cache.pool.num_free >= count)
        if self.options.placement is Placement.TREE:
            assert self.watched.victims == expected
        if not has_room:
            assert not any(n.device and not n.pins for n in self.cache.tree.nodes.values())
        self._age()
        return has_room

    # Who leaves the device, found out the slow way.

    def _age(self) -> None:
        nodes = self.cache.tree.nodes.values()
        self._enter(self.ages, {node.key for node in nodes if node.device})

    def _enter(self, ages: dict[NodeKey, tuple[float, int]], on_device: set[NodeKey]) -> None:
        """Who may leave the device, by priority and since when."""
        nodes = self.cache.tree.nodes
        parents = {node.parent.key for key in on_device if (node := nodes[key]).parent}
        allowed = [key for key in on_device if key not in parents and not nodes[key].pins]
        for key in [key for key in ages if key not in allowed]:
            del ages[key]
        for key in allowed:
            priority = nodes[key].priority[3]
            if key not in ages or ages[key][0] != priority:
                self.num_ages += 1
                ages[key] = (priority, self.num_ages)

    def _naive_victims(self, count: int) -> list[NodeKey]:
        """Who must leave, one after the other; the ages are those after it."""
        nodes = self.cache.tree.nodes
        on_device = {key for key, node in nodes.items() if node.device}
        free, ages, victims = self.cache.pool.num_free, self.ages, list[NodeKey]()
        while free < count and ages:
            victim = min(ages, key=lambda key: ages[key])
            victims.append(victim)
            free += nodes[victim].num_blocks
            on_device.remove(victim)
            self._enter(ages, on_device)
        return victims

    # Steps.

    def step(self, seconds: float = 1.0) -> set[NodeKey]:
        """Moves, then the chunks; the disk gets its commands. The copies found damaged."""
        self.now_s += seconds
        moves = self.cache.take_moves()
        commands = self.cache.take_disk_commands(self.now_s)
        damaged: set[NodeKey] = set()
        for move in moves:
            self.memories.do_move(move, damaged)
        for command in commands:
            self._take_command(command)
        self._void(damaged)
        for visitor in self.visitors:
            self._compute(visitor)
        self.check_memories()
        return damaged

    def _void(self, damaged: set[NodeKey]) -> None:
        """Whoever had adopted a damaged copy goes back to where it begins."""
        for visitor in self.visitors:
            lost = [i for i, node in enumerate(visitor.nodes) if node.key in damaged]
            if lost:
                self.cache.pool.release(visitor.reserved + visitor.question)
                visitor.reserved = visitor.question = ()
                self._unpin(visitor.nodes[lost[0] :])
                for node in visitor.nodes[lost[0] :]:
                    visitor.attended.pop(node.key, None)
                del visitor.nodes[lost[0] :]
        for key in sorted(damaged):
            if self.cache.find(key) is not None:
                self.cache.damaged(key)
                self._age()

    def _compute(self, visitor: Visitor) -> None:
        self.memories.device.update((block, (visitor.name, 0)) for block in visitor.question)
        if not visitor.reserved:
            return
        index, blocks = len(visitor.nodes), visitor.reserved
        key, source = visitor.path.keys[index], visitor.path.sources[index]
        self.memories.device.update(zip(blocks, content_of(key, len(blocks)), strict=True))
        parent = visitor.nodes[-1] if visitor.nodes else None
        node = self.cache.insert(parent, key, source, visitor.path.lengths[index], blocks)
        self._age()
        if node.device != blocks:
            self.cache.pool.release(blocks)
        self.cache.pin(node)
        self._age()
        visitor.reserved = ()
        visitor.nodes.append(node)
        self.costs[key].append(0.5 + index)
        node.history.missed(0.5 + index)
        self._accessed(node)

    # The disk.

    def _take_command(self, command: DiskCommand) -> None:
        if isinstance(command, Write):
            node = self.cache.tree.nodes[command.record.key]
            assert node.parent is not None
            assert node.parent.key == ROOT or node.parent.on_disk
        self.memories.take(command)

    def answer(self, pick: int) -> None:
        if self.memories.answers:
            self.cache.disk_done(self.memories.answer(pick), self.now_s)
            self._age()

    def settle(self) -> None:
        """The disk does and answers all."""
        while self.memories.commands or self.memories.answers:
            self.memories.do_command(0)
            self.answer(0)

    # Accidents.

    def restart(self, is_host_lost: bool) -> None:
        """The process dies between two steps; the device's memory is gone."""
        self._begin(self.memories.after_a_death(is_host_lost))
        on_host, on_disk = self.memories.scan()
        self.num_restarts += 1
        self.cache.restore(on_host, on_disk)
        for key in self.cache.tree.nodes:
            self.accesses[key].append(0)
        self._check_restored(on_host, on_disk)

    def _check_restored(self, on_host: list[Found], on_disk: list[Found]) -> None:
        disk_blocks = sum(blocks_for(found.record.num_tokens) for found in on_disk)
        nodes = self.cache.tree.nodes
        if disk_blocks <= self.options.disk_blocks:
            host, disk = reachable(on_host, on_disk, self.options.placement)
            assert {key for key, node in nodes.items() if node.host} == host
            assert {key for key, node in nodes.items() if node.on_disk} == disk
        self.step()
        while self.memories.commands:
            self.memories.do_command(0)
        whole = {key for key, node in nodes.items() if node.on_disk}
        assert self.memories.disk.keys() - self.memories.busy.keys() == whole

    # What must hold.

    def check_memories(self) -> None:
        """After a step: every copy holds what its node is, and nobody else's is left."""
        in_use = {block for blocks in self.memories.busy.values() for block in blocks}
        kept: set[BlockId] = set()
        for key, node in self.cache.tree.nodes.items():
            expected = content_of(key, node.num_blocks)
            assert not node.device or [self.memories.device[b] for b in node.device] == expected
            is_whole = not self.memories.broken & set(node.host)
            if node.host and is_whole and not self.cache.host.is_pending(node):
                assert [self.memories.host[block] for block in node.host] == expected
            assert not node.on_disk or self.memories.disk[key][1] == expected
            kept.update(node.host)
        for visitor in self.visitors:
            for block in visitor.question:
                assert self.memories.device[block] == (visitor.name, 0)
            for key, host in visitor.attended.items():
                assert self.cache.tree.nodes[key].host == host
        if not self.cache.host.moves:
            for blocks in self.memories.host_records:
                assert set(blocks) <= kept | in_use, "a scan would find what the tree gave up"

    def check(self) -> None:
        """At any time: the cache's own check, and the naive model's."""
        self.cache.check()
        self._check_blocks()
        for key, node in self.cache.tree.nodes.items():
            assert node.pins == sum(node in visitor.nodes for visitor in self.visitors)
            self._check_history(key, node)

    def _check_blocks(self) -> None:
        nodes = list(self.cache.tree.nodes.values())
        held = [block for node in nodes for block in node.device]
        held += [b for visitor in self.visitors for b in visitor.reserved + visitor.question]
        assert len(held) == len(set(held)), "a block was given out twice"
        assert len(held) + self.cache.pool.num_free == self.device_blocks
        idle = sum(len(node.device) for node in nodes if not node.pins)
        assert self.cache.num_available == self.cache.pool.num_free + idle
        kept = sum(node.num_blocks for node in nodes if node.is_kept)
        assert kept <= self.options.kept_blocks
        assert all(not node.source.document_id for node in nodes if node.is_kept)
        on_disk = sum(node.num_blocks for node in nodes if node.on_disk)
        assert on_disk <= self.options.disk_blocks

    def _check_history(self, key: NodeKey, node: Node) -> None:
        numbers, half_life = self.accesses[key], self.options.half_life
        weights = [0.5 ** ((numbers[-1] - number) / half_life) for number in numbers]
        assert node.history.frequency == pytest.approx(sum(weights))
        costs = self.costs[key]
        if costs and not self.num_restarts:
            assert node.history.cost_s == pytest.approx(sum(costs) / len(costs))

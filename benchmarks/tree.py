"""Microseconds of the knowledge cache's decisions, with as many nodes as a big machine holds.

The tree is filled by requests until there are so many nodes; by then the device and the host are
full. Then every request's work is timed, part by part. Ten documents of 256 tokens a request: a
topic's first documents in its order, then others, so that every depth is found now and then. All
that leaves the device is copied to the host, which is the most work that there can be.

    hash       the ten keys, from the token ids
    look up    find, pin and count what is there; what the disk is asked for
    load       room on the device, and moves from the host, for what lies there
    make room  evictions for what is to be computed
    insert     blocks and nodes for that
    let go     unpin, and hand over the moves and the disk's commands

    collector  of cycles, whenever it comes, as a worker sets it: the parts that it fell in have
               its pauses in them

Times are of the processor; beside them the wall's, which other programs lengthen.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from random import Random

from rich.console import Console

from benchmarks.cache_replay import TRANSFER, prefill_cost
from benchmarks.catalogue import Scale
from benchmarks.result import Outcome, Row, Verdict
from cluster.blocks.pool import BlockPool, blocks_for
from cluster.engine.pauses import ShortPauses
from cluster.ids import BlockId, RequestId
from cluster.knowledge.cache import CacheOptions, KnowledgeCache, Visit, Way
from cluster.knowledge.commands import Delete, DiskCommand, DiskDone
from cluster.knowledge.keys import NodeKey
from cluster.knowledge.node import Admission, Node
from cluster.request import Request, Sampling, SegmentSource

SEED = 0
PATH = 10
DOCUMENT_TOKENS = 256
NUM_DOCUMENTS = 50_000
NUM_TOPICS = 2_000
# The shares of the nodes that the device and the host hold; the disk holds most.
DEVICE_SHARE, HOST_SHARE, DISK_SHARE = 0.2, 0.4, 0.9
COST_S = 2.5e-3
FILL_STEP = 2_000
AIM_US = 1_000.0
COLLECTOR = "collector"
PARTS = ("hash", "look up", "load", "make room", "insert", "let go", COLLECTOR)


@dataclass(frozen=True, slots=True)
class Size:
    """Nodes of the tree, and the requests that are timed then."""

    num_nodes: int
    num_requests: int


SIZES = {Scale.QUICK: Size(20_000, 1_000), Scale.FULL: Size(100_000, 5_000)}


@dataclass(frozen=True, slots=True)
class Taken:
    """Nanoseconds of one part of one request."""

    cpu: int = 0
    wall: int = 0


class Stopwatch:
    """What each part of each request took; a part may come in pieces."""

    def __init__(self) -> None:
        self.taken: defaultdict[str, list[Taken]] = defaultdict(list)
        self._now: dict[str, Taken] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        yield
        cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
        known = self._now.get(name, Taken())
        self._now[name] = Taken(known.cpu + cpu, known.wall + wall)

    def end(self) -> None:
        """Of the request. Parts that it did without have no time."""
        for name, taken in self._now.items():
            self.taken[name].append(taken)
        self._now = {}

    @contextmanager
    def collector(self) -> Iterator[None]:
        """Meanwhile every pause of the collector is an observation too."""
        begun = Taken()

        def paused(phase: str, _: dict[str, int]) -> None:
            nonlocal begun
            now = Taken(time.thread_time_ns(), time.perf_counter_ns())
            if phase == "stop":
                pause = Taken(now.cpu - begun.cpu, now.wall - begun.wall)
                self.taken[COLLECTOR].append(pause)
            begun = now

        gc.callbacks.append(paused)
        try:
            yield
        finally:
            gc.callbacks.remove(paused)


class Requests:
    """Requests without end, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._topics = [
            self._random.choices(range(NUM_DOCUMENTS), k=PATH) for _ in range(NUM_TOPICS)
        ]
        # Zipf's law: the second topic is asked for half as often as the first.
        self._weights = list(accumulate(1 / rank for rank in range(1, NUM_TOPICS + 1)))

    def next(self) -> Request:
        (topic,) = self._random.choices(self._topics, cum_weights=self._weights)
        num_kept = self._random.randint(0, PATH)
        documents = topic[:num_kept] + self._random.choices(range(NUM_DOCUMENTS), k=PATH - num_kept)
        return request_of(documents)


def request_of(documents: Sequence[int]) -> Request:
    return Request(
        RequestId("req"),
        tuple(tuple(range(each, each + DOCUMENT_TOKENS)) for each in documents),
        Sampling(),
        inf,
        sources=tuple(SegmentSource("documents", str(each)) for each in documents),
    )


class Worker:
    """Who asks the cache, one request after the other. Its disk is at once done."""

    def __init__(self, num_nodes: int) -> None:
        node_blocks = blocks_for(DOCUMENT_TOKENS)
        options = CacheOptions(
            host_blocks=int(HOST_SHARE * num_nodes) * node_blocks,
            disk_blocks=int(DISK_SHARE * num_nodes) * node_blocks,
            admission=Admission.ALL,
        )
        pool = BlockPool(int(DEVICE_SHARE * num_nodes) * node_blocks)
        self.cache = KnowledgeCache(options, b"tree", pool, prefill_cost(), TRANSFER)
        self.watch = Stopwatch()
        self.ways: Counter[Way] = Counter()

    def serve(self, request: Request) -> None:
        """One request from its arrival to its end."""
        with self.watch.part("hash"):
            keys = self.cache.chain(request)
        nodes: list[Node] = []
        while (way := self._walk(keys, nodes)) is not Way.COMPUTE:
            self._bring(way, keys[len(nodes)], nodes)
        self._compute(request, keys, nodes)
        with self.watch.part("let go"):
            self.cache.unpin(nodes)
            self.cache.take_moves()
            commands = self.cache.take_disk_commands(0.0)
        self._done(commands)
        self.watch.end()

    def settle(self) -> None:
        """The disk gets all that it may have: it is quicker than the requests."""
        while commands := self.cache.take_disk_commands(0.0):
            self._done(commands)

    def _walk(self, keys: Sequence[NodeKey], nodes: list[Node]) -> Way:
        """As far as nodes lie on the device, and what is to be done then."""
        with self.watch.part("look up"):
            for key in keys[len(nodes) :]:
                node = self.cache.find(key)
                if node is None:
                    break
                way = self.cache.way(node, Visit(DOCUMENT_TOKENS * len(nodes)))
                self.ways[way] += 1
                if way is not Way.USE:
                    return way
                self._adopt(node, nodes)
        return Way.COMPUTE

    def _adopt(self, node: Node, nodes: list[Node]) -> None:
        self.cache.pin(node)
        self.cache.accessed(node)
        nodes.append(node)

    def _bring(self, way: Way, key: NodeKey, nodes: list[Node]) -> None:
        if way is Way.WAIT:
            self._done(self.cache.take_disk_commands(0.0))
            return
        with self.watch.part("load"):
            node = self.cache.tree.nodes[key]
            self.cache.pin(node)
            self.cache.make_room(node.num_blocks)
            self.cache.load(node)
            self.cache.accessed(node)
            nodes.append(node)

    def _compute(self, request: Request, keys: Sequence[NodeKey], nodes: list[Node]) -> None:
        num_blocks = blocks_for(DOCUMENT_TOKENS)
        missing = range(len(nodes), len(keys))
        with self.watch.part("make room"):
            self.cache.make_room(len(missing) * num_blocks)
        with self.watch.part("insert"):
            for index in missing:
                blocks = self.cache.pool.allocate(num_blocks)
                self._keep(request.sources[index], keys[index], nodes, blocks)

    def _keep(
        self, source: SegmentSource, key: NodeKey, nodes: list[Node], blocks: tuple[BlockId, ...]
    ) -> None:
        parent = nodes[-1] if nodes else None
        node = self.cache.insert(parent, key, source, DOCUMENT_TOKENS, blocks)
        if node.device != blocks:
            self.cache.pool.release(blocks)
        node.history.missed(COST_S)
        self._adopt(node, nodes)

    def _done(self, commands: Sequence[DiskCommand]) -> None:
        """The disk does as it is told, and well."""
        for command in commands:
            if not isinstance(command, Delete):
                self.cache.disk_done(DiskDone(command.record.key, True), 0.0)


def run(scale: Scale, console: Console) -> Outcome:
    """One row a part. The tree's own invariants are checked when all is done."""
    size = SIZES[scale]
    worker, requests = Worker(size.num_nodes), Requests(SEED)
    pauses = ShortPauses()
    pauses.begin()
    fill(worker, requests, size.num_nodes, console)
    worker.watch = Stopwatch()
    with worker.watch.collector():
        for _ in range(size.num_requests):
            worker.serve(requests.next())
    pauses.end()
    worker.cache.check()
    num_nodes = len(worker.cache.tree.nodes)
    rows = [row(part, worker.watch.taken[part], num_nodes) for part in PARTS]
    return Outcome(rows, verdicts(rows), SEED)


def fill(worker: Worker, requests: Requests, num_nodes: int, console: Console) -> None:
    """Until there are so many nodes."""
    while (count := len(worker.cache.tree.nodes)) < num_nodes:
        console.print(f"{count} nodes of {num_nodes}")
        for _ in range(FILL_STEP):
            worker.serve(requests.next())
            worker.settle()


def row(part: str, taken: Sequence[Taken], num_nodes: int) -> Row:
    cpu, wall = ([t.cpu / 1e3 for t in taken], [t.wall / 1e3 for t in taken])
    return {
        "part": part,
        "nodes": num_nodes,
        "times": len(taken),
        "p50_us": statistics.median(cpu),
        "p99_us": p99(cpu),
        "max_us": max(cpu),
        "wall_p50_us": statistics.median(wall),
        "wall_p99_us": p99(wall),
    }


def p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """One for each part."""
    return [
        Verdict(
            f"{row['part']}: p99 below {AIM_US / 1e3:.0f} ms with {row['nodes']} nodes",
            f"{float(row['p99_us']):.0f} us of processor time (middle {float(row['p50_us']):.0f}, "
            f"longest {float(row['max_us']):.0f}; wall {float(row['wall_p99_us']):.0f})",
            float(row["p99_us"]) < AIM_US,
        )
        for row in rows
    ]

"""How a sequence gets at documents that are there already, and leaves behind those that are not.

At the start of each document a sequence looks whether the tree has it by now. If not, and an older
sequence is on its way to compute it, it waits a step: a document is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import StrEnum

from cluster.blocks.pool import blocks_for
from cluster.blocks.segment import Home
from cluster.knowledge.cache import KnowledgeCache, Visit, Way
from cluster.knowledge.keys import NodeKey
from cluster.knowledge.node import Node, Tier
from cluster.scheduling.sequence import Sequence


class Walk(StrEnum):
    """How a walk down the tree ended."""

    COMPUTE = "compute"  # what comes next is to be computed
    WAIT = "wait"  # somebody else is bringing or computing what comes next
    PREEMPTED = "preempted"  # there was no room, and nobody younger to take it from


def walk(
    cache: KnowledgeCache,
    sequence: Sequence,
    claimed: Collection[bytes],
    free: Callable[[int], bool],
) -> Walk:
    """Adopts node after node. `claimed` are the keys that older sequences will compute; `free`
    makes room for so many blocks, or says that the sequence itself had to go."""
    while (key := sequence.next_key) is not None:
        node = cache.find(key)
        way = _way(cache, sequence, node)
        if way is Way.COMPUTE or node is None:
            return Walk.WAIT if key in claimed else Walk.COMPUTE
        if way is Way.WAIT:
            return Walk.WAIT
        tier = _found_in(node)
        # Pinned first, or making room for it could take the node itself.
        cache.pin(node)
        if way is Way.LOAD:
            if not free(node.num_blocks):
                cache.unpin([node])
                return Walk.PREEMPTED
            cache.load(node)
        elif way is Way.ATTEND:
            cache.attend(node)
        node.is_from_disk = False
        if sequence.adopt(node, tier, Home.HOST if way is Way.ATTEND else Home.DEVICE):
            cache.accessed(node)
    return Walk.COMPUTE


def _way(cache: KnowledgeCache, sequence: Sequence, node: Node | None) -> Way:
    """A visit looks at all documents that follow: only where something depends on it."""
    if node is None:
        return Way.COMPUTE
    return Way.USE if node.device else cache.way(node, _visit(cache, sequence))


def _visit(cache: KnowledgeCache, sequence: Sequence, index: int | None = None) -> Visit:
    """Of the next segment, or of an earlier one of a sequence that has none yet."""
    index = len(sequence.nodes) if index is None else index
    after = (cache.find(key) for key in sequence.keys[index + 1 :])
    is_last = all(node is not None and (node.device or node.host) for node in after)
    return Visit(sequence.starts[index], sequence.num_rows_after(index), is_last)


def _found_in(node: Node) -> Tier:
    """Where the node was for whoever uses it first: what was read from disk for it came from
    there."""
    return Tier.DISK if node.is_from_disk else node.nearest or Tier.DISK


def to_keep(cache: KnowledgeCache, sequence: Sequence) -> tuple[NodeKey, ...]:
    """The keys of the documents that the sequence will compute and keep: the rest of its own."""
    parent = sequence.nodes[-1] if sequence.nodes else None
    return sequence.keys[len(sequence.nodes) :] if cache.may_extend(parent) else ()


def keep_computed(cache: KnowledgeCache, sequence: Sequence) -> None:
    """Documents that are computed whole enter the tree, and stay pinned."""
    while (index := sequence.next_to_keep) is not None and to_keep(cache, sequence):
        parent = sequence.nodes[-1] if sequence.nodes else None
        request, table = sequence.request, sequence.tables[index]
        num_tokens = len(request.segments[index])
        source, blocks = request.sources[index], table.blocks
        node = cache.insert(parent, sequence.keys[index], source, num_tokens, blocks)
        table.is_shared = node.device == blocks
        cache.pin(node)
        if sequence.kept(node):
            node.history.missed(sequence.cost_s)
            cache.accessed(node)


def blocks_beyond(cache: KnowledgeCache, sequence: Sequence) -> tuple[int, int]:
    """Blocks that a sequence without any still needs for all its tokens, and those available to
    it: what it would find on the device is neither needed nor free for it, and what it would attend
    on the host is not needed."""
    needed, available = sequence.missing(len(sequence.tokens)), cache.num_available
    for index, key in enumerate(sequence.keys):
        node = cache.find(key)
        if node is None:
            break
        if node.device:
            available -= 0 if node.pins else node.num_blocks
        elif cache.way_on_host(node, _visit(cache, sequence, index)) is not Way.ATTEND:
            break
        needed -= node.num_blocks
    return needed, available


def own_blocks(sequence: Sequence) -> int:
    """Blocks of the segments that are never shared, for all its tokens."""
    return sum(map(blocks_for, sequence.lengths(len(sequence.tokens))[len(sequence.keys) :]))

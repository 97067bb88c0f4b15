"""Moves between the device's blocks and the host's, in the order in which they were asked for.

Neighbours of one kind go together, a layer at a time: what one of them reads lies in the memory
that none of them writes. A move that writes what its neighbour wrote waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from cluster.engine.kv_cache import KvCache
from cluster.engine.tiers.host_arena import HostArena
from cluster.errors import InvariantBroken, Lost
from cluster.ids import BlockId
from cluster.knowledge.commands import Clear, Move, SwapIn, SwapOut, Verify
from cluster.knowledge.keys import NodeKey

log = logging.getLogger(__name__)


class Mover:
    """Between a device's cache and the host's arena, which are of one shape."""

    def __init__(self, cache: KvCache, arena: HostArena) -> None:
        if cache.shape != arena.layout.shape:
            raise InvariantBroken("the device's blocks and the host's are not of one shape")
        self._arena = arena
        # Layer by layer, on the device and on the host.
        self._layers = list(zip((*cache.k, *cache.v), (*arena.k, *arena.v), strict=True))

    def run(self, moves: Iterable[Move]) -> tuple[NodeKey, ...]:
        """The nodes whose blocks on the host were not whole. What they were to be copied to holds
        nothing of use; all other moves were done."""
        damaged: list[NodeKey] = []
        for batch in _batches(moves):
            self._swap_out([move for move in batch if isinstance(move, SwapOut)])
            damaged += self._swap_in([move for move in batch if isinstance(move, SwapIn)])
            damaged += [m.key for m in batch if isinstance(m, Verify) and not self._verify(m)]
            self._arena.clear(b for move in batch if isinstance(move, Clear) for b in move.host)
        return tuple(dict.fromkeys(damaged))

    def _verify(self, move: SwapIn | Verify) -> bool:
        try:
            self._arena.verify(move.key, move.host)
        except Lost as error:
            log.warning("node %s is lost on the host: %s", move.key.hex(), error)
            return False
        return True

    def _swap_out(self, moves: Sequence[SwapOut]) -> None:
        if not moves:
            return
        source, target = _indices([(move.device, move.host) for move in moves])
        with self._arena.writing(*((move.record, move.host) for move in moves)):
            for device, host in self._layers:
                rows = device.index_select(0, source.to(device.device))
                host.index_copy_(0, target, rows.to(host.device))

    def _swap_in(self, moves: Sequence[SwapIn]) -> list[NodeKey]:
        """The nodes that were not copied, for they are not whole."""
        good = [move for move in moves if self._verify(move)]
        if good:
            source, target = _indices([(move.host, move.device) for move in good])
            for device, host in self._layers:
                rows = host.index_select(0, source).to(device.device)
                device.index_copy_(0, target.to(device.device), rows)
        there = {move.key for move in good}
        return [move.key for move in moves if move.key not in there]


def _indices(moves: Sequence[tuple[Sequence[BlockId], Sequence[BlockId]]]) -> tuple[Tensor, Tensor]:
    """Source and target [blocks] of all moves."""
    if any(len(source) != len(target) for source, target in moves):
        raise InvariantBroken("a node is moved to more or fewer blocks than it has")
    sources = [block for source, _ in moves for block in source]
    targets = [block for _, target in moves for block in target]
    return torch.tensor(sources, dtype=torch.long), torch.tensor(targets, dtype=torch.long)


def _written(move: Move) -> Sequence[BlockId]:
    match move:
        case SwapIn(device=blocks) | SwapOut(host=blocks) | Clear(host=blocks):
            return blocks
        case Verify():
            return ()


def _batches(moves: Iterable[Move]) -> Iterator[list[Move]]:
    """Runs of moves of one kind that write no block twice."""
    batch: list[Move] = []
    written: set[BlockId] = set()
    for move in moves:
        target = _written(move)
        if batch and (type(move) is not type(batch[0]) or not written.isdisjoint(target)):
            yield batch
            batch, written = [], set()
        batch.append(move)
        written.update(target)
    if batch:
        yield batch

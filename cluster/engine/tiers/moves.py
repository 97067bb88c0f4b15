"""Moves between the device's blocks and the host's, in the order in which they were asked for.

    begin   verify, clear; copy what a later move depends on; hand over the rest
    ..      the step computes, and waits for each layer before it touches its blocks
    finish  all is copied; what has left the device is sealed, but for what was paged out

Neighbours of one kind go together, a layer at a time: what one of them reads lies in the memory
that none of them writes. A move that writes what its neighbour wrote waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack

from cluster.engine.kv_cache import KvCache
from cluster.engine.tiers.copies import Copier, Copies, Rows, ThreadCopier
from cluster.engine.tiers.host_arena import HostArena
from cluster.errors import InvariantBroken, Lost
from cluster.ids import BlockId
from cluster.knowledge.commands import Clear, Move, PageIn, PageOut, SwapIn, SwapOut, Verify
from cluster.knowledge.keys import NodeKey

log = logging.getLogger(__name__)


class Mover:
    """Between a device's cache and the host's arena, which are of one shape. `copier`, by default a
    thread, belongs to the mover from now on; whoever computes waits for its layers."""

    def __init__(self, cache: KvCache, arena: HostArena, copier: Copier | None = None) -> None:
        if cache.shape != arena.layout.shape:
            raise InvariantBroken("the device's blocks and the host's are not of one shape")
        self._arena = arena
        self._copier = copier or ThreadCopier()
        keys = zip(cache.k, arena.k, strict=True)
        values = zip(cache.v, arena.v, strict=True)
        self._layers = list(zip(keys, values, strict=True))
        # What is written on the host while copies are under way.
        self._writing: ExitStack | None = None

    def run(self, moves: Iterable[Move]) -> tuple[NodeKey, ...]:
        """Begins and finishes them, where no step computes meanwhile."""
        damaged = self.begin(moves)
        self.finish()
        return damaged

    def begin(self, moves: Iterable[Move]) -> tuple[NodeKey, ...]:
        """The nodes whose blocks on the host are not whole. What they were to be copied to holds
        nothing of use; all other moves are done by `finish`.

        Until then the disk keeps off the blocks of the host that are copied from and to.
        """
        if self._writing is not None:
            raise InvariantBroken("moves begin before the last ones are finished")
        moves = tuple(moves)
        first = independent_from(moves)
        damaged: list[NodeKey] = []
        for batch in _batches(moves[:first]):
            whole = self._looked_at(batch, damaged)
            copies = self._copies(whole)
            with self._written(whole):
                copies.copy_all()
        self._hand_over(self._looked_at(moves[first:], damaged))
        return tuple(dict.fromkeys(damaged))

    def finish(self) -> None:
        """All that has begun is copied and sealed. Raises what failed; then what was to be written
        on the host is left unwritten."""
        writing, self._writing = self._writing, None
        if writing is not None:
            with writing:
                self._copier.finish()

    def close(self) -> None:
        """After the last `finish`."""
        self._copier.close()

    def _looked_at(self, moves: Sequence[Move], damaged: list[NodeKey]) -> list[Move]:
        """Those whose source is whole; the others' keys go to `damaged`. What needs no copy is
        done."""
        whole: list[Move] = []
        for move in moves:
            if isinstance(move, SwapIn | Verify) and not self._verify(move):
                damaged.append(move.key)
                continue
            # What is paged out has no record, so whatever stood there before must not be found.
            if isinstance(move, Clear | PageOut):
                self._arena.clear(move.host)
            whole.append(move)
        return whole

    def _verify(self, move: SwapIn | Verify) -> bool:
        try:
            self._arena.verify(move.key, move.host)
        except Lost as error:
            log.warning("node %s is lost on the host: %s", move.key.hex(), error)
            return False
        return True

    def _hand_over(self, moves: Sequence[Move]) -> None:
        copies = self._copies(moves)
        if not copies.num_bytes:
            return
        with ExitStack() as writing:
            writing.enter_context(self._written(moves))
            self._copier.begin(copies)
            self._writing = writing.pop_all()

    def _copies(self, moves: Sequence[Move]) -> Copies:
        outs = [(move.device, move.host) for move in moves if isinstance(move, SwapOut | PageOut)]
        ins = [(move.host, move.device) for move in moves if isinstance(move, SwapIn | PageIn)]
        return Copies(self._layers, Rows.of(outs), Rows.of(ins))

    def _written(self, moves: Sequence[Move]) -> AbstractContextManager[None]:
        outs = [(move.record, move.host) for move in moves if isinstance(move, SwapOut)]
        return self._arena.writing(*outs)


def independent_from(moves: Sequence[Move]) -> int:
    """From this index on no copy needs another to have been made before it, nor anything that is
    done without one, as long as what leaves the device is read before anything is written there."""
    on_device: set[BlockId] = set()
    read, written = set[BlockId](), set[BlockId]()
    for index in reversed(range(len(moves))):
        match moves[index]:
            case SwapOut(device=device, host=host) | PageOut(device=device, host=host):
                if not (read.isdisjoint(host) and written.isdisjoint(host)):
                    return index + 1
                on_device.update(device)
                written.update(host)
            case SwapIn(host=host, device=device) | PageIn(host=host, device=device):
                if not (written.isdisjoint(host) and on_device.isdisjoint(device)):
                    return index + 1
                on_device.update(device)
                read.update(host)
            case Verify(host=host):
                read.update(host)
            case Clear(host=host):
                written.update(host)
    return 0


def _target(move: Move) -> Sequence[BlockId]:
    match move:
        case SwapIn(device=blocks) | PageIn(device=blocks):
            return blocks
        case SwapOut(host=blocks) | PageOut(host=blocks) | Clear(host=blocks):
            return blocks
        case Verify():
            return ()


def _batches(moves: Iterable[Move]) -> Iterator[list[Move]]:
    """Runs of moves of one kind that write no block twice."""
    batch: list[Move] = []
    written: set[BlockId] = set()
    for move in moves:
        target = _target(move)
        if batch and (type(move) is not type(batch[0]) or not written.isdisjoint(target)):
            yield batch
            batch, written = [], set()
        batch.append(move)
        written.update(target)
    if batch:
        yield batch

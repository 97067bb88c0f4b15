"""What the tree asks of its hands, and what they tell it.

Moves are done in their order, and as if before the step that was planned with them: a block that
one move reads may be the one that a later move, or the step, writes. A disk's commands are done
beside the steps, in their own order, and each `Write` and `Read` is answered by a `DiskDone`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.knowledge.keys import NodeKey
from cluster.knowledge.node import Blocks
from cluster.request import SegmentSource


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What stands beside a node's keys and values, so that a tree can be built again from them.
    The salt does not: it is in the key."""

    key: NodeKey
    parent: NodeKey
    source: SegmentSource
    num_tokens: int


@dataclass(frozen=True, slots=True)
class SwapOut:
    """Copy a node's blocks from the device to the host."""

    record: NodeRecord
    device: Blocks
    host: Blocks


@dataclass(frozen=True, slots=True)
class SwapIn:
    """Verify a node's blocks on the host, and copy them to the device."""

    key: NodeKey
    host: Blocks
    device: Blocks


@dataclass(frozen=True, slots=True)
class Verify:
    """Verify a node's blocks on the host, which are about to be attended where they lie."""

    key: NodeKey
    host: Blocks


@dataclass(frozen=True, slots=True)
class Clear:
    """These blocks of the host hold nothing any more: a scan must not find them."""

    host: Blocks


@dataclass(frozen=True, slots=True)
class PageOut:
    """Copy a running request's own blocks from the device to the host. No scan ever finds them."""

    device: Blocks
    host: Blocks


@dataclass(frozen=True, slots=True)
class PageIn:
    """Copy a running request's own blocks from the host to the device."""

    host: Blocks
    device: Blocks


Move = SwapOut | SwapIn | Verify | Clear | PageOut | PageIn


@dataclass(frozen=True, slots=True)
class Write:
    """Copy a node's blocks from the host to disk."""

    record: NodeRecord
    host: Blocks


@dataclass(frozen=True, slots=True)
class Read:
    """Verify a node on disk, and copy it to these blocks of the host."""

    record: NodeRecord
    host: Blocks


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a node from disk."""

    key: NodeKey


DiskCommand = Write | Read | Delete


def num_ready(commands: Sequence[DiskCommand], moves: Sequence[Move]) -> int:
    """How many of the commands, the first ones, may be done while the blocks of the moves are being
    copied: those that neither read nor write one of them on the host."""
    kinds = SwapIn | SwapOut | PageIn | PageOut
    copied = {b for move in moves if isinstance(move, kinds) for b in move.host}
    for count, command in enumerate(commands):
        if not isinstance(command, Delete) and not copied.isdisjoint(command.host):
            return count
    return len(commands)


@dataclass(frozen=True, slots=True)
class DiskDone:
    """A `Write` or `Read` has ended; what was read is whole and verified, or it is not there."""

    key: NodeKey
    is_good: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A whole node that a scan found on the host (with its blocks) or on disk (without)."""

    record: NodeRecord
    host: Blocks = ()

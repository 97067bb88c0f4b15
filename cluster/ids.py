"""The names of things. A name is a string with a type; nothing else is known of it here."""

from __future__ import annotations

from random import Random
from typing import NewType

RequestId = NewType("RequestId", str)
WorkerName = NewType("WorkerName", str)
BlockId = NewType("BlockId", int)

# New at every start of a process, so that a message for its predecessor is told apart.
Incarnation = NewType("Incarnation", str)


def new_request_id(random: Random) -> RequestId:
    """`req-` and 24 hexadecimal digits drawn from `random`."""
    return RequestId(f"req-{random.getrandbits(96):024x}")


def new_incarnation(random: Random) -> Incarnation:
    """16 hexadecimal digits drawn from `random`."""
    return Incarnation(f"{random.getrandbits(64):016x}")

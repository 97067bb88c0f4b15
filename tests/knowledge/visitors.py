"""Requests, and what they want."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.knowledge.keys import NodeKey, chain
from cluster.knowledge.node import Blocks, Node
from cluster.request import SegmentSource

FINGERPRINT = b"model"


@dataclass(frozen=True, slots=True)
class Path:
    """What a request wants: a system prompt, and documents under it."""

    keys: tuple[NodeKey, ...]
    sources: tuple[SegmentSource, ...]
    lengths: tuple[int, ...]


def path(salt: bytes, *names: str) -> Path:
    """The first name is a system prompt's. A segment's length follows from its name."""
    lengths = tuple(1 + sum(name.encode()) * 7 % 40 for name in names)
    segments = tuple(
        tuple(sum(n.encode()) + i for i in range(k)) for n, k in zip(names, lengths, strict=True)
    )
    sources = (
        SegmentSource(collection=names[0], salt=salt),
        *(SegmentSource("c", name, version=1, salt=salt) for name in names[1:]),
    )
    return Path(chain(FINGERPRINT, "t", segments, sources), sources, lengths)


@dataclass(slots=True, eq=False)
class Visitor:
    """A request: nodes that it uses, those of them that it attends on the host, blocks for the
    segment that it computes, a question's."""

    name: bytes
    path: Path
    nodes: list[Node] = field(default_factory=list)
    attended: dict[NodeKey, Blocks] = field(default_factory=dict)
    reserved: Blocks = ()
    question: Blocks = ()

    @property
    def next_key(self) -> NodeKey | None:
        index = len(self.nodes)
        return self.path.keys[index] if index < len(self.path.keys) else None

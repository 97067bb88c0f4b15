"""What a node is called: a hash of everything its keys and values depend on.

    root   = BLAKE2b-128(model fingerprint, template)
    key(n) = BLAKE2b-128 keyed by the salt, of (key(parent), collection, document, chunk, version,
             BLAKE2b-128 of the token ids)

The chain makes `[d1, d2]` and `[d2, d1]` share nothing below the root, as K and V of a token depend
on every token before it. No seed is drawn, so two processes agree. A salt is of a tenant, or
shared; from the first segment with another salt on, two chains have nothing in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from struct import pack
from typing import NewType

from cluster.request import SegmentSource, TokenIds

NodeKey = NewType("NodeKey", bytes)

KEY_BYTES = 16
# Above every first node, whichever root its chain was begun with.
ROOT = NodeKey(bytes(KEY_BYTES))


def chain(
    fingerprint: bytes,
    template: str,
    segments: Sequence[TokenIds],
    sources: Sequence[SegmentSource],
) -> tuple[NodeKey, ...]:
    """A key for each of the leading segments that have a source. An empty segment has no keys and
    values to keep: it ends the chain."""
    above = _hash(b"", fingerprint, template.encode())
    keys = []
    for token_ids, source in zip(segments, sources, strict=False):
        if not token_ids:
            break
        above = _hash(
            source.salt,
            above,
            source.collection.encode(),
            source.document_id.encode(),
            pack("<QQ", source.chunk, source.version),
            _hash(b"", pack(f"<{len(token_ids)}I", *token_ids)),
        )
        keys.append(NodeKey(above))
    return tuple(keys)


def _hash(salt: bytes, *parts: bytes) -> bytes:
    """Every part goes in behind its length: where one ends cannot be mistaken."""
    state = blake2b(digest_size=KEY_BYTES, key=salt)
    for part in parts:
        state.update(pack("<Q", len(part)))
        state.update(part)
    return state.digest()

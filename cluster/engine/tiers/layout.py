"""Where the bytes of a block lie outside the device, and what must be equal for them to mean the
same.

    arena  = file header | block 0 | block 1 | ..
    block  = header | payload
    payload = layer 0 k | layer 0 v | layer 1 k | ..      a multiple of 64 bytes
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from struct import pack

from cluster.attention.shared_kv import SharedKv
from cluster.blocks.pool import BLOCK_TOKENS
from cluster.engine.kv_cache import KvShape
from cluster.engine.tiers.records import RECORD_BYTES

FINGERPRINT_BYTES = 16
# A line of a processor's cache: what begins on one is aligned for every type of number.
ALIGN_BYTES = 64
ARENA_HEADER_BYTES = 4096
# In front of the record: two checksums, the generation, and which of how many blocks it is.
BLOCK_HEAD_BYTES = 32


def aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGN_BYTES) * ALIGN_BYTES


BLOCK_HEADER_BYTES = aligned(BLOCK_HEAD_BYTES + RECORD_BYTES)


def kv_fingerprint(model_digest: str, backend: str, shape: KvShape) -> bytes:
    """BLAKE2b-128 of everything that makes two keys and values comparable: which weights, computed
    by what, in which shape."""
    numbers = (shape.num_layers, shape.num_kv_heads, shape.head_dim, BLOCK_TOKENS)
    state = blake2b(digest_size=FINGERPRINT_BYTES)
    for part in (model_digest.encode(), backend.encode(), str(shape.dtype).encode()):
        state.update(pack("<Q", len(part)))
        state.update(part)
    state.update(pack("<4Q", *numbers))
    return state.digest()


@dataclass(frozen=True, slots=True)
class KvLayout:
    """`fingerprint` (16 bytes) is that of `kv_fingerprint`."""

    shape: KvShape
    fingerprint: bytes

    @property
    def payload_bytes(self) -> int:
        return aligned(self.shape.block_bytes)

    @property
    def stride_bytes(self) -> int:
        """From one block of the arena to the next."""
        return BLOCK_HEADER_BYTES + self.payload_bytes

    def arena_bytes(self, num_blocks: int) -> int:
        return ARENA_HEADER_BYTES + num_blocks * self.stride_bytes

    def kv(self, num_blocks: int) -> SharedKv:
        """Where k and v of each layer lie in an arena's bytes, shaped as a `KvCache` has them."""
        shape = self.shape
        starts = self._starts()
        return SharedKv(
            dtype=str(shape.dtype).removeprefix("torch."),
            num_bytes=self.arena_bytes(num_blocks),
            num_blocks=num_blocks,
            kv_heads=shape.num_kv_heads,
            head_dim=shape.head_dim,
            stride=self.stride_bytes // shape.dtype.itemsize,
            starts=tuple((next(starts), next(starts)) for _ in range(shape.num_layers)),
        )

    def _starts(self) -> Iterator[int]:
        """Where k and v of the layers begin in the first block, counted in numbers."""
        shape = self.shape
        start = (ARENA_HEADER_BYTES + BLOCK_HEADER_BYTES) // shape.dtype.itemsize
        part = shape.num_kv_heads * shape.head_dim * BLOCK_TOKENS
        yield from range(start, start + 2 * shape.num_layers * part, part)

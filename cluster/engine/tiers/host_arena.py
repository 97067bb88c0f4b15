"""The host's blocks: one piece of memory without a name that outlives the process that fills it.

A block carries the record of the node it is part of, so that whoever gets hold of the memory can
build the tree again. A block's generation is odd from before its first byte is written until after
the last: a writer may die at any moment and leaves nothing that looks whole.

    empty --writing--> odd --all written--> even --clear--> odd, no record
                       odd --died, failed--> odd

All blocks of one write get the same generation, which no other write ever had. A header has a
checksum of itself, compared whenever it is read; the payload's is compared by `verify`, which comes
before every use. Every block has one writer at a time.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from struct import Struct
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from xxhash import xxh3_64_intdigest as checksum

from cluster.blocks.pool import blocks_for
from cluster.engine.tiers.layout import (
    ARENA_HEADER_BYTES,
    BLOCK_HEAD_BYTES,
    BLOCK_HEADER_BYTES,
    KvLayout,
)
from cluster.engine.tiers.records import RECORD_BYTES, pack_record, unpack_record
from cluster.errors import InvariantBroken, Lost, Unavailable
from cluster.ids import BlockId
from cluster.knowledge.commands import Found, NodeRecord
from cluster.knowledge.keys import KEY_BYTES, NodeKey
from cluster.knowledge.node import Blocks

_MAGIC = b"THOTHmem"
_FORMAT = 1
# Magic, format, bytes of a block's header, fingerprint, bytes of a payload, number of blocks.
_ARENA = Struct("<8sII16sQQ")
# Checksum of all the header that follows, generation, checksum of the payload, which of how many.
_BLOCK = Struct("<QQQII")
_GENERATION_AT = 8
_AFTER_GENERATION = 16
# No writer counts so far: what is beyond was damaged.
_MAX_GENERATION = 2**62
# Linux 5.14: get the memory now, or say that there is none.
_MADV_POPULATE_WRITE = 23
_SLICE_BYTES = 2**22

Node = tuple[NodeRecord, Blocks]


@dataclass(frozen=True, slots=True)
class _Header:
    """`record` is packed: two blocks are of one node when it is equal."""

    generation: int
    payload_sum: int
    index: int
    num_blocks: int
    record: bytes


class HostArena:
    """`fd` belongs to the arena until `close`; to pass it on is to pass the memory on.

    `k` and `v` are views over all blocks, layer by layer, shaped as a `KvCache` has them; `kv` says
    where they lie, to whom the memory is passed on.
    """

    def __init__(self, fd: int, layout: KvLayout, num_blocks: int) -> None:
        self.fd = fd
        self.layout = layout
        self.num_blocks = num_blocks
        self._map = mmap.mmap(fd, layout.arena_bytes(num_blocks))
        # The kernel may be built to know none.
        with suppress(OSError):
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self._memory = memoryview(self._map)
        self.kv = layout.kv(num_blocks)
        self.k, self.v = self.kv.views(self.everything())
        self._generations: NDArray[np.uint64] = np.ndarray(
            (num_blocks,),
            np.uint64,
            buffer=self._map,
            offset=ARENA_HEADER_BYTES + _GENERATION_AT,
            strides=(layout.stride_bytes,),
        )
        known = self._generations[self._generations < _MAX_GENERATION]
        self._writes = count(int(known.max(initial=0)) // 2 + 1)

    @classmethod
    def create(cls, layout: KvLayout, num_blocks: int) -> HostArena:
        """Empty; all of its memory is taken now. Raises Unavailable when there is not enough."""
        fd = os.memfd_create("thoth-kv", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, layout.arena_bytes(num_blocks))
            # A holder of the memory could otherwise take it from under the others.
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            arena = cls(fd, layout, num_blocks)
            arena._take_memory()
        except OSError as error:
            os.close(fd)
            wanted = layout.arena_bytes(num_blocks) / 2**30
            raise Unavailable(f"no {wanted:.1f} GiB of memory for the host: {error}") from error
        header = _arena_header(layout, num_blocks)
        arena._memory[: len(header)] = header
        return arena

    @classmethod
    def attach(cls, fd: int, layout: KvLayout) -> HostArena:
        """What another process left. Raises Lost, and leaves `fd` to the caller, when that is not
        an arena of this layout."""
        header = os.pread(fd, _ARENA.size + 8, 0)
        if len(header) < _ARENA.size + 8:
            raise Lost("the memory is too short to be an arena")
        num_blocks: int = _ARENA.unpack_from(header)[-1]
        if header != _arena_header(layout, num_blocks):
            raise Lost("the memory is no arena of this model, shape and format")
        if os.fstat(fd).st_size != layout.arena_bytes(num_blocks):
            raise Lost(f"the arena is not as long as {num_blocks} blocks are")
        return cls(fd, layout, num_blocks)

    def _take_memory(self) -> None:
        """A slice at a time: `madvise` lets no other thread run meanwhile."""
        size = len(self._map)
        try:
            for start in range(0, size, _SLICE_BYTES):
                self._map.madvise(_MADV_POPULATE_WRITE, start, min(_SLICE_BYTES, size - start))
        except OSError:
            os.posix_fallocate(self.fd, 0, size)

    @contextmanager
    def writing(self, *nodes: Node) -> Iterator[None]:
        """The payloads of these nodes are written inside, and the nodes are whole at its end. An
        exception leaves them unwritten; a second node may not have a block of the first."""
        packed = [_packed(record, blocks) for record, blocks in nodes]
        generation = 2 * next(self._writes)
        for _, blocks in nodes:
            self._empty(blocks, generation - 1)
        yield
        for record, (_, blocks) in zip(packed, nodes, strict=True):
            for index, block in enumerate(blocks):
                payload_sum = checksum(self.payload(block))
                header = _Header(generation, payload_sum, index, len(blocks), record)
                self._seal(block, header)

    def _seal(self, block: BlockId, header: _Header) -> None:
        """The generation last: until then the block is not whole."""
        numbers = (header.generation, header.payload_sum, header.index, header.num_blocks)
        packed = bytearray(BLOCK_HEADER_BYTES)
        _BLOCK.pack_into(packed, 0, 0, *numbers)
        packed[BLOCK_HEAD_BYTES : BLOCK_HEAD_BYTES + RECORD_BYTES] = header.record
        packed[:_GENERATION_AT] = checksum(packed[_GENERATION_AT:]).to_bytes(8, "little")
        place = self._header(block)
        place[_AFTER_GENERATION:] = packed[_AFTER_GENERATION:]
        place[:_GENERATION_AT] = packed[:_GENERATION_AT]
        self._generations[block] = header.generation

    def clear(self, blocks: Iterable[BlockId]) -> None:
        """What these blocks hold is no node's any more. The payload stays until it is written over:
        without its header nothing leads to it."""
        self._empty(blocks, 2 * next(self._writes) - 1)

    def _empty(self, blocks: Iterable[BlockId], generation: int) -> None:
        for block in blocks:
            place = self._header(block)
            self._generations[block] = generation
            place[_AFTER_GENERATION:] = bytes(BLOCK_HEADER_BYTES - _AFTER_GENERATION)
            place[:_GENERATION_AT] = bytes(_GENERATION_AT)

    def everything(self) -> Tensor:
        """All bytes where they lie, headers and payloads: [bytes] uint8."""
        return torch.frombuffer(self._memory, dtype=torch.uint8)

    def payload(self, block: BlockId) -> memoryview:
        """The block's bytes behind its header, to be read, or to be written inside `writing`."""
        start = self._start(block) + BLOCK_HEADER_BYTES
        return self._memory[start : start + self.layout.payload_bytes]

    @property
    def memory(self) -> memoryview:
        """All of it, to be read; `kv` says where the blocks lie."""
        return self._memory.toreadonly()

    def generations(self, blocks: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Of each block its last write's: odd while it is written or when it holds nothing whole.
        The same number is the same content."""
        generations: NDArray[np.int64] = self._generations[blocks].astype(np.int64)
        return generations

    def _header(self, block: BlockId) -> memoryview:
        start = self._start(block)
        return self._memory[start : start + BLOCK_HEADER_BYTES]

    def _start(self, block: BlockId) -> int:
        if not 0 <= block < self.num_blocks:
            raise InvariantBroken(f"the host has {self.num_blocks} blocks, none is {block}")
        return ARENA_HEADER_BYTES + block * self.layout.stride_bytes

    def verify(self, key: NodeKey, blocks: Blocks) -> tuple[int, ...]:
        """The checksums of the payloads of a node that is whole, in these blocks, in this order.
        Raises Lost when it is not: never written whole, damaged, or another one."""
        headers = [self._read_header(block) for block in blocks]
        for index, (block, header) in enumerate(zip(blocks, headers, strict=True)):
            place = (header.record[:KEY_BYTES], header.index, header.num_blocks)
            if place != (key, index, len(blocks)):
                raise Lost(f"block {block} of the host is not block {index} of node {key.hex()}")
            if header.generation != headers[0].generation:
                raise Lost(f"the blocks of node {key.hex()} are of several writes")
            if header.payload_sum != checksum(self.payload(block)):
                raise Lost(f"block {block} of the host is damaged: its checksum differs")
        return tuple(header.payload_sum for header in headers)

    def _read_header(self, block: BlockId) -> _Header:
        """Raises Lost when the block is empty, half written, or its header is damaged."""
        packed = bytes(self._header(block))
        header_sum, generation, payload_sum, index, num_blocks = _BLOCK.unpack_from(packed)
        if generation % 2:
            raise Lost(f"block {block} of the host was never written whole")
        if header_sum != checksum(packed[_GENERATION_AT:]):
            raise Lost(f"the header of block {block} of the host is damaged")
        record = packed[BLOCK_HEAD_BYTES : BLOCK_HEAD_BYTES + RECORD_BYTES]
        return _Header(generation, payload_sum, index, num_blocks, record)

    def scan(self) -> list[Found]:
        """The nodes that are whole, their headers verified and their payloads not yet.

        Of two copies the newer. Every other block is cleared, so that what is not found now cannot
        come back later.
        """
        writes: defaultdict[tuple[int, int, bytes], dict[int, BlockId]] = defaultdict(dict)
        for block in map(BlockId, range(self.num_blocks)):
            with suppress(Lost):
                header = self._read_header(block)
                write = header.generation, header.num_blocks, header.record
                writes[write][header.index] = block
        found: dict[NodeKey, Found] = {}
        for (_, num_blocks, packed), blocks in sorted(writes.items()):
            with suppress(Lost):
                record = unpack_record(packed)
                if len(blocks) == num_blocks:
                    host = tuple(blocks[index] for index in range(num_blocks))
                    found[record.key] = Found(record, host)
        held = {block for node in found.values() for block in node.host}
        self.clear(BlockId(i) for i in range(self.num_blocks) if i not in held)
        return list(found.values())

    def close(self) -> None:
        """The memory goes with the last process that maps it or holds its descriptor."""
        os.close(self.fd)
        self.k, self.v = [], []


def _packed(record: NodeRecord, blocks: Blocks) -> bytes:
    if len(blocks) != blocks_for(record.num_tokens):
        raise InvariantBroken(f"node {record.key.hex()} does not fill {len(blocks)} blocks")
    return pack_record(record)


def _arena_header(layout: KvLayout, num_blocks: int) -> bytes:
    packed = _ARENA.pack(
        _MAGIC,
        _FORMAT,
        BLOCK_HEADER_BYTES,
        layout.fingerprint,
        layout.payload_bytes,
        num_blocks,
    )
    return packed + checksum(packed).to_bytes(8, "little")

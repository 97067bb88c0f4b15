"""A node as a file.

header | payload of block 0 | payload of block 1 | ..
header = magic, format, number of blocks, fingerprint, bytes of a payload | record |
         checksum of each payload | checksum of the header so far
"""

from __future__ import annotations

import os
from io import BufferedReader
from struct import Struct, error

from xxhash import xxh3_64_intdigest as checksum

from cluster.engine.tiers.layout import KvLayout
from cluster.engine.tiers.records import RECORD_BYTES, pack_record, unpack_record
from cluster.errors import Lost
from cluster.knowledge.commands import NodeRecord

_MAGIC = b"THOTHkv\0"
_FORMAT = 1
_HEAD = Struct("<8sII16sQ")
_SUM = Struct("<Q")


def pack_header(layout: KvLayout, record: NodeRecord, payload_sums: tuple[int, ...]) -> bytes:
    head = _head(layout, len(payload_sums))
    packed = head + pack_record(record) + Struct(f"<{len(payload_sums)}Q").pack(*payload_sums)
    return packed + _SUM.pack(checksum(packed))


def read_header(stream: BufferedReader, layout: KvLayout) -> tuple[NodeRecord, tuple[int, ...]]:
    """The record and the payloads' checksums, verified; the stream then stands before the first
    payload. Raises Lost for a file that is damaged, not as long as it says, or another's."""
    packed = stream.read(_HEAD.size + RECORD_BYTES)
    try:
        num_blocks: int = _HEAD.unpack_from(packed)[2]
    except error:
        raise Lost("the file is too short") from None
    if packed[: _HEAD.size] != _head(layout, num_blocks):
        raise Lost("the file is of another format, model or shape")
    # First the length: a damaged count would ask for a header of gigabytes.
    num_bytes = _header_bytes(num_blocks) + num_blocks * layout.payload_bytes
    if os.fstat(stream.fileno()).st_size != num_bytes:
        raise Lost(f"the file is not as long as {num_blocks} blocks are")
    packed += stream.read(_header_bytes(num_blocks) - len(packed))
    if checksum(packed[: -_SUM.size]) != _SUM.unpack(packed[-_SUM.size :])[0]:
        raise Lost("the file's header is damaged")
    record = unpack_record(packed[_HEAD.size : _HEAD.size + RECORD_BYTES])
    sums = packed[_HEAD.size + RECORD_BYTES : -_SUM.size]
    return record, Struct(f"<{num_blocks}Q").unpack(sums)


def read_payload(stream: BufferedReader, place: memoryview, payload_sum: int) -> None:
    """The next payload. Raises Lost when it is damaged; what then lies in `place` is of no use."""
    if stream.readinto(place) != len(place) or checksum(place) != payload_sum:
        raise Lost("a block in the file is damaged: its checksum differs")


def _head(layout: KvLayout, num_blocks: int) -> bytes:
    return _HEAD.pack(_MAGIC, _FORMAT, num_blocks, layout.fingerprint, layout.payload_bytes)


def _header_bytes(num_blocks: int) -> int:
    return _HEAD.size + RECORD_BYTES + (num_blocks + 1) * _SUM.size

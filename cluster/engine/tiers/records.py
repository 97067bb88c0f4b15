"""A node's record as bytes, all records of one length, so that one can stand before every block.

key | parent | chunk | version | num_tokens | two lengths | collection | document id
"""

from __future__ import annotations

from struct import Struct

from cluster.errors import InvariantBroken, Lost
from cluster.knowledge.commands import NodeRecord
from cluster.knowledge.keys import KEY_BYTES, NodeKey
from cluster.request import SegmentSource

# The longest names that are taken in, 64 and 512 characters, in the longest UTF-8.
COLLECTION_BYTES = 4 * 64
DOCUMENT_ID_BYTES = 4 * 512

_FORM = Struct(f"<{KEY_BYTES}s{KEY_BYTES}sQQIHH{COLLECTION_BYTES}s{DOCUMENT_ID_BYTES}s")
RECORD_BYTES = _FORM.size


def pack_record(record: NodeRecord) -> bytes:
    """Raises InvariantBroken for a name that does not fit: half a name is another document's."""
    source = record.source
    collection, document_id = source.collection.encode(), source.document_id.encode()
    if len(collection) > COLLECTION_BYTES or len(document_id) > DOCUMENT_ID_BYTES:
        raise InvariantBroken(f"the names of node {record.key.hex()} are longer than is allowed")
    return _FORM.pack(
        record.key,
        record.parent,
        source.chunk,
        source.version,
        record.num_tokens,
        len(collection),
        len(document_id),
        collection,
        document_id,
    )


def unpack_record(packed: bytes) -> NodeRecord:
    """The record, without the salt. Raises Lost for bytes that are none."""
    key, parent, chunk, version, num_tokens, *lengths, collection, document_id = _FORM.unpack(
        packed
    )
    try:
        names = collection[: lengths[0]].decode(), document_id[: lengths[1]].decode()
    except UnicodeDecodeError:
        raise Lost(f"the names of node {key.hex()} are no text") from None
    source = SegmentSource(*names, chunk=chunk, version=version)
    return NodeRecord(NodeKey(key), NodeKey(parent), source, num_tokens)

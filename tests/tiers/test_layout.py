"""Where bytes lie, and what is told from a fingerprint."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cluster.engine.kv_cache import KvShape
from cluster.engine.tiers.layout import ALIGN_BYTES, BLOCK_HEADER_BYTES, KvLayout, kv_fingerprint
from cluster.engine.tiers.records import RECORD_BYTES, pack_record, unpack_record
from cluster.errors import InvariantBroken, Lost
from cluster.knowledge.commands import NodeRecord
from cluster.request import SegmentSource
from tests.tiers.nodes import TINY, bits, blocks, new_arena, record_of

SHAPES = [
    KvShape(30, 3, 64, torch.float32),
    KvShape(3, 2, 5, torch.bfloat16),
    KvShape(1, 1, 1, torch.float16),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_headers_and_payloads_begin_on_cache_lines(shape: KvShape) -> None:
    layout = KvLayout(shape, b"f" * 16)
    assert layout.payload_bytes % ALIGN_BYTES == BLOCK_HEADER_BYTES % ALIGN_BYTES == 0
    assert 0 <= layout.payload_bytes - shape.block_bytes < ALIGN_BYTES


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_payload_is_every_layers_k_and_v_one_after_the_other(shape: KvShape) -> None:
    with new_arena(3, KvLayout(shape, b"f" * 16)) as arena:
        for layer in range(shape.num_layers):
            arena.k[layer].fill_(2 * layer + 1)
            arena.v[layer][1] = 2 * layer + 2
        payload = torch.frombuffer(arena.payload(blocks(1)[0]), dtype=torch.uint8)
        numbers = payload[: shape.block_bytes].view(shape.dtype).view(2 * shape.num_layers, -1)
        wanted = torch.arange(1, 2 * shape.num_layers + 1, dtype=shape.dtype)
        assert torch.equal(numbers, wanted[:, None].expand_as(numbers))
        assert not payload[shape.block_bytes :].any()
        assert not bits(arena.v[0][0]).any()


def test_a_fingerprint_tells_weights_backends_and_shapes_apart() -> None:
    shapes = [TINY, replace(TINY, dtype=torch.bfloat16), replace(TINY, num_layers=4, head_dim=2)]
    shapes += [replace(TINY, num_kv_heads=4, head_dim=1)]
    parts = [("a", "bc"), ("ab", "c"), ("a", "b"), ("", "abc")]
    prints = {kv_fingerprint(*part, shape) for part in parts for shape in shapes}
    assert len(prints) == len(parts) * len(shapes)
    assert {len(one) for one in prints} == {16}
    assert kv_fingerprint("a", "bc", TINY) == kv_fingerprint("a", "bc", replace(TINY))


@pytest.mark.parametrize(
    "source",
    [
        SegmentSource(),
        SegmentSource("a", "b", 2**64 - 1, 2**64 - 1),
        SegmentSource("c" * 64, "d" * 512),
        SegmentSource("\U0001f40d" * 64, "\U0001f40d" * 512),
        SegmentSource("é", "a\0b\0"),
    ],
    ids=["system prompt", "numbers", "longest", "longest in bytes", "with zeros"],
)
def test_a_record_is_read_as_it_was_packed(source: SegmentSource) -> None:
    record = replace(record_of("x", 2**32 - 1, record_of("above", 1).key), source=source)
    packed = pack_record(record)
    assert len(packed) == RECORD_BYTES
    assert unpack_record(packed) == record


def test_a_record_does_not_carry_the_salt() -> None:
    record = record_of("x", 5)
    salted = replace(record, source=replace(record.source, salt=b"secret"))
    assert unpack_record(pack_record(salted)) == record


@pytest.mark.parametrize("source", [SegmentSource("c" * 257), SegmentSource("c", "d" * 2049)])
def test_a_name_is_never_cut(source: SegmentSource) -> None:
    record: NodeRecord = replace(record_of("x", 5), source=source)
    with pytest.raises(InvariantBroken, match="longer than is allowed"):
        pack_record(record)


def test_names_that_are_no_text_are_no_record() -> None:
    packed = bytearray(pack_record(record_of("abc", 5)))
    packed[packed.index(b"abc")] = 0xFF
    with pytest.raises(Lost):
        unpack_record(bytes(packed))

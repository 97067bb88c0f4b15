"""What a node is called."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from hashlib import blake2b
from itertools import combinations

import pytest

from cluster.knowledge.keys import KEY_BYTES, NodeKey, chain
from cluster.request import SegmentSource, TokenIds

SEGMENTS = ((1, 2, 3), (4, 5), (6, 7, 8))
SOURCES = (SegmentSource("house"), SegmentSource("c", "d1", 0, 1), SegmentSource("c", "d2", 0, 1))
# Computed once. They may change only with the meaning of what is on disks and hosts already.
GOLDEN = (
    "7d0f24c13f8459799932eb2e75e57a29",
    "2ada6404a968a169ab38185da0846210",
    "33dc3ca62a00f835a2476fc3d4d738fe",
)


def keys(
    segments: tuple[TokenIds, ...] = SEGMENTS,
    sources: tuple[SegmentSource, ...] = SOURCES,
    fingerprint: bytes = b"model",
    template: str = "t",
) -> tuple[NodeKey, ...]:
    return chain(fingerprint, template, segments, sources)


def test_keys_are_the_same_as_ever() -> None:
    assert tuple(key.hex() for key in keys()) == GOLDEN


def test_a_key_is_the_hash_of_its_parts_each_behind_its_length() -> None:
    def digest(data: bytes) -> bytes:
        return blake2b(data, digest_size=16).digest()

    eight, five, two = b"\x08" + bytes(7), b"\x05" + bytes(7), b"\x02" + bytes(7)
    sixteen, none, twelve = b"\x10" + bytes(7), bytes(8), b"\x0c" + bytes(7)
    root = digest(five + b"model" + b"\x01" + bytes(7) + b"t")
    tokens = digest(twelve + b"\x01\0\0\0\x02\0\0\0\x03\0\0\0")
    system = digest(
        sixteen + root + five + b"house" + none + sixteen + bytes(16) + sixteen + tokens
    )
    assert system == keys()[0]
    tokens = digest(eight + b"\x04\0\0\0\x05\0\0\0")
    document = b"\x01" + bytes(7) + b"c" + two + b"d1"
    numbers = sixteen + bytes(8) + b"\x01" + bytes(7)
    assert digest(sixteen + system + document + numbers + sixteen + tokens) == keys()[1]


def test_another_process_with_another_hash_seed_agrees() -> None:
    code = (
        "from tests.knowledge.test_keys import keys\nprint(' '.join(key.hex() for key in keys()))"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code]
        out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        assert tuple(out.stdout.split()) == GOLDEN


def test_two_orders_of_the_same_documents_share_only_what_stands_above_them() -> None:
    system, first, second = keys()
    swapped = keys((SEGMENTS[0], SEGMENTS[2], SEGMENTS[1]), (SOURCES[0], SOURCES[2], SOURCES[1]))
    assert swapped[0] == system
    assert not {first, second} & set(swapped)


@pytest.mark.parametrize(
    "changed",
    [
        {"collection": "other"},
        {"document_id": "d9"},
        {"chunk": 1},
        {"version": 2},
        {"salt": b"tenant"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_change_of_a_source_changes_its_key_and_all_below(changed: dict[str, object]) -> None:
    other = keys(sources=(SOURCES[0], replace(SOURCES[1], **changed), SOURCES[2]))  # type: ignore[arg-type]
    assert other[0] == keys()[0]
    assert not set(other[1:]) & set(keys())


def test_other_tokens_of_the_same_version_are_another_node() -> None:
    other = keys((SEGMENTS[0], (4, 6), SEGMENTS[2]))
    assert other[0] == keys()[0]
    assert not set(other[1:]) & set(keys())


def test_another_model_or_template_shares_nothing() -> None:
    assert not set(keys(fingerprint=b"other")) & set(keys())
    assert not set(keys(template="other")) & set(keys())


def test_where_one_field_ends_and_the_next_begins_cannot_be_mistaken() -> None:
    sources = [
        SegmentSource("ab", "c"),
        SegmentSource("a", "bc"),
        SegmentSource("abc", ""),
        SegmentSource("", "abc"),
        SegmentSource("ab", "", salt=b"c"),
        SegmentSource("ab", "c", chunk=1),
        SegmentSource("ab", "c", version=1),
        SegmentSource("ab", "c\0"),
        SegmentSource("ab", "c", salt=b"\0"),
    ]
    firsts = [chain(b"m", "t", ((1,),), (source,))[0] for source in sources]
    for one, other in combinations(firsts, 2):
        assert one != other
    assert chain(b"mt", "", ((1,),), sources[:1]) != chain(b"m", "t", ((1,),), sources[:1])


def test_where_one_segment_ends_counts_although_the_tokens_are_the_same() -> None:
    sources = (SegmentSource("c", "a"), SegmentSource("c", "b"))
    assert not set(keys(((1, 2), (3,)), sources)) & set(keys(((1,), (2, 3)), sources))


def test_a_salt_above_parts_everything_below_it() -> None:
    sources = (replace(SOURCES[0], salt=b"tenant"), *SOURCES[1:])
    assert not set(keys(sources=sources)) & set(keys())


def test_only_leading_segments_with_a_source_have_a_key() -> None:
    assert keys(sources=SOURCES[:2]) == keys()[:2]
    assert keys(sources=()) == ()
    assert all(len(key) == KEY_BYTES for key in keys())


def test_an_empty_segment_ends_the_chain() -> None:
    assert keys(((1, 2, 3), (), (6, 7, 8))) == keys()[:1]

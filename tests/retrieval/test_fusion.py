"""Reciprocal rank fusion against values worked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.retrieval.fusion import ChunkKey, fuse

A, B, C, D = (ChunkKey("kb", id, 0) for id in "abcd")
RANKINGS = st.lists(st.permutations([A, B, C, D]).map(lambda keys: keys[:3]), max_size=5)


def test_scores_are_the_sums_of_reciprocal_ranks() -> None:
    fused = fuse([[A, B, C], [B, D]], k=60)
    assert [key for key, _ in fused] == [B, A, D, C]
    assert dict(fused) == pytest.approx(
        {
            A: 1 / 61,
            B: 1 / 62 + 1 / 61,
            C: 1 / 63,
            D: 1 / 62,
        }
    )


def test_a_small_k_makes_the_first_rank_count_for_more() -> None:
    rankings = [[A, B], [C, B], [D, B]]
    assert fuse(rankings, k=60)[0][0] == B
    assert fuse(rankings, k=0)[0] == (B, 1.5)
    assert fuse([[A, B], [A, C], [B, C]], k=0) == [(A, 2.0), (B, 1.5), (C, 1.0)]


def test_ties_are_ordered_by_collection_then_document_then_ordinal() -> None:
    keys = [ChunkKey("b", "x", 0), ChunkKey("a", "z", 1), ChunkKey("a", "z", 0)]
    assert [key for key, _ in fuse([[key] for key in keys])] == [
        ChunkKey("a", "z", 0),
        ChunkKey("a", "z", 1),
        ChunkKey("b", "x", 0),
    ]


def test_nothing_fused_is_nothing() -> None:
    assert fuse([]) == []
    assert fuse([[], []]) == []


@given(RANKINGS)
def test_the_order_of_the_rankings_does_not_matter(rankings: list[list[ChunkKey]]) -> None:
    assert fuse(reversed(rankings)) == fuse(rankings)


@given(RANKINGS)
def test_every_key_is_there_once_and_best_first(rankings: list[list[ChunkKey]]) -> None:
    fused = fuse(rankings)
    assert sorted(key for key, _ in fused) == sorted({key for r in rankings for key in r})
    scores = [score for _, score in fused]
    assert scores == sorted(scores, reverse=True)

"""What the int8 benchmark makes of its losses and texts."""

from __future__ import annotations

from math import exp, isclose

import pytest

from benchmarks.int8 import REFERENCE, Change, Scored, corpora
from cluster.text.tokenizer import Tokenizer
from tests.tiny_model import tiny_tokenizer


def scored(float32: float, int8: float) -> Scored:
    return Scored(REFERENCE, 100, float32, int8, 1.0)


def test_perplexity_rises_by_the_mean_of_what_texts_lose() -> None:
    change = Change.of([scored(2.0, 2.01), scored(3.0, 3.03), scored(4.0, 4.02)])
    assert isclose(change.float32, exp(3.0))
    assert isclose(change.raised, exp(0.02) - 1)
    assert change.low < change.raised < change.high


def test_texts_that_all_lose_the_same_leave_no_doubt() -> None:
    change = Change.of([scored(2.0, 2.5), scored(3.0, 3.5)])
    assert isclose(change.low, change.high)


def test_texts_are_pieces_of_one_length_and_no_more_than_asked_for(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("THOTH_DATA", raising=False)
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    found = list(corpora(Tokenizer.from_folder(folder), 5, 64))
    assert [corpus for corpus, _ in found] == [REFERENCE] * 5
    assert all(len(ids) == 64 for _, ids in found)

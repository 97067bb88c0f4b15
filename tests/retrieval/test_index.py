"""The static embedding and the flat index."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.index.embedder import StaticEmbedder, Vectors, pack, unpack
from cluster.index.vectors import VectorIndex

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def embedder() -> StaticEmbedder:
    return StaticEmbedder.load()


def test_texts_of_one_meaning_are_near(embedder: StaticEmbedder) -> None:
    dog, puppy, tax = embedder.embed(
        ["The dog sleeps.", "A puppy is taking a nap.", "Taxes are due in April."]
    )
    assert dog @ puppy > dog @ tax + 0.2


def test_a_text_without_anything_to_embed_is_a_row_of_zeros(embedder: StaticEmbedder) -> None:
    vectors = embedder.embed(["", "word", ""])
    assert np.linalg.norm(vectors, axis=1).tolist() == pytest.approx([0.0, 1.0, 0.0])
    assert embedder.embed([""]).tolist() == [[0.0] * embedder.dimension]
    assert embedder.embed([]).shape == (0, embedder.dimension)


@settings(max_examples=50)
@given(texts=st.lists(st.text(max_size=40), max_size=6))
def test_every_row_has_length_one_or_zero_and_no_nan(
    embedder: StaticEmbedder, texts: list[str]
) -> None:
    lengths = np.linalg.norm(embedder.embed(texts), axis=1)
    assert all(length == pytest.approx(1.0, abs=1e-5) or length == 0.0 for length in lengths)


def test_a_vector_does_not_depend_on_what_is_embedded_with_it(embedder: StaticEmbedder) -> None:
    texts = ["short", "a much longer text about nothing in particular " * 50, "x", ""] * 40
    together = embedder.embed(texts)
    for i in range(4):
        assert np.array_equal(together[i], embedder.embed([texts[i]])[0])


def test_vectors_survive_being_stored(embedder: StaticEmbedder) -> None:
    vectors = embedder.embed(["one", "two"])
    assert np.array_equal(unpack(pack(vectors)), vectors)
    with pytest.raises(ValueError, match="reshape"):
        unpack([b"\x00" * 12])


def test_loading_leaves_the_root_logger_alone() -> None:
    program = (
        "import logging; from cluster.index.embedder import StaticEmbedder; StaticEmbedder.load();"
        "root = logging.getLogger(); print(root.level, root.handlers)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[0] == f"{logging.WARNING} []"


def rows(*values: tuple[float, float]) -> Vectors:
    return np.array(values, dtype=np.float32).reshape(-1, 2)


@pytest.fixture
def index() -> VectorIndex:
    index = VectorIndex(2)
    index.add("kb", [7, 8, 9], rows((1, 0), (0.6, 0.8), (0, 1)))
    return index


EAST = rows((1, 0))[0]


def test_the_nearest_come_first(index: VectorIndex) -> None:
    found = index.search("kb", EAST, 2)
    assert [id for id, _ in found] == [7, 8]
    assert [score for _, score in found] == pytest.approx([1.0, 0.6])
    assert [id for id, _ in index.search("kb", EAST, 100)] == [7, 8, 9]


def test_only_allowed_ids_are_found(index: VectorIndex) -> None:
    assert [id for id, _ in index.search("kb", EAST, 5, allowed=[9, 8, 1234])] == [8, 9]
    assert index.search("kb", EAST, 5, allowed=[]) == []


def test_what_was_removed_is_not_found(index: VectorIndex) -> None:
    index.remove("kb", [8, 1234])
    assert [id for id, _ in index.search("kb", EAST, 5)] == [7, 9]
    index.remove("kb", [7, 9])
    assert index.search("kb", EAST, 5) == []
    index.remove("kb", [])
    index.remove("nowhere", [1])


def test_a_zero_vector_is_neither_kept_nor_found(index: VectorIndex) -> None:
    index.add("kb", [10, 11], rows((0, 0), (1, 0)))
    assert index.num_vectors("kb") == 4
    assert 10 not in dict(index.search("kb", EAST, 10))
    assert index.search("kb", rows((0, 0))[0], 10) == []
    index.add("kb", [], rows())
    assert index.num_vectors("kb") == 4


def test_collections_are_strangers(index: VectorIndex) -> None:
    index.add("other", [1], rows((1, 0)))
    assert [id for id, _ in index.search("other", EAST, 5)] == [1]
    index.drop("kb")
    assert index.search("kb", EAST, 5) == []
    assert index.num_vectors("other") == 1
    index.drop("kb")

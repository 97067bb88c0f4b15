"""A store and a reader beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.store.documents import DocumentStore
from cluster.store.search import SearchReader


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DocumentStore]:
    store = DocumentStore(tmp_path)
    store.create_collection("kb")
    yield store
    store.close()


@pytest.fixture
def reader(store: DocumentStore, tmp_path: Path) -> Iterator[SearchReader]:
    reader = SearchReader(tmp_path)
    yield reader
    reader.close()

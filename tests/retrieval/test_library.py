"""What must hold between store and index, and in the queue before them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from actors.lanes import Lane
from actors.library import Library, Question, Searcher
from cluster.config import RetrieverConfig
from cluster.errors import InvariantBroken, Lost, Overloaded
from cluster.index.embedder import Vectors
from cluster.index.vectors import VectorIndex
from cluster.retrieval.records import Document
from cluster.store.documents import DocumentStore
from tests.retrieval.making import entry


class FullIndex(VectorIndex):
    """An index whose memory is used up."""

    def add(self, collection: str, ids: object, vectors: Vectors) -> None:
        raise MemoryError("no room for vectors")


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    library = Library(tmp_path, RetrieverConfig())
    library.store.create_collection("kb")
    yield library
    library.close()


def found(library: Library, query: str) -> list[str]:
    searcher = Searcher(library, candidates=10)
    chunks = searcher.search(Question(("kb",), query, 10, {})).chunks
    searcher.close()
    return [chunk.document_id for chunk in chunks]


def test_an_index_that_falls_behind_is_an_invariant_broken_that_a_restart_mends(
    library: Library, tmp_path: Path
) -> None:
    library.index = FullIndex(2)
    with pytest.raises(InvariantBroken, match="no room for vectors"):
        library.upsert("kb", [Document("a", "", "A zebra has stripes.")])
    library.close()
    again = Library(tmp_path, RetrieverConfig())
    assert again.index.num_vectors("kb") == 1
    assert found(again, "horses with a pattern") == ["a"]
    again.close()


def test_the_index_holds_what_the_store_holds(library: Library) -> None:
    text = "A sentence about zebras. " * 200
    for version in ("one", "two"):
        library.upsert("kb", [Document("a", version, text), Document("b", "", "yak")])
        assert library.index.num_vectors("kb") == library.store.totals()[1]
    library.delete_documents("kb", ["a"])
    assert library.index.num_vectors("kb") == library.store.totals()[1] == 1
    library.delete_collection("kb")
    assert library.index.num_vectors("kb") == 0


def test_an_unchanged_document_is_not_embedded_again(library: Library) -> None:
    document = Document("a", "", "zebra")
    library.upsert("kb", [document])

    class NoEmbedder(type(library.embedder)):  # type: ignore[misc]
        def embed(self, texts: object) -> Vectors:
            raise AssertionError(f"asked to embed {texts}")

    library.embedder = NoEmbedder(None)
    assert not library.upsert("kb", [document]).results[0].changed


def test_another_chunk_size_cuts_documents_anew(library: Library, tmp_path: Path) -> None:
    document = Document("a", "", "A sentence about zebras. " * 40)
    before = library.upsert("kb", [document]).results[0]
    library.close()
    again = Library(tmp_path, RetrieverConfig(chunk_chars=100))
    after = again.upsert("kb", [document]).results[0]
    again.close()
    assert after.changed
    assert after.num_chunks > before.num_chunks


def test_embeddings_of_another_model_are_refused(tmp_path: Path) -> None:
    store = DocumentStore(tmp_path)
    store.create_collection("kb")
    store.upsert("kb", [entry("a", "four bytes are no vector")])
    store.close()
    with pytest.raises(Lost, match="not of wordllama"):
        Library(tmp_path, RetrieverConfig())
    DocumentStore(tmp_path).close()


def test_a_search_passes_over_what_is_indexed_but_not_yet_seen(library: Library) -> None:
    library.upsert("kb", [Document("a", "", "zebra")])
    library.index.add("kb", [999], np.ones((1, library.embedder.dimension), dtype=np.float32))
    assert found(library, "zebra") == ["a"]


async def test_a_lane_runs_in_order_and_refuses_what_does_not_fit() -> None:
    lane = Lane("test", max_waiting=2)
    gate = Event()
    order: list[int] = []
    works: tuple[Callable[[], object], ...] = (
        gate.wait,
        partial(order.append, 0),
        partial(order.append, 1),
    )
    running = [asyncio.create_task(lane.run(work)) for work in works]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 calls waiting, at most 2 may") as refused:
        await lane.run(gate.wait)
    assert refused.value.retry_after_s > 0
    gate.set()
    await asyncio.gather(*running)
    assert order == [0, 1]
    assert await lane.run(lambda: "room again") == "room again"
    await lane.close()


async def test_work_that_waits_is_dropped_when_its_caller_goes() -> None:
    lane = Lane("test", max_waiting=2)
    gate = Event()
    ran: list[str] = []
    first = asyncio.ensure_future(lane.run(gate.wait))
    second = asyncio.ensure_future(lane.run(lambda: ran.append("second")))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    gate.set()
    await first
    await lane.run(lambda: ran.append("third"))
    assert ran == ["third"]
    await lane.close()

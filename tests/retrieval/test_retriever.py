"""The retriever over gRPC, as its peers see it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cluster.errors import InvalidArgument, Lost, NotFound, ThothError, TooLarge
from cluster.store.schema import DATABASE_NAME
from cluster.wire.status import from_rpc_error
from protos.thoth.v1 import documents_pb2 as pb
from tests.retrieval.bodies import Stubs, retriever, serving

Document = pb.Document


@pytest.fixture
async def stubs(tmp_path: Path) -> AsyncIterator[Stubs]:
    async with serving(tmp_path) as stubs:
        await stubs.create("kb")
        yield stubs


async def refusal(call: Any) -> ThothError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return from_rpc_error(raised.value)


async def test_an_acknowledged_document_is_found_with_its_place(stubs: Stubs) -> None:
    text = "# Animals\n\nThe zebra is striped.\n\n" + "Nothing else matters here. " * 20
    response = await stubs.upsert(Document(id="z.md", title="Animals", text=text))
    (result,) = response.results
    assert result.changed
    assert result.num_chunks > 1
    assert result.version == response.sequence == 1
    found = await stubs.search("Which animal is striped?")
    best = found.chunks[0]
    assert (best.collection, best.document_id, best.title) == ("kb", "z.md", "Animals")
    assert (best.document_version, best.chunk, found.sequence) == (1, 0, 1)
    assert "zebra" in best.text
    assert best.text == text[best.start : best.end]
    assert best.score == pytest.approx(2 / 61)


async def test_an_upsert_is_idempotent_and_answers_in_order(stubs: Stubs) -> None:
    documents = [Document(id=id, text=f"About {id}") for id in "cab"]
    first = await stubs.upsert(*documents)
    again = await stubs.upsert(*documents, Document(id="d", text="new"))
    assert [result.id for result in again.results] == ["c", "a", "b", "d"]
    assert [result.changed for result in again.results] == [False, False, False, True]
    assert [result.version for result in first.results] == [
        result.version for result in again.results[:3]
    ]


async def test_a_changed_document_is_found_by_its_new_words_only(stubs: Stubs) -> None:
    await stubs.upsert(Document(id="a", text="zebra"), Document(id="b", text="lion"))
    await stubs.upsert(Document(id="a", text="yak"))
    found = await stubs.search("zebra")
    assert "zebra" not in {chunk.text for chunk in found.chunks}
    assert await stubs.found("yak", top_k=1) == ["a"]


async def test_a_deleted_document_is_found_no_more(stubs: Stubs) -> None:
    await stubs.upsert(Document(id="a", text="zebra"), Document(id="b", text="zebra lion"))
    request = pb.DeleteDocumentsRequest(collection="kb", ids=["a", "nobody", "a"])
    response = await stubs.documents.DeleteDocuments(request)
    assert (response.num_deleted, response.sequence) == (1, 3)
    assert await stubs.found("zebra") == ["b"]
    gone = pb.GetDocumentRequest(collection="kb", id="a")
    assert type(await refusal(stubs.documents.GetDocument(gone))) is NotFound


async def test_documents_are_read_and_listed_page_by_page(stubs: Stubs) -> None:
    await stubs.upsert(
        *(Document(id=f"{i:02}", text=f"text {i}", metadata={"i": str(i)}) for i in range(7))
    )
    one = await stubs.documents.GetDocument(pb.GetDocumentRequest(collection="kb", id="03"))
    assert one.document == Document(id="03", text="text 3", metadata={"i": "3"}, version=4)
    seen = []
    after = ""
    while True:
        page = await stubs.documents.ListDocuments(
            pb.ListDocumentsRequest(collection="kb", limit=3, after=after)
        )
        seen += [(document.id, document.text) for document in page.documents]
        after = page.next
        if not after:
            break
    assert seen == [(f"{i:02}", "") for i in range(7)]


async def test_collections_come_and_go(stubs: Stubs) -> None:
    again = await stubs.documents.CreateCollection(pb.CreateCollectionRequest(name="kb"))
    assert not again.created
    await stubs.create("a")
    await stubs.upsert(Document(id="x", text="zebra"))
    listed = await stubs.documents.ListCollections(pb.ListCollectionsRequest())
    assert [(c.name, c.num_documents, c.num_chunks) for c in listed.collections] == [
        ("a", 0, 0),
        ("kb", 1, 1),
    ]
    deleted = await stubs.documents.DeleteCollection(pb.DeleteCollectionRequest(name="kb"))
    assert deleted.num_documents == 1
    await stubs.create("kb")
    assert await stubs.found("zebra") == []


async def test_several_collections_are_searched_as_one(stubs: Stubs) -> None:
    await stubs.create("other")
    await stubs.upsert(Document(id="a", text="zebra stripes"), Document(id="b", text="taxes"))
    await stubs.upsert(
        Document(id="a", text="the zebra of the other collection"), collection="other"
    )
    found = await stubs.search("zebra stripes", ("kb", "other", "kb"), top_k=3)
    assert {(c.collection, c.document_id) for c in found.chunks[:2]} == {
        ("kb", "a"),
        ("other", "a"),
    }
    assert len(found.chunks) == 3


async def test_filters_hold_for_words_and_for_meaning(stubs: Stubs) -> None:
    await stubs.upsert(
        Document(id="en", text="A zebra", metadata={"lang": "en"}),
        Document(id="fr", text="Un zebra", metadata={"lang": "fr"}),
        Document(id="no", text="zebra zebra"),
    )
    assert await stubs.found("zebra", filters={"lang": "fr"}) == ["fr"]
    assert await stubs.found("striped horse", filters={"lang": "en"}) == ["en"]
    assert await stubs.found("zebra", filters={"lang": "de"}) == []


async def test_a_blank_document_is_kept_and_never_found(stubs: Stubs) -> None:
    response = await stubs.upsert(Document(id="blank", text=" \n"), Document(id="a", text="zebra"))
    assert [result.num_chunks for result in response.results] == [0, 1]
    assert await stubs.found("anything at all") == ["a"]


async def test_equal_chunks_are_ordered_by_document(stubs: Stubs) -> None:
    for id in ("c", "a", "b"):
        await stubs.upsert(Document(id=id, text="the same zebra"))
    assert await stubs.found("zebra") == ["a", "b", "c"]


async def test_top_k_bounds_what_is_found_even_above_the_candidates(stubs: Stubs) -> None:
    for start in range(0, 120, 60):
        await stubs.upsert(
            *(Document(id=f"{i:03}", text=f"zebra {i}") for i in range(start, start + 60))
        )
    assert len(await stubs.found("zebra", top_k=3)) == 3
    assert len(await stubs.found("zebra", top_k=110)) == 110


@pytest.mark.parametrize(
    ("options", "kind", "field"),
    [
        ({"collections": ()}, InvalidArgument, "collections"),
        ({"collections": ("nowhere",)}, NotFound, "collections"),
        ({"collections": ("kb", "nowhere")}, NotFound, "collections"),
        ({"query": ""}, InvalidArgument, "query"),
        ({"top_k": 0}, InvalidArgument, "top_k"),
        ({"top_k": 1001}, InvalidArgument, "top_k"),
        ({"filters": {"k" * 65: ""}}, TooLarge, "filters"),
    ],
)
async def test_a_bad_search_is_refused_by_field(
    stubs: Stubs, options: dict[str, Any], kind: type[ThothError], field: str
) -> None:
    error = await refusal(stubs.search(**{"query": "zebra", **options}))
    assert type(error) is kind
    assert error.field == field
    assert error.limit


async def test_a_bad_change_is_refused_by_field_and_changes_nothing(stubs: Stubs) -> None:
    documents = stubs.documents
    large = await refusal(stubs.upsert(Document(id="a"), Document(id="b", text="x" * 2**20 + "y")))
    assert type(large) is TooLarge
    assert large.field == "documents[1].text"
    assert "1048577" in large.message
    assert "max_document_bytes is 1048576" in large.message
    calls = [
        (stubs.upsert(*(Document(id=str(i)) for i in range(65))), TooLarge, "documents"),
        (stubs.upsert(Document(id="a"), collection="x"), NotFound, "collection"),
        (
            documents.CreateCollection(pb.CreateCollectionRequest(name="No!")),
            InvalidArgument,
            "name",
        ),
        (documents.GetCollection(pb.GetCollectionRequest(name="x")), NotFound, "name"),
        (documents.DeleteCollection(pb.DeleteCollectionRequest(name="x")), NotFound, "name"),
        (
            documents.ListDocuments(pb.ListDocumentsRequest(collection="kb", limit=0)),
            InvalidArgument,
            "limit",
        ),
        (
            documents.DeleteDocuments(pb.DeleteDocumentsRequest(collection="kb")),
            InvalidArgument,
            "ids",
        ),
    ]
    for call, kind, field in calls:
        error = await refusal(call)
        assert (type(error), error.field) == (kind, field)
    listed = await documents.ListCollections(pb.ListCollectionsRequest())
    assert [(c.name, c.num_documents) for c in listed.collections] == [("kb", 0)]


async def test_health_and_searches_answer_during_a_large_upsert(stubs: Stubs) -> None:
    await stubs.upsert(Document(id="a", text="zebra"))
    texts = [f"Sentence {i} of a long story about yaks. " for i in range(20_000)]
    upsert = asyncio.ensure_future(
        stubs.upsert(Document(id="long", text="".join(texts)), Document(id="b", text="gnu"))
    )
    # The package of the health service comes without types.
    health: Any = health_pb2_grpc.HealthStub(stubs.channel)
    slowest_s = 0.0
    num_answers = 0
    while not upsert.done():
        started_s = time.monotonic()
        answer = await health.Check(health_pb2.HealthCheckRequest())
        slowest_s = max(slowest_s, time.monotonic() - started_s)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert (await stubs.found("zebra", top_k=1)) == ["a"]
        num_answers += 1
    await upsert
    assert num_answers >= 3
    assert slowest_s < 0.5


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path) as stubs:
        await stubs.create("kb")
        await stubs.upsert(*(Document(id=str(i), text=f"zebra number {i}") for i in range(5)))
        before = await stubs.search("zebra 3", top_k=5)
    async with serving(tmp_path) as stubs:
        assert await stubs.search("zebra 3", top_k=5) == before


async def test_a_damaged_store_keeps_the_retriever_down_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / DATABASE_NAME).write_bytes(b"not a database at all " * 100)
    body = retriever(tmp_path)
    with pytest.raises(Lost, match="damaged"):
        await body.start()
    await body.stop()

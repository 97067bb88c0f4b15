"""Every bound: what is refused says which field, which limit and both numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.errors import InvalidArgument, Refused, TooLarge
from cluster.retrieval.limits import (
    DocumentLimits,
    check_batch,
    check_collection_name,
    check_deletion,
    check_search,
)
from cluster.retrieval.records import Document

LIMITS = DocumentLimits(max_document_bytes=10, max_batch_documents=3)


def batch(*documents: Document) -> Callable[[], None]:
    return lambda: check_batch(documents, LIMITS)


def doc(id: str = "a", **fields: object) -> Document:
    return Document(**{"id": id, "title": "", "text": "", **fields})  # type: ignore[arg-type]


def search(
    collections: tuple[str, ...] = ("kb",),
    query: str = "why",
    top_k: int = 4,
    filters: dict[str, str] | None = None,
) -> Callable[[], None]:
    return lambda: check_search(collections, query, top_k, filters or {})


REFUSED = [
    (batch(), InvalidArgument, "documents", ()),
    (batch(*map(doc, "abcd")), TooLarge, "documents", ("4", "3")),
    (batch(doc("a"), doc("a")), InvalidArgument, "documents[1].id", ("documents[0]",)),
    (batch(doc("")), InvalidArgument, "documents[0].id", ()),
    (batch(doc("i" * 513)), TooLarge, "documents[0].id", ("513", "512")),
    (batch(doc("a\nb")), InvalidArgument, "documents[0].id", ()),
    (batch(doc("a\x00")), InvalidArgument, "documents[0].id", ()),
    (batch(doc("\ud800")), InvalidArgument, "documents[0].id", ("character 0",)),
    (batch(doc(title="t" * 1025)), TooLarge, "documents[0].title", ("1025", "1024")),
    (batch(doc("a"), doc("b", text="0123456789x")), TooLarge, "documents[1].text", ("11", "10")),
    (batch(doc(text="éééééé")), TooLarge, "documents[0].text", ("12", "10")),
    (batch(doc(text="ab\udc80")), InvalidArgument, "documents[0].text", ("character 2",)),
    (
        batch(doc(metadata={str(i): "" for i in range(33)})),
        TooLarge,
        "documents[0].metadata",
        ("33", "32"),
    ),
    (batch(doc(metadata={"": "v"})), InvalidArgument, "documents[0].metadata", ()),
    (batch(doc(metadata={"k" * 65: ""})), TooLarge, "documents[0].metadata", ("65", "64")),
    (
        batch(doc(metadata={"k": "v" * 1025})),
        TooLarge,
        "documents[0].metadata[k]",
        ("1025", "1024"),
    ),
    (lambda: check_deletion([]), InvalidArgument, "ids", ()),
    (lambda: check_deletion(["x"] * 10001), TooLarge, "ids", ("10001", "10000")),
    (lambda: check_deletion(["a", ""]), InvalidArgument, "ids[1]", ()),
    (search(collections=()), InvalidArgument, "collections", ()),
    (search(collections=("kb",) * 33), TooLarge, "collections", ("33", "32")),
    (search(collections=("K B",)), InvalidArgument, "collections", ("K B",)),
    (search(query=" \n"), InvalidArgument, "query", ()),
    (search(query="q" * 65537), TooLarge, "query", ("65537", "65536")),
    (search(query="\udfff?"), InvalidArgument, "query", ()),
    (search(top_k=0), InvalidArgument, "top_k", ("0", "1000")),
    (search(top_k=1001), InvalidArgument, "top_k", ("1001", "1000")),
    (search(filters={"k" * 65: ""}), TooLarge, "filters", ("65", "64")),
]


@pytest.mark.parametrize(("check", "kind", "field", "said"), REFUSED)
def test_what_is_out_of_bounds_is_refused_with_field_limit_and_numbers(
    check: Callable[[], None], kind: type[Refused], field: str, said: tuple[str, ...]
) -> None:
    with pytest.raises(kind) as refused:
        check()
    assert type(refused.value) is kind
    assert refused.value.field == field
    assert refused.value.limit
    assert all(word in refused.value.message for word in said)
    refused.value.message.encode()


def test_everything_at_its_bound_is_taken() -> None:
    metadata = {f"{i:064}": "v" * 1024 for i in range(32)}
    check_batch([doc("i" * 512, title="t" * 1024, text="0123456789", metadata=metadata)], LIMITS)
    check_search(["kb"] * 32, "q" * 65536, 1000, metadata)


@pytest.mark.parametrize("name", ["a", "0", "kb-2_x", "a" * 64])
def test_a_good_collection_name_is_taken(name: str) -> None:
    check_collection_name(name)


@pytest.mark.parametrize("name", ["", "-a", "_a", "A", "a b", "a/b", "a" * 65, "a\n", "é"])
def test_a_bad_collection_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^name is ") as refused:
        check_collection_name(name, "name")
    assert refused.value.field == "name"

"""The document store, one rule at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.errors import NotFound
from cluster.retrieval.records import Collection
from cluster.store.documents import DocumentStore
from cluster.store.records import Change, ChangeKind, digest_of
from cluster.store.search import SearchReader
from tests.retrieval.making import EMBEDDING, entry, words


def test_a_collection_is_made_once_and_counts_what_it_holds(store: DocumentStore) -> None:
    assert store.create_collection("kb") == (Collection("kb", 0, 0), False)
    store.upsert("kb", [entry("a", "word " * 20), entry("empty")])
    assert store.collection("kb") == Collection("kb", 2, 3)
    assert store.create_collection("a") == (Collection("a", 0, 0), True)
    assert [collection.name for collection in store.collections()] == ["a", "kb"]
    assert store.totals() == (2, 3)


def test_the_same_content_keeps_its_version(store: DocumentStore) -> None:
    first = store.upsert("kb", [entry("a", "text", metadata={"x": "1", "y": "2"})])
    again = store.upsert("kb", [entry("a", "text", metadata={"y": "2", "x": "1"})])
    assert [result.changed for result in (*first.results, *again.results)] == [True, False]
    assert again.results[0] == replace(first.results[0], changed=False)
    assert again.sequence == first.sequence
    assert again.added_ids == again.removed_ids == ()


@pytest.mark.parametrize(
    "changed",
    [entry("a", "other"), entry("a", "text", "title"), entry("a", "text", metadata={"k": "v"})],
)
def test_every_change_of_the_content_is_a_new_version(
    store: DocumentStore, changed: object
) -> None:
    old = store.upsert("kb", [entry("a", "text")])
    new = store.upsert("kb", [changed])  # type: ignore[list-item]
    assert new.results[0].version > old.results[0].version
    assert new.removed_ids == old.added_ids
    assert store.document("kb", "a").version == new.results[0].version


def test_another_recipe_is_another_digest() -> None:
    document = entry("a", "text").document
    assert digest_of(document, "chunks of 100") != digest_of(document, "chunks of 200")


def test_neither_versions_nor_sequences_nor_chunk_ids_come_back(
    store: DocumentStore, tmp_path: Path
) -> None:
    first = store.upsert("kb", [entry("a", "text")])
    deleted = store.delete_documents("kb", ["a"])
    store.delete_collection("kb")
    store.close()
    again = DocumentStore(tmp_path)
    again.create_collection("kb")
    second = again.upsert("kb", [entry("a", "text")])
    again.close()
    assert first.sequence < deleted.sequence < second.sequence
    assert second.results[0].version > first.results[0].version
    assert second.added_ids > first.added_ids


def test_the_log_tells_every_change_in_order(store: DocumentStore) -> None:
    store.upsert("kb", [entry("a", "1"), entry("b", "1")])
    store.upsert("kb", [entry("a", "1"), entry("b", "2")])
    store.delete_documents("kb", ["a", "nobody"])
    store.delete_collection("kb")
    kinds = [(change.kind.value, change.document_id) for change in store.changes(0, 100)]
    assert kinds == [
        ("upsert", "a"),
        ("upsert", "b"),
        ("upsert", "b"),
        ("delete", "a"),
        ("delete", "b"),
    ]
    assert store.changes(3, 1) == (Change(4, ChangeKind.DELETE, "kb", "a"),)
    assert store.sequence() == 5


def test_a_batch_is_stored_whole_or_not_at_all(store: DocumentStore) -> None:
    broken = replace(entry("b", "text"), embeddings=())
    with pytest.raises(ValueError, match="zip"):
        store.upsert("kb", [entry("a", "text"), broken])
    assert store.collection("kb") == Collection("kb", 0, 0)
    assert store.sequence() == 0


def test_a_deleted_document_is_not_found(store: DocumentStore, reader: SearchReader) -> None:
    added = store.upsert("kb", [entry("a", "zebra"), entry("b", "zebra")]).added_ids
    deleted = store.delete_documents("kb", ["a", "nobody"])
    assert (deleted.num_documents, deleted.removed_ids) == (1, added[:1])
    assert words(reader, "zebra") == ["b"]
    with pytest.raises(NotFound, match="'a'") as missing:
        store.document("kb", "a")
    assert missing.value.field == "id"


def test_a_collection_goes_with_all_it_holds(store: DocumentStore, reader: SearchReader) -> None:
    added = store.upsert("kb", [entry("a", "zebra"), entry("b", "zebra")]).added_ids
    deleted = store.delete_collection("kb")
    assert (deleted.num_documents, deleted.removed_ids) == (2, added)
    store.create_collection("kb")
    assert words(reader, "zebra") == []
    assert store.totals() == (0, 0)
    assert list(store.embeddings()) == []


def test_an_unknown_collection_is_not_found(store: DocumentStore, reader: SearchReader) -> None:
    for call in (
        lambda: store.collection("x"),
        lambda: store.delete_collection("x"),
        lambda: store.upsert("x", [entry("a")]),
        lambda: store.document("x", "a"),
        lambda: store.list_documents("x", 1, ""),
        lambda: store.delete_documents("x", ["a"]),
        lambda: store.digests("x", []),
    ):
        with pytest.raises(NotFound, match="'x'") as missing:
            call()
        assert missing.value.field == "collection"
    with reader.snapshot() as snapshot, pytest.raises(NotFound):
        snapshot.by_words("x", "a", 1, {})


def test_pages_are_in_byte_order_and_lead_to_each_other(store: DocumentStore) -> None:
    ids = ["Z", "a", "a/b", "b", "z", "é", "￿", "\U00010000"]
    store.upsert("kb", [entry(id, "text") for id in reversed(ids)])
    seen: list[str] = []
    after = ""
    while True:
        page = store.list_documents("kb", 3, after)
        assert all(document.text == "" and document.version for document in page.documents)
        seen += [document.id for document in page.documents]
        if not page.next:
            break
        after = page.next
    assert seen == ids == sorted(ids, key=str.encode)


def test_a_page_of_much_metadata_ends_early(store: DocumentStore) -> None:
    metadata = {str(i): "\U0001f600" * 1024 for i in range(32)}
    store.upsert("kb", [entry(f"{i:03}", metadata=metadata) for i in range(60)])
    page = store.list_documents("kb", 1000, "")
    assert 0 < len(page.documents) < 60
    assert page.next == page.documents[-1].id


def test_embeddings_come_back_with_their_ids(store: DocumentStore) -> None:
    store.create_collection("other")
    first = store.upsert("kb", [entry("a", "word " * 20)]).added_ids
    second = store.upsert("other", [entry("a", "text")]).added_ids
    found = {name: (ids, blobs) for name, ids, blobs in store.embeddings()}
    assert found == {
        "kb": (list(first), [EMBEDDING] * 3),
        "other": (list(second), [EMBEDDING]),
    }


def test_filters_are_exact_and_all_must_hold(store: DocumentStore, reader: SearchReader) -> None:
    store.upsert(
        "kb",
        [
            entry("a", "zebra", metadata={"lang": "en", "year": "2020"}),
            entry("b", "zebra", metadata={"lang": "en", "year": "2021"}),
            entry("c", "zebra", metadata={"lang": "EN"}),
        ],
    )
    assert words(reader, "zebra", {"lang": "en"}) == ["a", "b"]
    assert words(reader, "zebra", {"lang": "en", "year": "2021"}) == ["b"]
    assert words(reader, "zebra", {"lang": "e"}) == []
    assert words(reader, "zebra", {"lang' OR 1=1 --": "en"}) == []
    with reader.snapshot() as snapshot:
        assert snapshot.allowed("kb", {}) is None
        assert len(snapshot.allowed("kb", {"lang": "en"}) or []) == 2
        assert snapshot.allowed("kb", {"lang": "fr"}) == []


def test_the_better_match_comes_first_and_endings_do_not_matter(
    store: DocumentStore, reader: SearchReader
) -> None:
    store.upsert(
        "kb",
        [
            entry("many", "Zebras grazing with other zebras"),
            entry("one", "A zebra among many lions and gnus"),
            entry("titled", "Striped animals of the savanna", "Zebra"),
            *(entry(f"other{i}", "Nothing about it") for i in range(10)),
        ],
    )
    assert words(reader, "ZEBRA graze") == ["many", "titled", "one"]


def test_a_snapshot_does_not_move(store: DocumentStore, reader: SearchReader) -> None:
    store.upsert("kb", [entry("a", "zebra")])
    with reader.snapshot() as snapshot:
        store.upsert("kb", [entry("b", "zebra")])
        assert len(snapshot.by_words("kb", "zebra", 10, {})) == 1
        assert snapshot.sequence == 1
    assert sorted(words(reader, "zebra")) == ["a", "b"]


def test_text_comes_back_as_it_was(store: DocumentStore, reader: SearchReader) -> None:
    text = "nul \x00 inside, \U0001f600, \r\n\ttab, \u2028 and e\u0301"
    store.upsert("kb", [entry("odd\u202e", text, "\x01", {"k": "\x00"})])
    document = store.document("kb", "odd\u202e")
    assert (document.text, document.title, document.metadata) == (text, "\x01", {"k": "\x00"})
    with reader.snapshot() as snapshot:
        (id, _), *_ = snapshot.by_words("kb", "inside", 1, {})
        chunk = snapshot.chunks("kb", [id])[id]
    assert chunk.text == text[chunk.start : chunk.end]

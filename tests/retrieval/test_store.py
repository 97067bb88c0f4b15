"""The document store, one rule at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.errors import Lost, NotFound, Starting, Unavailable, Unsupported
from cluster.retrieval.records import Collection
from cluster.store.documents import DocumentStore
from cluster.store.match import MAX_WORDS, match_any
from cluster.store.records import Change, ChangeKind, digest_of
from cluster.store.schema import DATABASE_NAME, connect_reader
from cluster.store.search import SearchReader
from tests.retrieval.making import EMBEDDING, entry


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


def words(reader: SearchReader, query: str, filters: dict[str, str] | None = None) -> list[str]:
    """Documents of `kb` that have any of the words, best first."""
    with reader.snapshot() as snapshot:
        scored = snapshot.by_words("kb", query, 10, filters or {})
        chunks = snapshot.chunks("kb", [id for id, _ in scored])
        return [chunks[id].key.document_id for id, _ in scored]


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


@settings(deadline=None, max_examples=300)
@given(query=st.text(st.characters(), max_size=50))
@example(query='"')
@example(query="a AND NOT (b OR NEAR(c)) ^d* title:e -f")
@example(query="\x00 a\x00b")
@example(query="\ud800 \udfff")
@example(query="_ ' \\ ; --")
@example(query="e\u0301 हिन्दी 中文 \U0001d400")
def test_no_question_is_a_syntax_error(
    shared: tuple[DocumentStore, SearchReader], query: str
) -> None:
    _, reader = shared
    with reader.snapshot() as snapshot:
        snapshot.by_words("kb", query, 10, {})


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[DocumentStore, SearchReader]]:
    folder = tmp_path_factory.mktemp("store")
    store = DocumentStore(folder)
    store.create_collection("kb")
    store.upsert("kb", [entry("a", "a b c AND NOT NEAR title é हिन्दी 中文")])
    reader = SearchReader(folder)
    yield store, reader
    reader.close()
    store.close()


def test_a_word_is_found_whatever_surrounds_it(
    shared: tuple[DocumentStore, SearchReader],
) -> None:
    for query in ('"near"', "NEAR(", "near* AND", "x:near", "n\u0065ar", "e\u0301", "हिन्दी!"):
        assert words(shared[1], query) == ["a"], query


def test_words_count_alone_and_words_of_every_text_beside_them() -> None:
    assert match_any("What does the with statement do?").split(" OR ") == [
        '"statement"',
        '"with statement"',
        '"statement do"',
    ]
    assert match_any("to be, or not: to be").split(" OR ") == ['"to"', '"be"', '"or"', '"not"']
    assert match_any("?! \x00 --") == ""


def test_words_side_by_side_are_worth_more(store: DocumentStore, reader: SearchReader) -> None:
    others = (entry(f"other{i}", "Of this and of that") for i in range(10))
    store.upsert("kb", [entry("apart", "cup, then tea"), entry("beside", "tea cup here"), *others])
    assert words(reader, "the tea cup") == ["beside", "apart"]


def test_a_question_of_many_words_is_cut(shared: tuple[DocumentStore, SearchReader]) -> None:
    query = " ".join(f"w{i}" for i in range(10_000))
    assert match_any(query).count(" OR ") == 2 * MAX_WORDS - 2
    assert words(shared[1], query) == []


def test_text_comes_back_as_it_was(store: DocumentStore, reader: SearchReader) -> None:
    text = "nul \x00 inside, \U0001f600, \r\n\ttab, \u2028 and e\u0301"
    store.upsert("kb", [entry("odd\u202e", text, "\x01", {"k": "\x00"})])
    document = store.document("kb", "odd\u202e")
    assert (document.text, document.title, document.metadata) == (text, "\x01", {"k": "\x00"})
    with reader.snapshot() as snapshot:
        (id, _), *_ = snapshot.by_words("kb", "inside", 1, {})
        chunk = snapshot.chunks("kb", [id])[id]
    assert chunk.text == text[chunk.start : chunk.end]


def test_a_second_process_is_kept_out(store: DocumentStore, tmp_path: Path) -> None:
    with pytest.raises(Starting, match="in use by another retriever"):
        DocumentStore(tmp_path)
    store.upsert("kb", [entry("a", "text")])


def test_every_commit_waits_for_the_disk(store: DocumentStore) -> None:
    db = store._db
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert db.execute("PRAGMA foreign_keys").fetchone() == (1,)


def filled(folder: Path) -> Path:
    store = DocumentStore(folder)
    store.create_collection("kb")
    store.upsert("kb", [entry(str(i), "word " * 200) for i in range(50)])
    store.close()
    return folder / DATABASE_NAME


def test_a_damaged_database_says_so(tmp_path: Path) -> None:
    path = filled(tmp_path)
    content = bytearray(path.read_bytes())
    for offset in range(4096, len(content), 4096):
        content[offset : offset + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(Lost, match=r"documents\.sqlite3 is damaged .* restore it from a backup"):
        DocumentStore(tmp_path)


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).write_bytes(b"These are not the pages you look for.\n" * 200)
    for _ in range(2):
        with pytest.raises(Lost, match="damaged"):
            DocumentStore(tmp_path)


def test_a_later_schema_is_refused_with_both_numbers(tmp_path: Path) -> None:
    path = filled(tmp_path)
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(Unsupported, match=r"schema 7.* up to 1"):
        DocumentStore(tmp_path)


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cannot be used"):
        DocumentStore(tmp_path / "file" / "documents")


def test_a_full_disk_is_said_and_nothing_is_half_written(store: DocumentStore) -> None:
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages + 10}")
    with pytest.raises(Unavailable, match="full"):
        store.upsert("kb", [entry(str(i), "word " * 1000) for i in range(20)])
    assert store.totals() == (0, 0)
    store.upsert("kb", [entry("small", "text")])
    assert store.totals() == (1, 1)


def test_a_reader_cannot_write(store: DocumentStore, tmp_path: Path) -> None:
    reader = connect_reader(tmp_path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM collections")
    reader.close()

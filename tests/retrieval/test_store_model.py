"""The store against a dictionary, whatever is done to it in whatever order."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from cluster.errors import NotFound
from cluster.retrieval.records import Collection, Document
from cluster.store.documents import DocumentStore
from cluster.store.records import ChangeKind, Deleted, Entry
from cluster.store.search import SearchReader
from tests.retrieval.making import entry

COLLECTIONS = st.sampled_from(["kb", "notes"])
IDS = st.sampled_from(["a", "b", "c", "d"])
WORDS = ["zebra", "yak", "gnu"]
TEXTS = st.sampled_from(["", "zebra", "yak gnu", "gnu " * 30, "zebra yak " * 12])
METADATA = st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["1", "2"]), max_size=2)
ENTRIES = st.builds(entry, IDS, TEXTS, st.sampled_from(["", "Title"]), METADATA)
BATCHES = st.lists(ENTRIES, min_size=1, max_size=3, unique_by=lambda e: e.document.id)


@dataclass
class Kept:
    """A document of the model: the stored one, and the ids of its chunks."""

    document: Document
    entry: Entry
    chunk_ids: tuple[int, ...]


class StoreMachine(RuleBasedStateMachine):
    """`model[collection][id]`, and all that was ever given out."""

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.store = DocumentStore(self.folder)
        self.reader = SearchReader(self.folder)
        self.model: dict[str, dict[str, Kept]] = {}
        self.log: list[tuple[str, str, str]] = []
        self.used_chunk_ids: set[int] = set()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.reader.close()
            self.store.close()
            shutil.rmtree(self.folder)

    @rule(name=COLLECTIONS)
    def create(self, name: str) -> None:
        _, is_new = self.store.create_collection(name)
        assert is_new == (name not in self.model)
        self.model.setdefault(name, {})

    @rule(name=COLLECTIONS, batch=BATCHES)
    def upsert(self, name: str, batch: list[Entry]) -> None:
        if name not in self.model:
            with pytest.raises(NotFound):
                self.store.upsert(name, batch)
            return
        kept = self.model[name]
        done = self.store.upsert(name, batch)
        added = iter(done.added_ids)
        removed: list[int] = []
        for new, result in zip(batch, done.results, strict=True):
            old = kept.get(new.document.id)
            assert result.changed == (old is None or old.entry != new)
            assert result.num_chunks == len(new.chunks)
            if not result.changed:
                assert old is not None
                assert result.version == old.document.version
                continue
            self.log.append(("upsert", name, new.document.id))
            assert result.version == len(self.log)
            removed += old.chunk_ids if old else ()
            chunk_ids = tuple(next(added) for _ in new.chunks)
            document = replace(new.document, version=result.version)
            kept[document.id] = Kept(document, new, chunk_ids)
        assert not list(added)
        assert list(done.removed_ids) == removed
        assert self.used_chunk_ids.isdisjoint(done.added_ids)
        self.used_chunk_ids.update(done.added_ids)
        assert done.sequence == len(self.log)

    @rule(name=COLLECTIONS, ids=st.lists(IDS, min_size=1, max_size=3, unique=True))
    def delete(self, name: str, ids: list[str]) -> None:
        if name not in self.model:
            with pytest.raises(NotFound):
                self.store.delete_documents(name, ids)
            return
        gone = [self.model[name].pop(id) for id in ids if id in self.model[name]]
        self.check_deleted(name, gone, self.store.delete_documents(name, ids))

    @rule(name=COLLECTIONS)
    def drop(self, name: str) -> None:
        if name not in self.model:
            with pytest.raises(NotFound):
                self.store.delete_collection(name)
            return
        kept = self.model.pop(name)
        gone = [kept[id] for id in sorted(kept)]
        self.check_deleted(name, gone, self.store.delete_collection(name))

    def check_deleted(self, name: str, gone: list[Kept], done: Deleted) -> None:
        self.log += [("delete", name, kept.document.id) for kept in gone]
        removed = tuple(id for kept in gone for id in kept.chunk_ids)
        assert done == Deleted(len(gone), len(self.log), removed)

    @rule()
    def restart(self) -> None:
        self.reader.close()
        self.store.close()
        self.store = DocumentStore(self.folder)
        self.reader = SearchReader(self.folder)

    @precondition(lambda self: self.model)
    @rule(word=st.sampled_from(WORDS), filters=METADATA)
    def search(self, word: str, filters: dict[str, str]) -> None:
        with self.reader.snapshot() as snapshot:
            assert snapshot.sequence == len(self.log)
            for name, kept in self.model.items():
                chosen = [
                    k for k in kept.values() if filters.items() <= k.document.metadata.items()
                ]
                found = {id for id, _ in snapshot.by_words(name, word, 1000, filters)}
                assert found == {
                    id
                    for k in chosen
                    for id, chunk in zip(k.chunk_ids, k.entry.chunks, strict=True)
                    if word in chunk.text
                }
                allowed = snapshot.allowed(name, filters)
                if filters:
                    assert sorted(allowed or []) == sorted(i for k in chosen for i in k.chunk_ids)
                else:
                    assert allowed is None

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert self.store.collections() == tuple(
            Collection(name, len(kept), sum(len(k.chunk_ids) for k in kept.values()))
            for name, kept in sorted(self.model.items())
        )
        for name, kept in self.model.items():
            page = self.store.list_documents(name, 100, "")
            assert [document.id for document in page.documents] == sorted(kept)
            assert {id: self.store.document(name, id) for id in kept} == {
                id: k.document for id, k in kept.items()
            }

    @invariant()
    def remembers_every_change_and_every_embedding(self) -> None:
        changes = self.store.changes(0, 10**6)
        assert [(c.kind, c.collection, c.document_id) for c in changes] == [
            (ChangeKind(kind), name, id) for kind, name, id in self.log
        ]
        assert [change.sequence for change in changes] == list(range(1, len(self.log) + 1))
        embedded = {id: name for name, ids, _ in self.store.embeddings() for id in ids}
        assert embedded == {
            id: name
            for name, kept in self.model.items()
            for k in kept.values()
            for id in k.chunk_ids
        }


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=25, stateful_step_count=25)

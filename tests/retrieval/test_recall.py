"""Are the right documents found? Questions of SQuAD 2.0, each over all paragraphs of its split."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from actors.library import Library, Question, Searcher
from cluster.config import RetrieverConfig
from cluster.documents.batches import in_batches
from cluster.retrieval.records import Document
from cluster.store.search import SearchReader

NUM_QUESTIONS = 300
TOP = 5


@dataclass(frozen=True)
class Squad:
    documents: tuple[Document, ...]
    # (question, id of the paragraph that answers it)
    questions: tuple[tuple[str, str], ...]


@pytest.fixture(scope="module")
def squad() -> Squad:
    folder = os.environ.get("THOTH_DATA")
    if not folder:
        pytest.skip("THOTH_DATA is not set: it names the folder with squad2-cs224n/dev-v2.0.json")
    articles = json.loads(Path(folder, "squad2-cs224n/dev-v2.0.json").read_text())["data"]
    documents, questions = [], []
    for article in articles:
        for i, paragraph in enumerate(article["paragraphs"]):
            id = f"{article['title']}/{i}"
            # Untitled: the article's name would give its paragraphs away.
            documents.append(Document(id, "", paragraph["context"]))
            questions += [(q["question"], id) for q in paragraph["qas"] if q["answers"]]
    return Squad(tuple(documents), tuple(Random(2018).sample(questions, NUM_QUESTIONS)))


@pytest.fixture(scope="module")
def library(squad: Squad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    library = Library(tmp_path_factory.mktemp("squad"), RetrieverConfig())
    library.store.create_collection("squad")
    for batch in in_batches(squad.documents, max_documents=256):
        library.upsert("squad", batch)
    yield library
    library.close()


def recall(squad: Squad, search: Callable[[str], list[str]]) -> float:
    """The share of questions whose paragraph is among the first `TOP` documents."""
    hits = [id in list(dict.fromkeys(search(question)))[:TOP] for question, id in squad.questions]
    return sum(hits) / len(hits)


def test_words_find_the_paragraph(squad: Squad, library: Library) -> None:
    reader = SearchReader(library.folder)

    def search(question: str) -> list[str]:
        with reader.snapshot() as snapshot:
            scored = snapshot.by_words("squad", question, 2 * TOP, {})
            chunks = snapshot.chunks("squad", [id for id, _ in scored])
        return [chunks[id].key.document_id for id, _ in scored]

    assert recall(squad, search) >= 0.90
    reader.close()


def test_meaning_finds_the_paragraph(squad: Squad, library: Library) -> None:
    reader = SearchReader(library.folder)

    def search(question: str) -> list[str]:
        scored = library.index.search("squad", library.embedder.embed([question])[0], 2 * TOP)
        with reader.snapshot() as snapshot:
            chunks = snapshot.chunks("squad", [id for id, _ in scored])
        return [chunks[id].key.document_id for id, _ in scored]

    assert recall(squad, search) >= 0.75
    reader.close()


def test_both_together_find_the_paragraph(squad: Squad, library: Library) -> None:
    searcher = Searcher(library, candidates=50)

    def search(question: str) -> list[str]:
        found = searcher.search(Question(("squad",), question, 2 * TOP, {}))
        return [chunk.document_id for chunk in found.chunks]

    assert recall(squad, search) >= 0.88
    searcher.close()

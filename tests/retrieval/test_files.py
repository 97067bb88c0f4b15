"""Files and folders as documents, and what is refused or left out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.documents.batches import in_batches
from cluster.documents.files import list_files, load_file, load_files
from cluster.documents.reference import load_reference
from cluster.errors import InvalidArgument, NotFound, TooLarge, Unsupported
from cluster.retrieval.limits import check_document
from cluster.retrieval.records import Document

LIMIT = 1000


def write(path: Path, content: bytes = b"text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_folder_is_listed_in_order_with_what_is_left_out(tmp_path: Path) -> None:
    for name in ("b.md", "a/z.rst", "a/A.TXT", "c.pdf", "Makefile", ".hidden.md", ".git/x.md"):
        write(tmp_path / name)
    listing = list_files(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in listing.files] == [
        "a/A.TXT",
        "a/z.rst",
        "b.md",
    ]
    assert {skipped.path.name for skipped in listing.skipped} == {"c.pdf", "Makefile"}
    assert all(".md" in skipped.why for skipped in listing.skipped)


def test_documents_are_named_by_their_path_and_titled_by_their_heading(tmp_path: Path) -> None:
    write(tmp_path / "guide/intro.md", "\ufeff# Über uns\r\n\r\nHallo".encode())
    write(tmp_path / "notes.txt", b"just text")
    documents = list(load_files(list_files(tmp_path), LIMIT))
    assert documents == [
        Document("guide/intro.md", "Über uns", "# Über uns\r\n\r\nHallo"),
        Document("notes.txt", "notes", "just text"),
    ]


def test_a_single_file_is_a_folder_of_one(tmp_path: Path) -> None:
    listing = list_files(write(tmp_path / "one.md"))
    assert [document.id for document in load_files(listing, LIMIT)] == ["one.md"]


def test_links_that_lead_back_or_nowhere_do_no_harm(tmp_path: Path) -> None:
    write(tmp_path / "sub/a.md")
    (tmp_path / "sub/loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self.md").symlink_to(tmp_path / "self.md")
    (tmp_path / "gone.md").symlink_to(tmp_path / "nowhere")
    (tmp_path / "linked.md").symlink_to(tmp_path / "sub/a.md")
    listing = list_files(tmp_path)
    assert [path.name for path in listing.files] == ["linked.md", "a.md"]
    assert {skipped.path.name for skipped in listing.skipped} == {"self.md", "gone.md"}


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (skipped,) = list_files(tmp_path).skipped
    assert skipped.why == "not a regular file"


def test_a_name_that_is_not_text_is_left_out(tmp_path: Path) -> None:
    write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.md")))
    listing = list_files(tmp_path)
    assert not listing.files
    assert "not UTF-8" in listing.skipped[0].why


def test_what_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere does not exist"):
        list_files(tmp_path / "nowhere")
    with pytest.raises(Unsupported, match=r"not one of \.md, \.rst, \.txt"):
        list_files(write(tmp_path / "a.pdf"))
    with pytest.raises(NotFound, match="cannot be read"):
        load_file(tmp_path, tmp_path / "gone.md", LIMIT)


def test_bytes_that_are_not_utf8_are_named_with_file_and_offset(tmp_path: Path) -> None:
    path = write(tmp_path / "latin.txt", b"caf\xe9 au lait")
    with pytest.raises(InvalidArgument, match=r"latin\.txt is not UTF-8: byte 3 is 0xe9"):
        load_file(tmp_path, path, LIMIT)


def test_a_file_at_the_limit_is_read_and_one_byte_more_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"x" * LIMIT)
    assert len(load_file(tmp_path, path, LIMIT).text) == LIMIT
    with pytest.raises(TooLarge, match=r"a\.txt' has 1000 bytes; max_document_bytes is 999"):
        load_file(tmp_path, path, LIMIT - 1)


def test_a_file_of_100_mb_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.truncate(100 * 2**20)
    before = _bytes_read()
    with pytest.raises(TooLarge, match="has 104857600 bytes; max_document_bytes is 8388608"):
        load_file(tmp_path, path, 8 * 2**20)
    assert _bytes_read() - before < 2**20


def _bytes_read() -> int:
    """By this process since it began."""
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["rchar"])


def test_the_reference_is_there_and_fits_every_limit() -> None:
    documents = list(load_reference())
    assert len(documents) > 50
    assert [document.id for document in documents] == sorted(d.id for d in documents)
    for document in documents:
        check_document(document, 8 * 2**20)
    titles = {document.id: document.title for document in documents}
    assert titles["with"] == 'The "with" statement'


def sized(*sizes: int) -> list[Document]:
    return [Document(str(i), "", "x" * size) for i, size in enumerate(sizes)]


def test_batches_keep_the_order_and_both_bounds() -> None:
    batches = list(in_batches(sized(3, 3, 3, 20, 1, 1, 1), max_documents=2, max_bytes=8))
    assert [[len(d.text) for d in batch] for batch in batches] == [[3, 3], [3], [20], [1, 1], [1]]
    assert list(in_batches([], 2)) == []


def test_batches_are_made_as_documents_come() -> None:
    def endless() -> Iterator[Document]:
        while True:
            yield Document("a", "", "text")

    assert len(next(in_batches(endless(), max_documents=5))) == 5

"""Text files and folders of them: listed first, by name alone, then read one at a time.

list_files(root) -> Listing(files, skipped)      how much there is to do, and what will not be done
load_files(listing, max_document_bytes)          one document after the other
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.documents.headings import title_of
from cluster.errors import InvalidArgument, NotFound, Unsupported
from cluster.retrieval.limits import check_document_bytes
from cluster.retrieval.records import Document

SUFFIXES = frozenset({".txt", ".md", ".rst"})
_SUFFIXES_SAID = ", ".join(sorted(SUFFIXES))


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is left out, and why, in words."""

    path: Path
    why: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Files that can become documents, in the order of their ids, and those that cannot.

    The id of a document is the path of its file relative to `root`, with forward slashes.
    """

    root: Path
    files: tuple[Path, ...]
    skipped: tuple[Skipped, ...]


def list_files(path: Path) -> Listing:
    """A folder with all it holds, or one file; nothing is read.

    Hidden names are passed over in silence, links to folders are not followed. Raises NotFound,
    and Unsupported for a single file that is not a text file.
    """
    if not path.exists():
        raise NotFound(f"{path} does not exist", field="path", limit="an existing file or folder")
    if not path.is_dir():
        why = _why_not(path)
        if why:
            raise Unsupported(f"{path}: {why}", field="path", limit=f"a folder or {_SUFFIXES_SAID}")
        return Listing(path.parent, (path,), ())
    found = sorted(_walk(path), key=lambda file: _document_id(path, file))
    reasons = [(file, _why_not(file)) for file in found]
    return Listing(
        path,
        tuple(file for file, why in reasons if not why),
        tuple(Skipped(file, why) for file, why in reasons if why),
    )


def load_files(listing: Listing, max_document_bytes: int) -> Iterator[Document]:
    """The documents of a listing, lazily. Raises as `load_file` does at the first bad one."""
    for path in listing.files:
        yield load_file(listing.root, path, max_document_bytes)


def load_file(root: Path, path: Path, max_document_bytes: int) -> Document:
    """One file as a document. A file that is too large is refused unread.

    Raises TooLarge, InvalidArgument when it is not UTF-8 (naming the byte), NotFound when it is
    gone or closed to us.
    """
    try:
        with path.open("rb") as file:
            num_bytes = os.fstat(file.fileno()).st_size
            check_document_bytes(num_bytes, max_document_bytes, str(path), "path")
            # One more than allowed, in case it has grown.
            content = file.read(max_document_bytes + 1)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise NotFound(message, field="path", limit="readable files") from None
    check_document_bytes(len(content), max_document_bytes, str(path), "path")
    text = _decode(content, path)
    document_id = _document_id(root, path)
    return Document(id=document_id, title=title_of(text, document_id), text=text)


def _decode(content: bytes, path: Path) -> str:
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            f"{path} is not UTF-8: byte {error.start} is 0x{content[error.start]:02x}",
            field="path",
            limit="text in UTF-8",
        ) from None


def _walk(root: Path) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def _document_id(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _why_not(path: Path) -> str:
    """Empty when the file can become a document."""
    if path.suffix.lower() not in SUFFIXES:
        return f"not one of {_SUFFIXES_SAID}"
    if not path.name.isprintable():
        return "a name with control characters, or one that is not UTF-8"
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        return error.strerror or "unreadable"
    return "" if is_file else "not a regular file"

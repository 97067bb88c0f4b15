"""What a document, a collection and a search may be: errors name field, limit and both numbers.

Paths of fields are those of the wire: `documents[3].metadata`, `collections`, `top_k`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from unicodedata import category

from cluster.errors import InvalidArgument, TooLarge
from cluster.retrieval.records import Document

MAX_ID_CHARS = 512
MAX_TITLE_CHARS = 1024
MAX_METADATA_ENTRIES = 32
MAX_METADATA_KEY_CHARS = 64
MAX_METADATA_VALUE_CHARS = 1024
MAX_COLLECTIONS = 32
MAX_QUERY_CHARS = 65536
MAX_TOP_K = 1000
MAX_PAGE_DOCUMENTS = 1000
MAX_DELETED_DOCUMENTS = 10000

COLLECTION_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class DocumentLimits:
    """The limits that a deployment sets."""

    max_document_bytes: int = 8 * 2**20
    max_batch_documents: int = 256


def check_collection_name(name: str, field: str = "collection") -> None:
    """Raises InvalidArgument."""
    if not COLLECTION_NAME.fullmatch(name):
        raise InvalidArgument(
            f"{field} is {_shown(name)}, which is not the name of a collection",
            field=field,
            limit="1 to 64 characters a-z, 0-9, _ and -, the first one a letter or a digit",
        )


def check_document_id(id: str, field: str = "id") -> None:
    """Raises InvalidArgument or TooLarge."""
    limit = f"1 to {MAX_ID_CHARS} characters, none of them a control character"
    if not id:
        raise InvalidArgument(f"{field} is empty", field=field, limit=limit)
    _check_length(id, MAX_ID_CHARS, field)
    _check_unicode(id, field)
    if any(category(char) == "Cc" for char in id):
        message = f"{field} is {_shown(id)}, which has a control character"
        raise InvalidArgument(message, field=field, limit=limit)


def check_document(document: Document, max_document_bytes: int, field: str = "document") -> None:
    """Raises InvalidArgument or TooLarge."""
    check_document_id(document.id, f"{field}.id")
    _check_unicode(document.title, f"{field}.title")
    _check_length(document.title, MAX_TITLE_CHARS, f"{field}.title")
    _check_unicode(document.text, f"{field}.text")
    check_document_bytes(
        len(document.text.encode()), max_document_bytes, document.id, f"{field}.text"
    )
    check_metadata(document.metadata, f"{field}.metadata")


def check_document_bytes(num_bytes: int, max_document_bytes: int, name: str, field: str) -> None:
    """Raises TooLarge. `name` tells the person which document it is."""
    if num_bytes > max_document_bytes:
        raise TooLarge(
            f"{_shown(name)} has {num_bytes} bytes; max_document_bytes is {max_document_bytes}",
            field=field,
            limit=f"at most {max_document_bytes} bytes of UTF-8 (max_document_bytes)",
        )


def check_metadata(metadata: Mapping[str, str], field: str) -> None:
    """For the metadata of a document and for filters on it. Raises InvalidArgument or TooLarge."""
    _check_count(len(metadata), MAX_METADATA_ENTRIES, field, "entries")
    for key, value in metadata.items():
        if not key:
            raise InvalidArgument(f"{field} has an empty key", field=field, limit="keys not empty")
        _check_unicode(key, field)
        _check_length(key, MAX_METADATA_KEY_CHARS, f"a key of {field}", field)
        _check_unicode(value, f"{field}[{key}]")
        _check_length(value, MAX_METADATA_VALUE_CHARS, f"{field}[{key}]")


def check_batch(documents: Sequence[Document], limits: DocumentLimits) -> None:
    """Raises InvalidArgument or TooLarge for the first document that may not be stored."""
    if not documents:
        message = "documents is empty"
        raise InvalidArgument(message, field="documents", limit="at least one document")
    most = limits.max_batch_documents
    if len(documents) > most:
        raise TooLarge(
            f"documents has {len(documents)} of them; max_batch_documents is {most}",
            field="documents",
            limit=f"at most {most} documents in one call (max_batch_documents)",
        )
    seen: dict[str, int] = {}
    for i, document in enumerate(documents):
        check_document(document, limits.max_document_bytes, f"documents[{i}]")
        first = seen.setdefault(document.id, i)
        if first != i:
            raise InvalidArgument(
                f"documents[{first}] and documents[{i}] are both named {_shown(document.id)}",
                field=f"documents[{i}].id",
                limit="every id once in one call",
            )


def check_deletion(ids: Sequence[str]) -> None:
    """Raises InvalidArgument or TooLarge."""
    if not ids:
        raise InvalidArgument("ids is empty", field="ids", limit="at least one id")
    _check_count(len(ids), MAX_DELETED_DOCUMENTS, "ids", "of them")
    for i, id in enumerate(ids):
        check_document_id(id, f"ids[{i}]")


def check_search(
    collections: Sequence[str], query: str, top_k: int, filters: Mapping[str, str]
) -> None:
    """Raises InvalidArgument or TooLarge."""
    if not collections:
        message = "collections is empty: name at least one"
        raise InvalidArgument(message, field="collections", limit="at least one collection")
    _check_count(len(collections), MAX_COLLECTIONS, "collections", "of them")
    for name in collections:
        check_collection_name(name, "collections")
    if not query.strip():
        raise InvalidArgument("query is empty", field="query", limit="at least one character")
    _check_unicode(query, "query")
    _check_length(query, MAX_QUERY_CHARS, "query")
    check_range(top_k, MAX_TOP_K, "top_k")
    check_metadata(filters, "filters")


def check_range(value: int, most: int, field: str) -> None:
    """Raises InvalidArgument for a count outside 1 to `most`."""
    if not 1 <= value <= most:
        message = f"{field} is {value}, not in 1 to {most}"
        raise InvalidArgument(message, field=field, limit=f"1 to {most}")


def _check_count(count: int, most: int, field: str, things: str) -> None:
    if count > most:
        message = f"{field} has {count} {things}; at most {most} are allowed"
        raise TooLarge(message, field=field, limit=f"at most {most}")


def _check_length(text: str, most: int, said: str, field: str = "") -> None:
    if len(text) > most:
        raise TooLarge(
            f"{said} has {len(text)} characters; at most {most} are allowed",
            field=field or said,
            limit=f"at most {most} characters",
        )


def _check_unicode(text: str, field: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"{field} is not valid Unicode: lone surrogate at character {error.start}",
            field=field,
            limit="text that UTF-8 can encode",
        ) from None


def _shown(text: str) -> str:
    """Quoted, escaped and short enough for a message."""
    return ascii(text if len(text) <= 80 else f"{text[:80]}...")

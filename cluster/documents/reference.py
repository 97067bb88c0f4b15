"""The corpus that everyone has: Python's language reference, as it is carried for `help()`."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.documents.headings import title_of
from cluster.retrieval.records import Document

REFERENCE_COLLECTION = "python-reference"


def load_reference() -> Iterator[Document]:
    """One document per topic of `pydoc_data.topics`, in the order of their names."""
    # Half a megabyte that only this function needs.
    from pydoc_data.topics import topics  # noqa: PLC0415

    for name in sorted(topics):
        yield Document(id=name, title=title_of(topics[name], name), text=topics[name])

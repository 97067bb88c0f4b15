"""Documents in batches that one call can carry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cluster.retrieval.records import Document

# Far below the largest message, so that progress is seen and a retry is cheap.
BATCH_BYTES = 4 * 2**20


def in_batches(
    documents: Iterable[Document], max_documents: int, max_bytes: int = BATCH_BYTES
) -> Iterator[tuple[Document, ...]]:
    """Lazily, in order.

    A batch holds at most `max_documents`, and `max_bytes` of text unless one alone has more.
    """
    batch: list[Document] = []
    num_bytes = 0
    for document in documents:
        size = len(document.text.encode())
        if batch and (len(batch) == max_documents or num_bytes + size > max_bytes):
            yield tuple(batch)
            batch, num_bytes = [], 0
        batch.append(document)
        num_bytes += size
    if batch:
        yield tuple(batch)

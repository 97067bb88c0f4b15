"""Exact search by inner product, one flat Faiss index per collection.

It holds nothing that the store does not: a restart fills it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import faiss
import numpy as np
from numpy.typing import NDArray

from cluster.index.embedder import Vectors


class VectorIndex:
    """Chunk ids and their vectors. Safe for one writing and several searching threads.

    A vector of zeros is a text without meaning: it is not kept, and searching for it finds nothing.
    """

    def __init__(self, dimension: int) -> None:
        # Searches are small: a second thread costs more than it brings.
        faiss.omp_set_num_threads(1)
        self._dimension = dimension
        self._indexes: dict[str, faiss.IndexIDMap2] = {}
        self._lock = Lock()

    def add(self, collection: str, ids: Sequence[int], vectors: Vectors) -> None:
        """`vectors` is [ids, dimension]; no id may be there already."""
        solid = vectors.any(axis=1)
        with self._lock:
            index = self._indexes.get(collection)
            if index is None:
                index = faiss.IndexIDMap2(faiss.IndexFlatIP(self._dimension))
                self._indexes[collection] = index
            if solid.any():
                index.add_with_ids(np.ascontiguousarray(vectors[solid]), _as_ids(ids)[solid])

    def remove(self, collection: str, ids: Sequence[int]) -> None:
        """Ids that are not there are passed over."""
        with self._lock:
            index = self._indexes.get(collection)
            if index is not None and ids:
                index.remove_ids(faiss.IDSelectorBatch(_as_ids(ids)))

    def drop(self, collection: str) -> None:
        """Forgets a collection; an unknown one is none."""
        with self._lock:
            self._indexes.pop(collection, None)

    def search(
        self, collection: str, vector: Vectors, limit: int, allowed: Sequence[int] | None = None
    ) -> list[tuple[int, float]]:
        """The nearest ids with their cosine, best first. `allowed` None allows every id."""
        if not vector.any() or (allowed is not None and not allowed):
            return []
        with self._lock:
            index = self._indexes.get(collection)
            if index is None or index.ntotal == 0:
                return []
            scores, ids = index.search(
                vector.reshape(1, -1), min(limit, index.ntotal), params=_only(allowed)
            )
        # Faiss fills up with -1 where there are fewer than asked for.
        return [(int(i), float(s)) for i, s in zip(ids[0], scores[0], strict=True) if i >= 0]

    def num_vectors(self, collection: str) -> int:
        with self._lock:
            index = self._indexes.get(collection)
            return 0 if index is None else int(index.ntotal)


def _as_ids(ids: Sequence[int]) -> NDArray[np.int64]:
    return np.asarray(ids, dtype=np.int64)


def _only(allowed: Sequence[int] | None) -> faiss.SearchParameters | None:
    if allowed is None:
        return None
    # The stub knows the C++ constructor only; the Python one takes fields by name.
    selector = faiss.IDSelectorBatch(_as_ids(allowed))
    return faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]

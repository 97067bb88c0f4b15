"""Texts as points: the mean of static word vectors, on the unit sphere.

`wordllama` carries 256-dimensional vectors for the 32,000 pieces of a Llama tokenizer; nothing is
downloaded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

DIMENSION = 256
# Texts of one pass, as their number times the length of the longest: bounds the memory of padding.
_BATCH_CHARS = 64 * 1200


class StaticEmbedder:
    """Same text, same vector, whatever else is embedded with it. May be used by several threads."""

    name = f"wordllama-l2-supercat-{DIMENSION}"
    dimension = DIMENSION

    def __init__(self, words: Any) -> None:
        self._words = words

    @classmethod
    def load(cls) -> StaticEmbedder:
        """Takes about half a second."""
        with _root_logger_kept():
            import wordllama  # noqa: PLC0415

        folder = Path(wordllama.__file__).parent
        words = wordllama.WordLlama.load(dim=DIMENSION, cache_dir=folder, disable_download=True)
        return cls(words)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """[texts, dimension], rows of length 1; a row of zeros for a text with nothing to embed."""
        means = np.zeros((len(texts), DIMENSION), dtype=np.float32)
        for start, batch in _batches(texts):
            means[start : start + len(batch)] = self._words.embed(batch)
        means = np.nan_to_num(means, nan=0.0, posinf=0.0, neginf=0.0)
        lengths = np.linalg.norm(means, axis=1, keepdims=True)
        lengths[lengths == 0] = 1.0
        unit: Vectors = means / lengths
        return unit


def pack(vectors: Vectors) -> list[bytes]:
    """Rows as little-endian float32, to be stored."""
    return [row.astype("<f4").tobytes() for row in vectors]


def unpack(blobs: Sequence[bytes]) -> Vectors:
    """[blobs, dimension]. Raises ValueError when they are not vectors of this embedder."""
    flat = np.frombuffer(b"".join(blobs), dtype="<f4")
    return flat.reshape(len(blobs), DIMENSION).astype(np.float32)


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    start = 0
    batch: list[str] = []
    longest = 0
    for i, text in enumerate(texts):
        longest = max(longest, len(text))
        if batch and longest * (len(batch) + 1) > _BATCH_CHARS:
            yield start, batch
            start, batch, longest = i, [], len(text)
        batch.append(text)
    if batch:
        yield start, batch


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """wordllama configures the root logger when it is imported, which is not its business."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers

"""What the next token's logits owe to the tokens that are there already.

All of it is a function of the request's ids. It is kept from step to step only because counting
anew would take as long as the context: `follow` counts what was added, and whoever has no history
of a request makes one of its ids.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cluster.engine.weights import Floats
from cluster.request import Sampling


class Tally:
    """Distinct token ids [ids] and how often each occurred [ids]."""

    def __init__(self, ids: Sequence[int]) -> None:
        counted = np.unique(np.asarray(ids, dtype=np.int64), return_counts=True)
        self.ids: npt.NDArray[np.int64] = counted[0]
        self.counts: npt.NDArray[np.float32] = counted[1].astype(np.float32)
        self._places = {int(token_id): place for place, token_id in enumerate(self.ids)}

    def add(self, token_id: int) -> None:
        place = self._places.setdefault(token_id, len(self.ids))
        if place == len(self.ids):
            self.ids = np.append(self.ids, token_id)
            self.counts = np.append(self.counts, np.float32(0.0))
        self.counts[place] += 1.0


class History:
    """Which tokens a request has, and which of them were generated.

    `ids` are the request's, the first `num_prompt` of them its prompt.
    """

    def __init__(self, ids: Sequence[int], num_prompt: int) -> None:
        self._there = Tally(ids)
        self._generated = Tally(ids[num_prompt:])
        self.num_followed = len(ids)

    def follow(self, ids: Sequence[int]) -> None:
        """Counts what was added to the ids since the last time."""
        for token_id in ids[self.num_followed :]:
            self._there.add(token_id)
            self._generated.add(token_id)
        self.num_followed = len(ids)

    def penalise(self, scores: Floats, sampling: Sampling) -> None:
        """In place, on scores [vocab].

        Repetition first: a positive score is divided by the penalty, a negative one multiplied
        (Keskar et al., arXiv 1909.05858, with the sign respected as transformers does). Then
        score - frequency_penalty * count - presence_penalty * (count > 0), as in the OpenAI API.
        """
        if sampling.repetition_penalty != 1.0:
            ids, penalty = self._there.ids, np.float32(sampling.repetition_penalty)
            there = scores[ids]
            scores[ids] = np.where(there > 0, there / penalty, there * penalty)
        if sampling.frequency_penalty or sampling.presence_penalty:
            counts = self._generated.counts
            owed = np.float32(sampling.frequency_penalty) * counts
            scores[self._generated.ids] -= owed + np.float32(sampling.presence_penalty)

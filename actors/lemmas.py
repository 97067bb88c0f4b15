"""Lemmas that proofs left, for later problems of the same tenant.

They are kept in a store in the home, which the provers of a node share. Whether a problem is proved
never hangs on the store being of use: one that cannot be read costs its lemmas alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from cluster.telemetry import catalogue
from cluster.telemetry.metrics import Metrics
from prover.errors import Unusable
from prover.processes import Outcome
from prover.store.database import Shelf, Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """A tenant's store, and what is there when a problem comes; neither where none is kept."""

    store: Store | None = None
    shelf: Shelf | None = None


class KeptLemmas:
    """A store for each tenant, all in one folder of at most `max_bytes`; none for 0 bytes."""

    def __init__(self, folder: Path, max_bytes: int, metrics: Metrics) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._counted = metrics.counter(catalogue.LEMMAS)

    def of(self, tenant: str) -> Kept:
        """It reads and writes files."""
        if not self._max_bytes:
            return Kept()
        try:
            store = Store(self._folder, self._max_bytes, tenant)
            return Kept(store, store.shelf())
        except Unusable as error:
            log.warning("proving without lemmas: %s", error)
            return Kept()

    def keep(self, outcome: Outcome, kept: Kept) -> None:
        """What a goal leaves; and what is of no use is dropped. It reads and writes files."""
        if kept.store is None:
            return
        lemmas = outcome.lemmas
        self._counted.labels("known").inc(lemmas.num_known)
        self._counted.labels("rejected").inc(len(lemmas.rejected))
        for statement, reason in lemmas.rejected.items():
            log.warning("lemma %s of %s is left out: %s", statement, self._folder, reason)
        try:
            self._counted.labels("kept").inc(kept.store.put(lemmas.learned))
            kept.store.drop(lemmas.rejected)
            kept.store.trim()
        except Unusable as error:
            log.warning("lemmas are not kept: %s", error)

"""The collector, as a worker sets it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from cluster.engine.pauses import THRESHOLDS, WHOLE_EVERY, ShortPauses


class Knot:
    """In a cycle with itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def pauses() -> Iterator[ShortPauses]:
    pauses = ShortPauses()
    pauses.begin()
    yield pauses
    pauses.end()


def test_what_lived_through_a_full_collection_is_frozen(pauses: ShortPauses) -> None:
    before = gc.get_freeze_count()
    alive = [Knot() for _ in range(1_000)]
    assert gc.get_freeze_count() == before
    gc.collect()
    assert gc.get_freeze_count() >= before + len(alive)


def test_what_dies_before_it_is_frozen_is_found(pauses: ShortPauses) -> None:
    dead = weakref.ref(Knot())
    gc.collect()
    assert dead() is None


def test_what_died_frozen_is_found_when_everything_is_walked(pauses: ShortPauses) -> None:
    knot: Knot | None = Knot()
    dead = weakref.ref(knot)
    gc.collect()
    knot = None
    gc.collect()
    assert dead() is not None
    for _ in range(WHOLE_EVERY):
        gc.collect()
    assert dead() is None


def test_the_end_leaves_python_as_it_was() -> None:
    callbacks, thresholds = list(gc.callbacks), gc.get_threshold()
    pauses = ShortPauses()
    pauses.begin()
    assert gc.get_threshold() == THRESHOLDS
    pauses.end()
    assert gc.callbacks == callbacks
    assert gc.get_threshold() == thresholds
    assert gc.get_freeze_count() == 0

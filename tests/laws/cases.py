"""What a law is held against: values of its variables, and what the cluster makes of them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from prover.library import Law
from tests.laws.models import Meaning, Model


@dataclass(frozen=True)
class Case:
    """`values` of the law's variables; `left` and `right` are what the functions of the cluster
    give for its sides, and `meaning` what is free in its theory."""

    values: Mapping[str, Any]
    left: Any
    right: Any
    meaning: Meaning = field(default_factory=dict)
    same: Callable[[Any, Any], bool] = operator.eq

    def hold(self, law: Law) -> None:
        """Both sides of the model are what both sides of the cluster are."""
        left, right = Model(law.program, self.meaning).sides(law.statement, self.values)
        assert self.same(left, self.left), (left, self.left)
        assert self.same(right, self.right), (right, self.right)
        assert self.same(self.left, self.right)


Draw = Callable[[st.DataObject], Case]


@dataclass(frozen=True)
class Bound:
    """A law, the functions of the cluster that it models, and how their values are translated."""

    law: str
    models: tuple[Callable[..., Any], ...]
    values: str
    draw: Draw

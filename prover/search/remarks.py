"""Why each lemma was looked for, in words."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Remarks:
    """The first reason of each lemma stays."""

    by_lemma: dict[str, str] = field(default_factory=dict)

    def add(self, lemma: str, remark: str) -> None:
        self.by_lemma.setdefault(lemma, remark)

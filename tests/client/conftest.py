"""A scripted gateway on a real port."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.client.scripted import ScriptedDocuments, ScriptedGateway, serving


@dataclass
class Served:
    """The script, and where it is played."""

    gateway: ScriptedGateway = field(default_factory=ScriptedGateway)
    documents: ScriptedDocuments = field(default_factory=ScriptedDocuments)
    endpoint: str = ""


@pytest.fixture
def served() -> Iterator[Served]:
    script = Served()
    with serving(script.gateway, script.documents) as script.endpoint:
        yield script

"""A call for an answer, named and ready to be checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from actors.gateway.auth import LOCAL
from cluster.ids import RequestId
from cluster.request import ChatCall


@dataclass(frozen=True, slots=True)
class Ask:
    """A call with a name.

    `max_tokens` None: the call gave none, and gets the default or what is left of the context;
    `call.sampling.max_tokens` says nothing then. `spelling` is how the caller spells fields that
    we call otherwise. `principal` is who calls.
    """

    request_id: RequestId
    call: ChatCall
    max_tokens: int | None
    spelling: Mapping[str, str] = field(default_factory=dict)
    principal: str = LOCAL

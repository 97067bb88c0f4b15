"""A call for an answer, named and ready to be checked."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.ids import RequestId
from cluster.request import ChatCall


@dataclass(frozen=True, slots=True)
class Ask:
    """A call with a name.

    `max_tokens` None: the call gave none, and gets the default or what is left of the context;
    `call.sampling.max_tokens` says nothing then. `grammar_field` is how the caller spells the
    place of the grammar, when not by its kind.
    """

    request_id: RequestId
    call: ChatCall
    max_tokens: int | None
    grammar_field: str = ""

"""Whose documents a prompt is made of, and with whom their keys and values may be shared.

A tenant is a principal. Nothing of one tenant's prompts serves another, and so no answer is quicker
because somebody else asked before, save where the deployment says that a collection is shared:

    system prompt of the deployment | shared passages .. | first of the tenant's own | all after it
    <---------------- shared salt ---------------------> | <---------- the tenant's salt --------->

Without a shared passage behind it even the deployment's system prompt is the tenant's: that it lies
there already would tell that somebody has asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from hashlib import blake2b

from cluster.request import ChatRole, Message, SegmentSource
from cluster.text.prompt import Prompt

_SALT_BYTES = 16
_SHARED = b"shared"
_TENANT = b"tenant"


def sources_of(
    prompt: Prompt,
    messages: Collection[Message],
    principal: str,
    shared_collections: Collection[str],
) -> tuple[SegmentSource, ...]:
    """A source for the system prompt and for every document; none without documents."""
    if not prompt.documents:
        return ()
    return tuple(_salted(prompt, messages, principal, shared_collections))


def _salted(
    prompt: Prompt,
    messages: Collection[Message],
    principal: str,
    shared_collections: Collection[str],
) -> Iterator[SegmentSource]:
    own, shared = _salt(_TENANT, principal), _salt(_SHARED, "")
    # What the caller wrote before the documents is the caller's.
    has_own = any(message.role is ChatRole.SYSTEM for message in messages)
    is_shared = not has_own and prompt.documents[0].collection in shared_collections
    yield SegmentSource(salt=shared if is_shared else own)
    for chunk in prompt.documents:
        is_shared = is_shared and chunk.collection in shared_collections
        yield SegmentSource(
            collection=chunk.collection,
            document_id=chunk.document_id,
            chunk=chunk.chunk,
            version=chunk.document_version,
            salt=shared if is_shared else own,
        )


def _salt(kind: bytes, name: str) -> bytes:
    return blake2b(name.encode(), digest_size=_SALT_BYTES, person=kind).digest()

"""The SDK: plain records in and out, typed errors, deadlines on every call.

from cluster.client import Client

with Client("127.0.0.1:9000") as client:
    print(client.ask("What does the with statement do?", collections=["kb"]).text)
"""

from cluster.client.aio import AsyncClient
from cluster.client.aio_connection import AsyncStream
from cluster.client.calls import MAX_DOCUMENT_BYTES
from cluster.client.local import ClusterProcess, Endpoints
from cluster.client.policy import DEFAULT_ENDPOINT, RetryPolicy
from cluster.client.sync import Client
from cluster.client.sync_connection import Stream
from cluster.errors import ThothError
from cluster.proofs import GoalOutcome, ProofVerdict, UnknownReason
from cluster.request import CachedTokens, ChatRole, FinishReason, Message, Timings, Usage
from cluster.retrieval.records import Citation, Collection, Document, ScoredChunk, UpsertResult
from cluster.wire.answers import (
    Answer,
    AskOptions,
    Choice,
    ChoiceFinished,
    Delta,
    DocumentPage,
    Finished,
    Retrieved,
    ServedModel,
    Started,
    StreamEvent,
    TokenLogprob,
    Upserted,
)
from cluster.wire.proofs import Proofs, ProveOptions

__all__ = [
    "DEFAULT_ENDPOINT",
    "MAX_DOCUMENT_BYTES",
    "Answer",
    "AskOptions",
    "AsyncClient",
    "AsyncStream",
    "CachedTokens",
    "ChatRole",
    "Choice",
    "ChoiceFinished",
    "Citation",
    "Client",
    "ClusterProcess",
    "Collection",
    "Delta",
    "Document",
    "DocumentPage",
    "Endpoints",
    "FinishReason",
    "Finished",
    "GoalOutcome",
    "Message",
    "ProofVerdict",
    "Proofs",
    "ProveOptions",
    "Retrieved",
    "RetryPolicy",
    "ScoredChunk",
    "ServedModel",
    "Started",
    "Stream",
    "StreamEvent",
    "ThothError",
    "Timings",
    "TokenLogprob",
    "UnknownReason",
    "UpsertResult",
    "Upserted",
    "Usage",
]

"""The client for programs without an event loop."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from cluster.client.calls import (
    Turn,
    checked_options,
    joined,
    question_messages,
    to_messages,
    upsert_batches,
)
from cluster.client.local import ClusterProcess
from cluster.client.policy import DEFAULT_TIMEOUT_S, RetryPolicy, Target, checked_timeout_s
from cluster.client.sync_connection import Connection, Stream
from cluster.request import Message
from cluster.retrieval.records import Collection, Document
from cluster.wire import proofs, public
from cluster.wire.answers import (
    Answer,
    AskOptions,
    DocumentPage,
    Retrieved,
    ServedModel,
    Upserted,
)
from cluster.wire.proofs import Proofs, ProveOptions


class Collections:
    """`client.collections`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(self, name: str) -> Collection:
        """The collection, made now unless it was there."""
        return self._connection.run(public.create_collection(name))

    def get(self, name: str) -> Collection:
        return self._connection.run(public.get_collection(name))

    def list(self) -> tuple[Collection, ...]:
        return self._connection.run(public.list_collections())

    def delete(self, name: str) -> int:
        """Returns how many documents went with it."""
        return self._connection.run(public.delete_collection(name))


class Documents:
    """`client.documents`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def upsert(self, collection: str, documents: Iterable[Document]) -> Upserted:
        """Adds or replaces documents, in batches; when it returns they are durable and searchable.

        An error leaves the batches before it stored: the same call may be made again.
        """
        parts = []
        for batch in upsert_batches(collection, documents):
            with batch.named_by_caller():
                parts.append(self._connection.run(batch.call))
        return joined(parts)

    def get(self, collection: str, id: str) -> Document:
        return self._connection.run(public.get_document(collection, id))

    def list(self, collection: str, limit: int | None = None, after: str = "") -> DocumentPage:
        """A page of documents without texts, in the byte order of their ids."""
        return self._connection.run(public.list_documents(collection, limit, after))

    def delete(self, collection: str, ids: Sequence[str]) -> int:
        """Returns how many of the ids existed."""
        return self._connection.run(public.delete_documents(collection, ids))


class Client:
    """A client of one gateway; safe to share between threads.

    `endpoint` is host:port of the gateway's gRPC port, by default `THOTH_ENDPOINT`; `api_key` is by
    default `THOTH_API_KEY`. `timeout_s` bounds every call, retries included. Every error is a
    `ThothError`.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: RetryPolicy | None = None,
    ) -> None:
        target = Target.of(endpoint, api_key, os.environ)
        self._connection = Connection(
            target, checked_timeout_s(timeout_s), retries or RetryPolicy()
        )
        self._cluster: ClusterProcess | None = None
        self.collections = Collections(self._connection)
        self.documents = Documents(self._connection)

    @classmethod
    def local(
        cls,
        config: Path | None = None,
        overrides: Mapping[str, str] | None = None,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> Self:
        """A client of a cluster of its own: one child process on free ports, stopped by `close`.

        `config` is a configuration file, `overrides` are dotted settings. Raises Unavailable when
        the cluster does not come up.
        """
        cluster = ClusterProcess.start(config, overrides or {})
        client = cls(cluster.endpoints.grpc, timeout_s=timeout_s)
        client._cluster = cluster
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection, and stops the cluster that `local` started."""
        self._connection.close()
        if self._cluster is not None:
            self._cluster.stop()

    def ask(self, question: str, **options: Unpack[AskOptions]) -> Answer:
        """One question, one answer; over documents when `collections` are named."""
        return self._chat(question_messages(question), options)

    def chat(self, messages: Sequence[Turn], **options: Unpack[AskOptions]) -> Answer:
        """The answer to a whole conversation."""
        return self._chat(to_messages(messages), options)

    def stream(self, messages: str | Sequence[Turn], **options: Unpack[AskOptions]) -> Stream:
        """The answer to a question or a conversation, event by event."""
        turns = question_messages(messages) if isinstance(messages, str) else to_messages(messages)
        timeout_s = self._timeout_s(options)
        call = public.stream_chat(turns, checked_options(options, AskOptions), timeout_s)
        return Stream(self._connection, call, timeout_s)

    def retrieve(
        self,
        query: str,
        collections: Sequence[str],
        *,
        top_k: int | None = None,
        filters: Mapping[str, str] | None = None,
    ) -> Retrieved:
        """Chunks for a query, without an answer."""
        return self._connection.run(public.retrieve(query, collections, top_k, filters))

    def models(self) -> tuple[ServedModel, ...]:
        return self._connection.run(public.list_models())

    def prove(self, text: str, **options: Unpack[ProveOptions]) -> Proofs:
        """What comes of every goal of a problem in SMT-LIB, TIP or Thoth's own language.

        Raises InvalidArgument with file, line and column for a problem that is of no use.
        """
        timeout_s = self._timeout_s(options)
        call = proofs.prove(text, checked_options(options, ProveOptions), timeout_s)
        return self._connection.collect(call, timeout_s)

    def _chat(self, messages: Sequence[Message], options: AskOptions) -> Answer:
        timeout_s = self._timeout_s(options)
        call = public.chat(messages, checked_options(options, AskOptions), timeout_s)
        return self._connection.run(call, timeout_s)

    def _timeout_s(self, options: AskOptions | ProveOptions) -> float:
        return checked_timeout_s(options.get("timeout_s", self._connection.timeout_s))

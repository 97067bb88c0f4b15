"""`thoth ingest`: files, folders and the language reference become documents of a collection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from actors.cli.console import complain, progress_bar, results, write_json
from actors.cli.options import AsJson, ConfigFile, Endpoint, Settings, settings_in_force
from actors.cli.serving import client_for
from cluster.client import Client
from cluster.documents.batches import in_batches
from cluster.documents.files import Listing, list_files, load_file
from cluster.documents.reference import load_reference
from cluster.errors import InvalidArgument, NotFound, Refused
from cluster.retrieval.records import Document

# Small enough that the bar moves.
BATCH_DOCUMENTS = 16

Paths = Annotated[list[Path] | None, typer.Argument(help="Files and folders: .txt, .md, .rst.")]
Into = Annotated[str, typer.Option("--collection", "-k", help="Made if it is not there.")]
Stdlib = Annotated[
    bool, typer.Option("--stdlib", help="Python's language reference, as help() carries it.")
]


@dataclass(slots=True)
class Tally:
    """What became of the documents. `failures` are lines for people."""

    collection: str
    num_changed: int = 0
    num_unchanged: int = 0
    num_chunks: int = 0
    num_skipped: int = 0
    failures: list[str] = field(default_factory=list)

    def failed(self, line: str) -> None:
        self.failures.append(line)
        complain(line)

    def said(self) -> str:
        return (
            f"{self.collection}: {self.num_changed} changed, {self.num_unchanged} unchanged, "
            f"{self.num_chunks} chunks, {self.num_skipped} files skipped, "
            f"{len(self.failures)} failed"
        )


def ingest(  # noqa: PLR0913, PLR0917 - one parameter per option
    paths: Paths = None,
    collection: Into = "kb",
    stdlib: Stdlib = False,
    endpoint: Endpoint = None,
    config: ConfigFile = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Put documents into a collection; a bad file is reported and the others go on."""
    in_force = settings_in_force(config, settings)
    if not paths and not stdlib:
        raise InvalidArgument("nothing to ingest: give a PATH or --stdlib", field="PATH")
    tally = Tally(collection)
    source = Source(tally, in_force.retriever.max_document_bytes)
    for path in paths or ():
        source.add_path(path)
    if stdlib:
        source.add_reference()
    with client_for(in_force, endpoint) as client:
        send(client, source, tally)
    if as_json:
        write_json(tally)
    else:
        results().print(tally.said(), markup=False, soft_wrap=True)
    if tally.failures:
        raise typer.Exit(1)


class Source:
    """Documents from several places, read one at a time; what cannot be read is tallied."""

    def __init__(self, tally: Tally, max_document_bytes: int) -> None:
        self._tally = tally
        self._max_document_bytes = max_document_bytes
        self._listings: list[Listing] = []
        self._ready: list[Document] = []

    @property
    def num_documents(self) -> int:
        return len(self._ready) + sum(len(listing.files) for listing in self._listings)

    def add_path(self, path: Path) -> None:
        try:
            listing = list_files(path)
        except Refused as error:
            self._tally.failed(error.message)
            return
        self._tally.num_skipped += len(listing.skipped)
        self._listings.append(listing)

    def add_reference(self) -> None:
        self._ready.extend(load_reference())

    def __iter__(self) -> Iterator[Document]:
        yield from self._ready
        for listing in self._listings:
            for file in listing.files:
                try:
                    yield load_file(listing.root, file, self._max_document_bytes)
                except Refused as error:
                    self._tally.failed(error.message)


def send(client: Client, source: Source, tally: Tally) -> None:
    """Upserts everything, batch by batch, with a bar."""
    client.collections.create(tally.collection)
    with progress_bar() as progress:
        task = progress.add_task(f"ingesting into {tally.collection}", total=source.num_documents)
        for batch in in_batches(source, BATCH_DOCUMENTS):
            _send_batch(client, batch, tally)
            progress.advance(task, len(batch))


def _send_batch(client: Client, batch: Sequence[Document], tally: Tally) -> None:
    """A refused batch is sent again one document at a time, to find out whose fault it is."""
    try:
        stored = client.documents.upsert(tally.collection, batch)
    except NotFound:
        raise
    except Refused as error:
        if len(batch) == 1:
            tally.failed(f"{batch[0].id}: {error.message}")
            return
        for document in batch:
            _send_batch(client, (document,), tally)
        return
    changed = sum(result.changed for result in stored.results)
    tally.num_changed += changed
    tally.num_unchanged += len(stored.results) - changed
    tally.num_chunks += sum(result.num_chunks for result in stored.results)

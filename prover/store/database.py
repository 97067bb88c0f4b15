"""The lemmas of a folder, in one SQLite file: found by the definitions that they speak of.

Many processes may read and write it at once. An entry that is damaged is passed over and named. All
together take no more than a given number of bytes of text, and what was least recently put, or put
again because a proof rests on it, leaves first: time is counted in puts, not read off a clock.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from prover.errors import Unusable
from prover.store.digests import digest
from prover.store.portable import Entry

FILE = "lemmas.sqlite3"
USUAL_BYTES = 1 << 26
_WAIT_S = 10.0  # for another process that writes
_TABLES = """
CREATE TABLE IF NOT EXISTS lemmas (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    owner TEXT NOT NULL,
    statement TEXT NOT NULL,
    key TEXT NOT NULL,
    definitions TEXT NOT NULL,
    text TEXT NOT NULL,
    sum TEXT NOT NULL,
    used INTEGER NOT NULL,
    UNIQUE (owner, statement)
);
CREATE INDEX IF NOT EXISTS by_key ON lemmas (owner, key);
CREATE INDEX IF NOT EXISTS by_use ON lemmas (used);
"""


@dataclass(frozen=True, slots=True)
class Shelf:
    """A store as it was at some time: entries with higher numbers are not seen."""

    folder: Path
    last: int
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Recollection:
    """Entries by size, then by what they say; and the statements of those that are damaged."""

    entries: tuple[Entry, ...]
    damaged: tuple[str, ...] = ()


class Store:
    """The lemmas of one owner in a folder, which others may share. Any thread may use it.

    All raise Unusable where the folder or the file in it is of no use.
    """

    def __init__(self, folder: Path, max_bytes: int = USUAL_BYTES, owner: str = "") -> None:
        self.folder, self.max_bytes, self.owner = folder, max_bytes, owner
        with self._opened() as database:
            database.executescript(_TABLES)

    def shelf(self) -> Shelf:
        """The store as it is now."""
        with self._opened() as database:
            (last,) = database.execute("SELECT COALESCE(MAX(number), 0) FROM lemmas").fetchone()
        return Shelf(self.folder, last, self.owner)

    def put(self, entries: Iterable[Entry]) -> int:
        """How many are new. One that says what another says is dropped, and the other is kept for
        longer."""
        num_new = 0
        with self._opened() as database:
            for each in entries:
                (now,) = database.execute(
                    "SELECT COALESCE(MAX(used), 0) + 1 FROM lemmas"
                ).fetchone()
                row = (each.statement, each.key, json.dumps(each.definitions), each.text)
                done = database.execute(
                    "UPDATE lemmas SET used = ? WHERE owner = ? AND statement = ?",
                    (now, self.owner, each.statement),
                )
                if done.rowcount == 0:
                    database.execute(
                        "INSERT INTO lemmas (owner, statement, key, definitions, text, sum, used)"
                        " VALUES (?, ?, ?, ?, ?, ?, ?)",
                        (self.owner, *row, digest(*row), now),
                    )
                    num_new += 1
        return num_new

    def drop(self, statements: Iterable[str]) -> None:
        """Forgets entries: those that the checker rejected, or that are damaged."""
        with self._opened() as database:
            database.executemany(
                "DELETE FROM lemmas WHERE owner = ? AND statement = ?",
                [(self.owner, each) for each in statements],
            )

    def trim(self) -> None:
        """Forgets what was least recently used, whoever owns it, until the rest is within
        `max_bytes`."""
        with self._opened() as database:
            total = 0
            rows = database.execute(
                "SELECT number, LENGTH(text) FROM lemmas ORDER BY used DESC, number DESC"
            ).fetchall()
            for number, num_bytes in rows:
                total += num_bytes
                if total > self.max_bytes:
                    database.execute("DELETE FROM lemmas WHERE number = ?", (number,))

    def num_lemmas(self) -> int:
        with self._opened() as database:
            (count,) = database.execute(
                "SELECT COUNT(*) FROM lemmas WHERE owner = ?", (self.owner,)
            ).fetchone()
        return int(count)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """A transaction, whole or not at all."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.folder / FILE, timeout=_WAIT_S)) as database:
                database.execute("PRAGMA auto_vacuum = FULL")
                database.execute("PRAGMA synchronous = NORMAL")
                with database:
                    database.execute("BEGIN IMMEDIATE")
                    yield database
        except (sqlite3.Error, OSError) as error:
            raise Unusable(f"{self.folder / FILE}: no store of lemmas: {error}") from None


def look_up(shelf: Shelf, definitions: frozenset[str], most: int) -> Recollection:
    """The entries that speak of nothing else than these definitions, the smallest ones.

    Nothing is written. Raises Unusable.
    """
    path = shelf.folder / FILE
    try:
        name = f"file:{quote(str(path))}?mode=ro"
        with closing(sqlite3.connect(name, timeout=_WAIT_S, uri=True)) as database:
            rows = list(_rows(database, shelf, definitions))
    except (sqlite3.Error, OSError) as error:
        raise Unusable(f"{path}: no store of lemmas: {error}") from None
    entries, damaged = [], []
    for row in rows:
        statement, key, spoken, text, written = map(str, row)
        if digest(statement, key, spoken, text) == written:
            entries.append(Entry(statement, key, tuple(json.loads(spoken)), text))
        else:
            damaged.append(statement)
    entries.sort(key=lambda each: (len(each.text), each.statement))
    return Recollection(tuple(entries[:most]), tuple(damaged))


def _rows(
    database: sqlite3.Connection, shelf: Shelf, definitions: frozenset[str]
) -> Iterator[Sequence[str]]:
    keys = database.execute(
        "SELECT DISTINCT key, definitions FROM lemmas WHERE owner = ? AND number <= ?",
        (shelf.owner, shelf.last),
    ).fetchall()
    for key, spoken in keys:
        if _speaks_of(spoken, definitions):
            yield from database.execute(
                "SELECT statement, key, definitions, text, sum FROM lemmas"
                " WHERE owner = ? AND key = ? AND definitions = ? AND number <= ?",
                (shelf.owner, key, spoken, shelf.last),
            )


def _speaks_of(spoken: str, definitions: frozenset[str]) -> bool:
    """Of a damaged row nothing is known: it is looked at, so that it is named."""
    try:
        return definitions.issuperset(json.loads(spoken))
    except (ValueError, TypeError):
        return True

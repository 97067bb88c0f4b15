"""Where output goes: results to stdout, everything said about them to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

_TABLE_WIDTH = 110
# Text from documents and models must not steer the terminal.
_UNPRINTABLE = dict.fromkeys((*range(32), *range(127, 160)), "\N{REPLACEMENT CHARACTER}")
_KEPT = {ord("\n"): "\n", ord("\t"): "\t"}


def results() -> Console:
    """A console on stdout; in a pipe it has no colours and room for a table's row."""
    return _console(sys.stdout)


def messages() -> Console:
    """A console on stderr."""
    return _console(sys.stderr)


def _console(stream: Any) -> Console:
    width = None if stream.isatty() else _TABLE_WIDTH
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)


def complain(line: str) -> None:
    """One line on stderr."""
    print(f"thoth: {printable(line)}", file=sys.stderr, flush=True)


def say(line: str) -> None:
    """One line on stderr about what is going on."""
    print(printable(line), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """The text without control characters other than newline and tab."""
    return text.translate(_UNPRINTABLE | _KEPT)


def plain(text: str) -> Text:
    """A cell of a table that is shown as it is, whatever brackets it has."""
    return Text(printable(" ".join(text.split())))


def write_json(value: object) -> None:
    """One line of JSON on stdout; dataclasses become objects."""
    plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    print(json.dumps(plain, default=str), flush=True)


def table(title: str, *columns: str) -> Table:
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on stderr that is only there on a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = messages()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield progress

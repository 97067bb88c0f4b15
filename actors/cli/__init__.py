"""The command `thoth`: one line for what went wrong, and an exit status that scripts can use.

0 all went well, 1 it did not, 2 the command line was wrong, 130 Ctrl+C.
"""

from __future__ import annotations

from actors.cli.app import build_app
from actors.cli.console import complain
from cluster.errors import ThothError


def main() -> int:
    """Runs the command line of this process; returns its exit status, unless typer ends it."""
    try:
        build_app()()
    except ThothError as error:
        complain(describe(error))
        return 1
    except OSError as error:
        complain(f"{error.filename or 'system'}: {error.strerror or error}")
        return 1
    return 0


def describe(error: ThothError) -> str:
    """One line: the message, and what it does not say already."""
    said = " ".join(error.message.split())
    if error.limit and error.limit not in said:
        said += f" (limit: {error.limit})"
    if error.request_id:
        said += f" [{error.request_id}]"
    return f"{said} ({error.reason})"

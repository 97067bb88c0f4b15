"""`python -m benchmarks.peers [--into DIR]`: the engines ours is measured against."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.peers.catalogue import Places
from benchmarks.peers.install import CannotInstall, install


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 when every peer is there, 1 when one cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument(
        "--into",
        type=Path,
        help="default: THOTH_PEERS, else ~/.cache/thoth/peers; say the same "
        "in THOTH_PEERS when measuring",
    )
    into: Path | None = parser.parse_args(arguments).into
    places = Places(into.expanduser().absolute()) if into else Places.standard()
    console = Console()
    try:
        install(places, console)
    except CannotInstall as error:
        console.print(str(error), markup=False)
        return 1
    console.print(f"every peer is in {places.root}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

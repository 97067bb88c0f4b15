"""An attention worker by itself: `python -m benchmarks.ports_child PATH NUM_THREADS`.

It says when its door is open, and ends with its standard input.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.attention.door import Door
from cluster.attention.server import AttentionServer
from cluster.clock import MonotonicClock


@contextmanager
def open_door(path: Path, num_threads: int) -> Iterator[AttentionServer]:
    server = AttentionServer(num_threads)
    door = Door(path, server, MonotonicClock())
    visits = threading.Thread(target=door.run)
    visits.start()
    yield server
    door.stop()
    visits.join()
    door.close()
    server.close()


def main(path: str, num_threads: str) -> None:
    with open_door(Path(path), int(num_threads)):
        print("open", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])

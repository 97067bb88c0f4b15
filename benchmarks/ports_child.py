"""An attention worker by itself: `python -m benchmarks.ports_child PATH NUM_THREADS`.

It says when its door is open, and ends with its standard input.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from cluster.attention.door import Door
from cluster.attention.server import AttentionServer
from cluster.clock import MonotonicClock


def main(path: str, num_threads: str) -> None:
    server = AttentionServer(int(num_threads))
    door = Door(Path(path), server, MonotonicClock())
    visits = threading.Thread(target=door.run)
    visits.start()
    print("open", flush=True)
    sys.stdin.read()
    door.stop()
    visits.join()
    door.close()
    server.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

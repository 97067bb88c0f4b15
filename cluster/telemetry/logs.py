"""Log lines: one format for every actor."""

from __future__ import annotations

import logging

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# Libraries that speak at every request.
_QUIET = ("httpx", "uvicorn.access", "asyncio")


def write_logs(level: str) -> None:
    """From now on this process logs to standard error; a second call only changes the level."""
    logging.basicConfig(format=FORMAT, level=level)
    logging.getLogger().setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)

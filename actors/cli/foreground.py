"""The cluster as this process: from the claim of its home until somebody says stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import IO

from actors.cli.runfile import RunFile
from actors.ray_environment import LOCAL
from actors.roles import Endpoints
from cluster.config import ThothConfig
from cluster.telemetry.logs import write_logs

OnReady = Callable[[Endpoints], None]
Serve = Callable[[ThothConfig, OnReady, threading.Event], None]


class Stop:
    """Set by SIGTERM, by Ctrl+C, or by the end of standard input; a second Ctrl+C does not wait."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.was_interrupted = False

    def listen(self) -> None:
        """Takes the signals; frameworks take them for themselves as they start, so call it again
        when they have."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def follow_input(self) -> None:
        """Stops when standard input ends: whoever held its other end is gone."""
        threading.Thread(target=self._read_to_end, name="until-eof", daemon=True).start()

    def _read_to_end(self) -> None:
        while os.read(0, 4096):
            pass
        self.event.set()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self.was_interrupted:
                raise KeyboardInterrupt
            self.was_interrupted = True
        self.event.set()


def run_cluster(config: ThothConfig, serve: Serve, on_ready: OnReady, stop: Stop) -> None:
    """Raises Refused while another cluster runs out of this home, KeyboardInterrupt after
    Ctrl+C."""
    run_file = RunFile(config.home_dir)
    run = run_file.claim(config)
    stop.listen()

    def announce(endpoints: Endpoints) -> None:
        stop.listen()
        run_file.announce(run, endpoints)
        on_ready(endpoints)

    try:
        write_logs(config.log_level)
        serve(config, announce, stop.event)
    finally:
        run_file.release(run)
    if stop.was_interrupted:
        raise KeyboardInterrupt


def on_ray(config: ThothConfig, on_ready: OnReady, stop: threading.Event) -> None:
    """Every actor in a process of its own, on a Ray of its own."""
    os.environ.update(LOCAL)
    # Seconds of imports that no other command needs, and Ray reads its environment in them.
    from actors.fresh_ray import serve_on_ray  # noqa: PLC0415

    serve_on_ray(config, on_ready, stop)


def in_this_process(config: ThothConfig, on_ready: OnReady, stop: threading.Event) -> None:
    """All actors on one event loop."""
    asyncio.run(_serve_until(config, on_ready, stop))


async def _serve_until(config: ThothConfig, on_ready: OnReady, stop: threading.Event) -> None:
    from actors.local import serve_local  # noqa: PLC0415

    serving = asyncio.create_task(serve_local(config, on_ready), name="cluster")
    stopping = asyncio.create_task(asyncio.to_thread(stop.wait), name="stop")
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.set()
        serving.cancel()
        outcome, _ = await asyncio.gather(serving, stopping, return_exceptions=True)
    if isinstance(outcome, Exception):
        raise outcome


@contextmanager
def results_apart() -> Iterator[IO[str]]:
    """The real standard output, while everything else that is written there goes to stderr:
    frameworks print, and a reader of results must not meet it."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w") as real:
        os.dup2(2, 1)
        yield real

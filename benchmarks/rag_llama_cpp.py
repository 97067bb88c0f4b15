"""llama.cpp's own server with `cache_prompt`: a slot keeps the prompt it served last, and what has
to leave a slot goes to a cache in memory, from where a later prompt may bring it back.

`device_bytes` become slots, `host_bytes` that cache. Keys and values are float16, its default. It
computes beside the driver, which only reads what it streams.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from benchmarks.peers.llama_cpp import pinned
from benchmarks.peers.protocol import EngineRefused
from benchmarks.rag_child import Cell, serve
from benchmarks.rag_clock import Ask, Event, Reuse, SkippingClock

PROGRAM = "llama-server"
# Tokens of a slot: the longest prompt with its answer.
SLOT_TOKENS = 1024
HOST = "127.0.0.1"
START_S = 60.0
REPLY_S = 1800.0
WARM_TOKENS = 64
MIB = 2**20


class LlamaServer:
    def __init__(self, cell: Cell, kv_token_bytes: int) -> None:
        self._port = _free_port()
        slots = max(1, cell.device_bytes // (kv_token_bytes * SLOT_TOKENS))
        # Ends with this process, whose group the benchmark ends too.
        self._process = subprocess.Popen(
            [
                str(Path(cell.programs) / PROGRAM),
                *("-m", cell.model, "--host", HOST, "--port", str(self._port)),
                *("-t", str(cell.threads), "-np", str(slots), "-c", str(slots * SLOT_TOKENS)),
                *("--no-kv-unified", "--cache-ram", str(cell.host_bytes // MIB)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        atexit.register(self._process.kill)
        self._events: SimpleQueue[Event | Exception] = SimpleQueue()
        self._await_ready()
        self.submit(Ask(-1, 0.0, ((1,) * WARM_TOKENS,), (), 2))
        while not any(event.is_last for event in self.step(START_S)):
            pass

    def _await_ready(self) -> None:
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            connection = HTTPConnection(HOST, self._port, timeout=START_S)
            try:
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except (OSError, HTTPException):
                pass
            finally:
                connection.close()
            time.sleep(0.1)
        raise EngineRefused(f"{PROGRAM} does not come up")

    def submit(self, ask: Ask) -> None:
        Thread(target=self._follow, args=(ask,), daemon=True).start()

    def step(self, wait_s: float) -> list[Event]:
        try:
            found = self._events.get(timeout=wait_s) if wait_s else self._events.get_nowait()
        except Empty:
            return []
        if isinstance(found, Exception):
            raise RuntimeError(f"a request failed: {found}") from found
        return [found]

    def _follow(self, ask: Ask) -> None:
        """One request, in a thread of its own, to its last line."""
        try:
            is_first = True
            for line in self._lines(ask):
                if is_first and line.get("tokens"):
                    is_first = False
                    self._events.put(Event(ask.number, is_last=False))
                if line.get("stop"):
                    self._events.put(Event(ask.number, is_last=True, reuse=reuse_of(line)))
        except (OSError, HTTPException, ValueError, KeyError) as error:
            self._events.put(error)

    def _lines(self, ask: Ask) -> Iterator[dict[str, Any]]:
        wish = {
            "prompt": ask.ids,
            "n_predict": ask.max_tokens,
            "cache_prompt": True,
            "ignore_eos": True,
            "temperature": 0.0,
            "return_tokens": True,
            "stream": True,
        }
        connection = HTTPConnection(HOST, self._port, timeout=REPLY_S)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/completion", json.dumps(wish), headers)
            reply = connection.getresponse()
            if reply.status != 200:
                raise HTTPException(f"{reply.status}: {reply.read(200)!r}")
            for line in reply:
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))
        finally:
            connection.close()


def reuse_of(line: dict[str, Any]) -> Reuse:
    """Of the last line of an answer."""
    timings = line["timings"]
    return Reuse(timings["cache_n"], 0, 0, timings["prompt_n"])


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        port: int = listening.getsockname()[1]
        return port


def load(cell: Cell, _: SkippingClock) -> tuple[str, LlamaServer]:
    """Raises EngineRefused."""
    if not os.access(Path(cell.programs) / PROGRAM, os.X_OK):
        raise EngineRefused(f"{PROGRAM} is not in {cell.programs}")
    return pinned(), LlamaServer(cell, int(cell.options["kv_token_bytes"]))


if __name__ == "__main__":
    serve(load)

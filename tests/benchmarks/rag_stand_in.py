"""A server that computes nothing, for the tests of those who start one."""

from __future__ import annotations

import os

from benchmarks.peers.protocol import EngineRefused
from benchmarks.rag_child import Cell, serve
from benchmarks.rag_clock import Ask, Event, Reuse, SkippingClock


class StandIn:
    """Ends whatever it was given, a request a step, and says on how many cores."""

    def __init__(self) -> None:
        self._waiting: list[Ask] = []

    def submit(self, ask: Ask, /) -> None:
        self._waiting.append(ask)

    def step(self, _: float, /) -> list[Event]:
        print("chatter that is no answer")
        ask = self._waiting.pop(0)
        reuse = Reuse(ask.num_tokens, 0, 0, len(os.sched_getaffinity(0)))
        return [Event(ask.number, is_last=False), Event(ask.number, is_last=True, reuse=reuse)]


def load(cell: Cell, _: SkippingClock) -> tuple[str, StandIn]:
    if cell.weights == "int3":
        raise EngineRefused("no weights of int3")
    if cell.weights == "broken":
        raise RuntimeError("out of luck")
    return "1", StandIn()


if __name__ == "__main__":
    serve(load)

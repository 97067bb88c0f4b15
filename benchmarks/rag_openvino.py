"""OpenVINO GenAI with its prefix cache: blocks of prompts stay while there is room for them.

Keys and values are u8, its default, so that the bytes of the other engines hold several times as
many tokens. It does not tell how many tokens it found.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.peers.protocol import EngineRefused
from benchmarks.rag_child import Cell, serve
from benchmarks.rag_clock import Ask, Event, SkippingClock

WARM_TOKENS = 64
# Rows of a step, and requests in it: as many as ours.
STEP_TOKENS = 512
MAX_RUNNING = 32
# Its size is told in whole gigabytes only, and in blocks whose bytes it tells once it is built.
TRIAL_BLOCKS = 64


class OpenVino:
    def __init__(self, cell: Cell) -> None:
        self._genai: Any = import_module("openvino_genai")
        self.version = self._genai.__version__
        self._tensor = import_module("openvino").Tensor
        self._ids: Any = import_module("numpy").array
        self._cell = cell
        trial = self._pipeline_of(TRIAL_BLOCKS)
        self._pipeline = trial
        self.warm()
        block_bytes = trial.get_metrics().kv_cache_size_in_bytes // TRIAL_BLOCKS
        if not block_bytes:
            raise EngineRefused("the size of its cache cannot be told")
        del trial, self._pipeline
        budget = cell.device_bytes + cell.host_bytes
        self._pipeline = self._pipeline_of(budget // block_bytes)
        self._open: dict[int, tuple[Any, int]] = {}
        self._started: set[int] = set()
        self.warm()

    def _pipeline_of(self, num_blocks: int) -> Any:
        scheduler = self._genai.SchedulerConfig()
        scheduler.num_kv_blocks = num_blocks
        scheduler.max_num_batched_tokens = STEP_TOKENS
        scheduler.max_num_seqs = MAX_RUNNING
        scheduler.enable_prefix_caching = True
        settings = {"INFERENCE_NUM_THREADS": self._cell.threads}
        return self._genai.ContinuousBatchingPipeline(self._cell.model, scheduler, "CPU", settings)

    def warm(self) -> None:
        self._open, self._started = {}, set()
        self.submit(Ask(2**31, 0.0, ((1,) * WARM_TOKENS,), (), 2))
        while self._open:
            self.step(0.0)

    def submit(self, ask: Ask) -> None:
        config = self._genai.GenerationConfig()
        config.max_new_tokens = ask.max_tokens
        config.ignore_eos = True
        config.do_sample = False
        tensor = self._tensor(self._ids([ask.ids]))
        handle = self._pipeline.add_request(ask.number, tensor, config)
        self._open[ask.number] = (handle, ask.max_tokens)

    def step(self, _: float) -> list[Event]:
        self._pipeline.step()
        events = []
        for number, (handle, left) in list(self._open.items()):
            drawn = _drawn(handle)
            if drawn and number not in self._started:
                self._started.add(number)
                events.append(Event(number, is_last=False))
            self._open[number] = (handle, left - drawn)
            if left == drawn:
                del self._open[number]
                events.append(Event(number, is_last=True))
        return events


def _drawn(handle: Any) -> int:
    """Tokens since this was asked last."""
    tokens = 0
    while handle.can_read():
        tokens += sum(len(output.generated_ids) for output in handle.read().values())
    return tokens


def load(cell: Cell, _: SkippingClock) -> tuple[str, OpenVino]:
    server = OpenVino(cell)
    return server.version, server


if __name__ == "__main__":
    serve(load)

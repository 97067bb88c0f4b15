"""Questions over real documents, end to end: what a user of `thoth ask` waits for.

One local cluster without Ray, the language reference as corpus, every question asked at each
concurrency, the concurrencies taken in turn so that a busy machine hurts both alike.

    time to first token = queue + retrieval + prefill + rest       as the gateway sees it
    client_ttft         = call to first piece of text              as the client sees it
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from benchmarks.catalogue import Scale
from benchmarks.result import Outcome, Row, Spread, Verdict
from cluster.client import AsyncClient, ClusterProcess, Delta, Finished, Timings
from cluster.documents.reference import load_reference
from cluster.telemetry.catalogue import OBJECTIVES, TIME_TO_FIRST_TOKEN_SECONDS

COLLECTION = "reference"
SEED = 0
CONCURRENCIES = (1, 4)
TOP_K = 3
# So much of the time to first token should have a name.
ACCOUNTED_FOR = 0.9

QUESTIONS = (
    "What does the with statement do?",
    "How are default parameter values of a function evaluated?",
    "When is the else clause of a for loop executed?",
    "What is the difference between is and ==?",
    "How does slicing with a negative index work?",
    "What happens when an assert statement fails?",
    "How do I define a class with a metaclass?",
    "What does yield from do inside a generator?",
    "Which types are false in a boolean context?",
    "How are names resolved in nested functions?",
    "What does the global statement change?",
    "How can a format specification align text?",
)


@dataclass(frozen=True, slots=True)
class Size:
    """How many questions, how often, and the longest answer."""

    num_questions: int
    num_rounds: int
    max_tokens: int


SIZES = {
    Scale.QUICK: Size(num_questions=3, num_rounds=1, max_tokens=16),
    Scale.FULL: Size(num_questions=len(QUESTIONS), num_rounds=1, max_tokens=32),
}


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer as the client saw it."""

    client_ttft_s: float
    total_s: float
    tokens: int
    timings: Timings


def run(scale: Scale, console: Console) -> Outcome:
    """Starts a cluster, asks, and stops it."""
    with TemporaryDirectory(prefix="thoth-bench-") as home:
        return asyncio.run(_measure(SIZES[scale], console, Path(home)))


async def _measure(size: Size, console: Console, home: Path) -> Outcome:
    questions = QUESTIONS[: size.num_questions]
    found: dict[int, list[Answered]] = {concurrency: [] for concurrency in CONCURRENCIES}
    walls: dict[int, float] = dict.fromkeys(CONCURRENCIES, 0.0)
    async with _cluster(console, home) as client:
        await _answer(client, questions[0], size.max_tokens)
        for number in range(size.num_rounds):
            for concurrency in CONCURRENCIES:
                console.print(f"round {number + 1} of {size.num_rounds}, concurrency {concurrency}")
                begun = time.perf_counter()
                found[concurrency] += await _ask_all(
                    client, questions, concurrency, size.max_tokens
                )
                walls[concurrency] += time.perf_counter() - begun
    rows = [_row(c, found[c], walls[c]) for c in CONCURRENCIES]
    return Outcome(rows, _verdicts(found[CONCURRENCIES[0]]), SEED)


@asynccontextmanager
async def _cluster(console: Console, home: Path) -> AsyncIterator[AsyncClient]:
    console.print("starting a local cluster")
    process = await asyncio.to_thread(ClusterProcess.start, None, {"home": str(home)})
    try:
        async with AsyncClient(process.endpoints.grpc) as client:
            documents = list(load_reference())
            console.print(f"ingesting {len(documents)} documents")
            await client.collections.create(COLLECTION)
            await client.documents.upsert(COLLECTION, documents)
            yield client
    finally:
        await asyncio.to_thread(process.stop)


async def _ask_all(
    client: AsyncClient, questions: Sequence[str], concurrency: int, max_tokens: int
) -> list[Answered]:
    """Keeps so many questions in flight until all are answered."""
    slots = asyncio.Semaphore(concurrency)

    async def ask(question: str) -> Answered:
        async with slots:
            return await _answer(client, question, max_tokens)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(question)) for question in questions]
    return [task.result() for task in tasks]


async def _answer(client: AsyncClient, question: str, max_tokens: int) -> Answered:
    begun = time.perf_counter()
    first_s: float | None = None
    finished: Finished | None = None
    stream = client.stream(
        question,
        collections=[COLLECTION],
        top_k=TOP_K,
        max_tokens=max_tokens,
        temperature=0.0,
        seed=SEED,
    )
    async with stream as events:
        async for event in events:
            match event:
                case Delta() if first_s is None:
                    first_s = time.perf_counter() - begun
                case Finished():
                    finished = event
    total_s = time.perf_counter() - begun
    if finished is None:
        raise RuntimeError(f"the stream ended without a last event: {question}")
    first_s = total_s if first_s is None else first_s
    return Answered(first_s, total_s, finished.usage.completion_tokens, finished.timings)


def _row(concurrency: int, answers: Sequence[Answered], wall_s: float) -> Row:
    ttft = Spread.of([a.timings.time_to_first_token_s for a in answers])
    return {
        "concurrency": concurrency,
        "answers": len(answers),
        "ttft_p10_s": ttft.p10,
        "ttft_median_s": ttft.median,
        "ttft_p90_s": ttft.p90,
        "client_ttft_median_s": Spread.of([a.client_ttft_s for a in answers]).median,
        "queue_median_s": Spread.of([a.timings.queue_s for a in answers]).median,
        "retrieval_median_s": Spread.of([a.timings.retrieval_s for a in answers]).median,
        "prefill_median_s": Spread.of([a.timings.prefill_s for a in answers]).median,
        "tokens_per_s": sum(a.tokens for a in answers) / wall_s,
        "tokens_per_s_per_answer": Spread.of([_decode_rate(a) for a in answers]).median,
    }


def _decode_rate(answer: Answered) -> float:
    """Tokens per second after the first."""
    return max(0, answer.tokens - 1) / max(1e-9, answer.total_s - answer.client_ttft_s)


def _verdicts(alone: Sequence[Answered]) -> list[Verdict]:
    """What the answers given one at a time say."""
    (promise,) = (o for o in OBJECTIVES if o.metric is TIME_TO_FIRST_TOKEN_SECONDS)
    waits = [a.timings.time_to_first_token_s for a in alone]
    kept = sum(wait <= promise.threshold for wait in waits) / len(waits)
    named = Spread.of([_named_share(a.timings) for a in alone]).median
    return [
        Verdict(
            f"{promise.ratio:.0%} of first tokens within {promise.threshold:g} s, one at a time",
            f"{kept:.0%} of {len(waits)}, slowest {max(waits):.2f} s",
            kept >= promise.ratio,
        ),
        Verdict(
            f"queue, retrieval and prefill are {ACCOUNTED_FOR:.0%} of the time to first token",
            f"{named:.1%} (median)",
            named >= ACCOUNTED_FOR,
        ),
    ]


def _named_share(timings: Timings) -> float:
    named = timings.queue_s + timings.retrieval_s + timings.prefill_s
    return named / timings.time_to_first_token_s

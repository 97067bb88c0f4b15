"""Promise (c): our logits against another implementation's, at every position of real texts.

The engine computes a text in chunks and segments through paged attention; transformers computes it
whole, once in float32 and once in float64, which serves as the truth. At every position

    |ours - truth| <= 4 * max over the text of |transformers float32 - truth|

and our most likely token may be another than the truth's only where the truth's two best logits are
closer than twice that bound: such ties are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from torch import Tensor
from transformers import AutoModelForCausalLM

from benchmarks.catalogue import Scale
from benchmarks.result import Outcome, Row, Verdict
from cluster.blocks.pool import BlockPool
from cluster.clock import MonotonicClock
from cluster.documents.reference import load_reference
from cluster.engine.assemble import assemble_engine
from cluster.engine.engine import Engine
from cluster.engine.forward import EagerForward, Model
from cluster.engine.options import Backend, EngineOptions, WeightFormat
from cluster.ids import RequestId
from cluster.kernels import kernels_available
from cluster.knowledge.cache import no_cache
from cluster.models.catalogue import resolve_model
from cluster.models.decoder import Pass
from cluster.request import Request, Sampling, TokenIds
from cluster.scheduling.iteration import IterationScheduler
from cluster.scheduling.limits import IterationLimits
from cluster.text.tokenizer import Tokenizer

SEED = 0
MODEL = "smollm2-135m-instruct"
TOLERANCE = 4.0
# (texts, tokens of the longest); lengths go down from there.
SHORTEST = 32
SIZES = {Scale.QUICK: (3, 320), Scale.FULL: (20, 2000)}
KV_BLOCKS = 160


@dataclass
class EveryRow:
    """The model, asked for the logits of all rows so that every position can be compared."""

    model: Model
    logits: list[Tensor] = field(default_factory=list)

    def begin(self, token_ids: Tensor, positions: Tensor, /) -> EveryRowPass:
        inner = self.model.begin(token_ids, positions)
        return EveryRowPass(inner, len(token_ids), self.logits)


@dataclass
class EveryRowPass:
    inner: Pass
    num_rows: int
    seen: list[Tensor]

    @property
    def num_layers(self) -> int:
        return self.inner.num_layers

    def project(self, layer: int, /) -> tuple[Tensor, Tensor, Tensor]:
        return self.inner.project(layer)

    def finish(self, layer: int, o: Tensor, /) -> None:
        self.inner.finish(layer, o)

    def logits(self, output_rows: Tensor, /) -> Tensor:
        logits = self.inner.logits(torch.arange(self.num_rows))
        self.seen.append(logits)
        return logits[output_rows]


@dataclass(frozen=True, slots=True)
class Agreement:
    """One text by one engine. Errors are largest absolute differences of a logit from the float64
    reference."""

    engine: str
    num_tokens: int
    num_segments: int
    ours: float
    theirs: float
    num_ties: int
    num_wrong: int

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


@dataclass(frozen=True, slots=True)
class OurEngine:
    """What an engine of ours runs on."""

    forward: EagerForward
    vocab_size: int


def engines(folder: Path) -> dict[str, OurEngine]:
    """One for each way of computing in float32 that this machine has."""
    kinds = {"torch, 2 threads": EngineOptions(backend=Backend.TORCH, threads=2)}
    if kernels_available():
        for threads in (1, 2):
            name = f"native, {threads} thread{'s'[: threads - 1]}"
            kinds[name] = EngineOptions(backend=Backend.NATIVE, threads=threads)
    found = {}
    for name, options in kinds.items():
        exact = replace(options, weights=WeightFormat.FLOAT32, kv_blocks=KV_BLOCKS)
        engine = assemble_engine(folder, exact, MonotonicClock()).engine
        if not isinstance(engine.forward, EagerForward):
            raise TypeError(f"{name} is not computed eagerly")
        found[name] = OurEngine(engine.forward, engine.vocab_size)
    return found


def our_logits(ours: OurEngine, segments: tuple[TokenIds, ...], step_tokens: int) -> Tensor:
    """[tokens, vocab]: the prompt through the engine, `step_tokens` rows at a time."""
    limits = IterationLimits(step_tokens, 1, 0, sum(map(len, segments)) + 1)
    every_row = EveryRow(ours.forward.model)
    engine = Engine(
        forward=replace(ours.forward, model=every_row),
        vocab_size=ours.vocab_size,
        scheduler=IterationScheduler(limits, no_cache(BlockPool(KV_BLOCKS))),
        clock=MonotonicClock(),
    )
    engine.submit(Request(RequestId("exact"), segments, Sampling(max_tokens=1), float("inf")))
    while engine.has_work:
        engine.step()
    return torch.cat(every_row.logits)


class Reference:
    """transformers' model of the same folder, in one precision."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    @torch.inference_mode()
    def logits(self, ids: TokenIds) -> Tensor:
        """[tokens, vocab] in the model's precision."""
        return torch.as_tensor(self._model(torch.tensor([ids])).logits[0])


def compare(ours: Tensor, theirs: Tensor, truth: Tensor) -> tuple[float, float, int, int]:
    """Largest errors of both, ties, and wrong tokens; all three are [tokens, vocab]."""
    our_error = float((ours.double() - truth).abs().max())
    their_error = float((theirs.double() - truth).abs().max())
    best = truth.topk(2, dim=-1)
    differs = ours.argmax(-1) != best.indices[:, 0]
    is_tie = (best.values[:, 0] - best.values[:, 1]) < 2 * TOLERANCE * their_error
    return our_error, their_error, int((differs & is_tie).sum()), int((differs & ~is_tie).sum())


def cut(ids: TokenIds, random: Random) -> tuple[TokenIds, ...]:
    """One to five segments, as documents would cut it."""
    inner = {random.randrange(1, len(ids)) for _ in range(random.randrange(5))}
    return tuple(ids[a:b] for a, b in pairwise(sorted({0, len(ids)} | inner)))


def texts(tokenizer: Tokenizer, count: int, longest: int) -> Iterator[TokenIds]:
    """Token ids of real texts: the longest topics of the language reference, cut ever shorter."""
    topics = sorted(load_reference(), key=lambda d: -len(d.text))[:count]
    for i, topic in enumerate(topics):
        length = max(SHORTEST, round(longest * (1 - i / count) ** 2))
        yield tokenizer.encode(topic.text)[:length]


def agreements(scale: Scale, cache_dir: Path) -> Iterator[Agreement]:
    """Compares text after text, each by every engine."""
    folder = resolve_model(MODEL, cache_dir)
    tokenizer = Tokenizer.from_folder(folder.path)
    ours = engines(folder.path)
    single = Reference(folder.path, torch.float32)
    double = Reference(folder.path, torch.float64)
    random = Random(SEED)
    for ids in texts(tokenizer, *SIZES[scale]):
        segments = cut(ids, random)
        theirs, truth = single.logits(ids), double.logits(ids)
        for name, engine in ours.items():
            logits = our_logits(engine, segments, step_tokens=random.choice([64, 200, 512]))
            yield Agreement(name, len(ids), len(segments), *compare(logits, theirs, truth))


def run(scale: Scale, console: Console) -> Outcome:
    """One row a text and engine."""
    rows: list[Row] = []
    found: list[Agreement] = []
    with TemporaryDirectory() as cache_dir:
        for agreement in agreements(scale, Path(cache_dir)):
            found.append(agreement)
            rows.append(
                {
                    "engine": agreement.engine,
                    "tokens": agreement.num_tokens,
                    "segments": agreement.num_segments,
                    "our_error": agreement.ours,
                    "transformers_float32_error": agreement.theirs,
                    "ratio": agreement.ratio,
                    "ties": agreement.num_ties,
                    "wrong": agreement.num_wrong,
                }
            )
            said = f"{agreement.engine}, {agreement.num_tokens} tokens: ratio {agreement.ratio:.2f}"
            console.print(said)
    return Outcome(rows=rows, verdicts=_verdicts(found), seed=SEED)


def _verdicts(found: Sequence[Agreement]) -> tuple[Verdict, ...]:
    """For each engine the worst of its texts."""
    verdicts = []
    for name in sorted({a.engine for a in found}):
        texts_of = [a for a in found if a.engine == name]
        worst = max(a.ratio for a in texts_of)
        wrong, ties = sum(a.num_wrong for a in texts_of), sum(a.num_ties for a in texts_of)
        positions = sum(a.num_tokens for a in texts_of)
        verdicts.append(
            Verdict(
                f"{name}: |logit - float64| at most {TOLERANCE:g} times transformers' float32 "
                "error, and the greedy token differs only at ties",
                f"at most {worst:.2f} times, {wrong} wrong, {ties} ties, {positions} positions "
                f"of {len(texts_of)} texts",
                worst <= TOLERANCE and wrong == 0,
            )
        )
    return tuple(verdicts)

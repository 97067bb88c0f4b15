"""Promise (c): our logits against another implementation's, at every position of real texts.

The engine computes a text in chunks and segments through paged attention; transformers computes it
whole, once in float32 and once in float64, which serves as the truth. At every position

    |ours - truth| <= 4 * max over the text of |transformers float32 - truth|

and our most likely token may be another than the truth's only where the truth's two best logits are
closer than twice that bound: such ties are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
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
from cluster.blocks.pool import BlockPool, blocks_for
from cluster.clock import MonotonicClock
from cluster.documents.reference import load_reference
from cluster.engine.engine import Attend, Engine
from cluster.engine.kv_cache import KvCache, KvShape
from cluster.ids import RequestId
from cluster.models.catalogue import resolve_model
from cluster.models.decoder import Decoder
from cluster.models.folder import load_decoder
from cluster.request import Request, Sampling, TokenIds
from cluster.scheduling.iteration import IterationLimits, IterationScheduler
from cluster.text.tokenizer import Tokenizer

SEED = 0
MODEL = "smollm2-135m-instruct"
TOLERANCE = 4.0
# (texts, tokens of the longest); lengths go down from there.
SHORTEST = 32
SIZES = {Scale.QUICK: (3, 320), Scale.FULL: (20, 2000)}


@dataclass
class EveryRow:
    """The model, asked for the logits of all rows so that every position can be compared."""

    model: Decoder
    logits: list[Tensor] = field(default_factory=list)

    def forward(
        self, token_ids: Tensor, positions: Tensor, attend: Attend, output_rows: Tensor
    ) -> Tensor:
        logits = self.model.forward(token_ids, positions, attend, torch.arange(len(token_ids)))
        self.logits.append(logits)
        return logits[output_rows]


@dataclass(frozen=True, slots=True)
class Agreement:
    """One text. Errors are largest absolute differences of a logit from the float64 reference."""

    num_tokens: int
    num_segments: int
    ours: float
    theirs: float
    num_ties: int
    num_wrong: int

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


def our_logits(model: Decoder, segments: tuple[TokenIds, ...], step_tokens: int) -> Tensor:
    """[tokens, vocab]: the prompt through the engine, `step_tokens` rows at a time."""
    num_tokens = sum(map(len, segments))
    config = model.config
    num_blocks = sum(blocks_for(len(s)) for s in segments) + 1
    limits = IterationLimits(step_tokens, 1, 0, num_tokens + 1)
    shape = KvShape(config.num_layers, config.num_kv_heads, config.head_dim)
    every_row = EveryRow(model)
    engine = Engine(
        model=every_row,
        vocab_size=config.vocab_size,
        scheduler=IterationScheduler(limits, BlockPool(num_blocks)),
        cache=KvCache(shape, num_blocks),
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


def agreements(scale: Scale, cache_dir: Path, threads: int) -> Iterator[Agreement]:
    """Compares text after text."""
    torch.set_num_threads(threads)
    folder = resolve_model(MODEL, cache_dir)
    tokenizer = Tokenizer.from_folder(folder.path)
    model = load_decoder(folder.path)
    single = Reference(folder.path, torch.float32)
    double = Reference(folder.path, torch.float64)
    random = Random(SEED)
    for ids in texts(tokenizer, *SIZES[scale]):
        segments = cut(ids, random)
        ours = our_logits(model, segments, step_tokens=random.choice([64, 200, 512]))
        found = compare(ours, single.logits(ids), double.logits(ids))
        yield Agreement(len(ids), len(segments), *found)


def run(scale: Scale, console: Console) -> Outcome:
    """One row a text."""
    rows: list[Row] = []
    found: list[Agreement] = []
    with TemporaryDirectory() as cache_dir:
        for agreement in agreements(scale, Path(cache_dir), threads=2):
            found.append(agreement)
            rows.append(
                {
                    "tokens": agreement.num_tokens,
                    "segments": agreement.num_segments,
                    "our_error": agreement.ours,
                    "transformers_float32_error": agreement.theirs,
                    "ratio": agreement.ratio,
                    "ties": agreement.num_ties,
                    "wrong": agreement.num_wrong,
                }
            )
            console.print(f"{agreement.num_tokens} tokens: ratio {agreement.ratio:.2f}")
    worst = max(a.ratio for a in found)
    positions, wrong = sum(a.num_tokens for a in found), sum(a.num_wrong for a in found)
    return Outcome(
        rows=rows,
        verdicts=(
            Verdict(
                f"|logit - float64| at most {TOLERANCE:g} times transformers' float32 error",
                f"at most {worst:.2f} times, over {positions} positions of {len(found)} texts",
                worst <= TOLERANCE,
            ),
            Verdict(
                "the greedy token differs only at ties",
                f"{wrong} wrong, {sum(a.num_ties for a in found)} ties",
                wrong == 0,
            ),
        ),
        seed=SEED,
    )

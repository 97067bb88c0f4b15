"""What int8 weights cost in quality and give in speed.

Perplexity of real texts, float32 and int8 by the same kernels, token by token: the same text under
both is a pair, so its interval is far narrower than that of either perplexity. How often both
choose the same token is printed as information, because a token that changes where two are all but
equally likely says nothing.

The aim is 1%: the same file's own quantisation to 4 bits moves perplexity by several times that,
and a user does not see less; more would be seen in benchmarks of the model. The whole interval has
to lie below.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp, sqrt
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from torch import Tensor
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from benchmarks.catalogue import Scale
from benchmarks.int8_products import Speed, kinds, read_bandwidth, speeds
from benchmarks.result import Outcome, Row, Verdict
from cluster.documents.reference import load_reference
from cluster.kernels import kernels
from cluster.models.catalogue import resolve_model
from cluster.models.folder import load_decoder
from cluster.models.native import NativeDecoder, Precision
from cluster.text.tokenizer import Tokenizer

SEED = 0
MODEL = "smollm2-135m-instruct"
THREADS = 2
# (texts of each corpus, tokens of each)
TEXTS = {Scale.QUICK: (4, 192), Scale.FULL: (20, 512)}
ROUNDS = {Scale.QUICK: 4, Scale.FULL: 20}
ROWS = (1, 8, 32, 512)
MOST_LOST = 0.01
# The half width of a 95% interval in standard errors.
Z = 1.96

REFERENCE = "Python's reference"
WIKIPEDIA = "Wikipedia (SQuAD)"


@dataclass(frozen=True, slots=True)
class Scored:
    """A text under both precisions: natural-log losses per token, and the share of tokens at which
    both would choose the same one."""

    corpus: str
    num_tokens: int
    float32: float
    int8: float
    agreement: float


@dataclass(frozen=True, slots=True)
class Change:
    """Perplexities, and by how much int8 raises it with its 95% interval: texts are the sample."""

    float32: float
    int8: float
    raised: float
    low: float
    high: float

    @classmethod
    def of(cls, texts: Sequence[Scored]) -> Change:
        """All texts are of one length, so that the mean over texts is the mean over tokens."""
        lost = [text.int8 - text.float32 for text in texts]
        half = Z * stdev(lost) / sqrt(len(lost))
        return cls(
            exp(fmean(text.float32 for text in texts)),
            exp(fmean(text.int8 for text in texts)),
            exp(fmean(lost)) - 1,
            exp(fmean(lost) - half) - 1,
            exp(fmean(lost) + half) - 1,
        )


def corpora(tokenizer: Tokenizer, count: int, length: int) -> Iterator[tuple[str, Tensor]]:
    """(corpus, token ids [length]) of the longest texts that everyone has, and of Wikipedia where
    THOTH_DATA names a folder with squad2-cs224n."""
    yield from ((REFERENCE, ids) for ids in _cut(tokenizer, _topics(), count, length))
    folder = os.environ.get("THOTH_DATA")
    file = Path(folder or "") / "squad2-cs224n" / "dev-v2.0.json"
    if folder and file.is_file():
        yield from ((WIKIPEDIA, ids) for ids in _cut(tokenizer, _articles(file), count, length))


def _topics() -> Iterator[str]:
    yield from sorted((topic.text for topic in load_reference()), key=len, reverse=True)


def _articles(file: Path) -> Iterator[str]:
    for article in json.loads(file.read_text())["data"]:
        yield "\n\n".join(paragraph["context"] for paragraph in article["paragraphs"])


def _cut(tokenizer: Tokenizer, texts: Iterator[str], count: int, length: int) -> Iterator[Tensor]:
    """Up to three pieces of a text, until there are `count`."""
    left = count
    for text in texts:
        ids = tokenizer.encode(text)
        for start in range(0, min(len(ids), 3 * length) - length + 1, length):
            if left == 0:
                return
            left -= 1
            yield torch.tensor(ids[start : start + length])


def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention over one text, the same for both precisions."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    o = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return o[0].transpose(0, 1)


def losses(model: NativeDecoder, ids: Tensor) -> tuple[float, Tensor]:
    """The mean loss of every next token, and the most likely ones [tokens - 1]."""
    rows = torch.arange(len(ids))
    logits = model.forward(ids, rows, attend, rows)[:-1]
    return float(cross_entropy(logits, ids[1:])), logits.argmax(-1)


def scored(scale: Scale, cache_dir: Path, console: Console) -> Iterator[Scored]:
    """Text after text."""
    torch.set_num_threads(THREADS)
    folder = resolve_model(MODEL, cache_dir)
    reference = load_decoder(folder.path)
    threads = kernels().Threads(THREADS)
    models = {p: NativeDecoder(reference.config, reference.weights, threads, p) for p in Precision}
    for corpus, ids in corpora(Tokenizer.from_folder(folder.path), *TEXTS[scale]):
        wide, wide_best = losses(models[Precision.FLOAT32], ids)
        narrow, narrow_best = losses(models[Precision.INT8], ids)
        agreement = float((wide_best == narrow_best).double().mean())
        console.print(f"{corpus}: loss {wide:.4f} in float32, {narrow:.4f} in int8")
        yield Scored(corpus, len(ids), wide, narrow, agreement)


def run(scale: Scale, console: Console) -> Outcome:
    """A row for each corpus, then one for each number of rows multiplied together."""
    with TemporaryDirectory() as cache_dir:
        texts = list(scored(scale, Path(cache_dir), console))
    all_kinds = kinds()
    found = {rows: speeds(all_kinds, rows, ROUNDS[scale]) for rows in ROWS}
    bandwidth = read_bandwidth(ROUNDS[scale])
    by_corpus = {text.corpus: [t for t in texts if t.corpus == text.corpus] for text in texts}
    return Outcome(
        rows=[
            *(_perplexity_row(corpus, some) for corpus, some in by_corpus.items()),
            *(_speed_row(rows, speed) for rows, speed in found.items()),
        ],
        verdicts=(_quality(texts), *_speed_verdicts(found, bandwidth)),
        seed=SEED,
    )


def _perplexity_row(corpus: str, texts: Sequence[Scored]) -> Row:
    change = Change.of(texts)
    return {
        "measured": f"perplexity, {corpus}, {len(texts)} x {texts[0].num_tokens} tokens",
        "float32": change.float32,
        "int8": change.int8,
        "torch_float32": "",
        "torch_int8": "",
    }


def _speed_row(rows: int, found: Mapping[str, Speed]) -> Row:
    return {
        "measured": f"GOP/s of one core, {rows} rows",
        **{
            name: round(found[name].operations / 1e9, 1)
            for name in ("float32", "int8", "torch_float32", "torch_int8")
        },
    }


def _quality(texts: Sequence[Scored]) -> Verdict:
    change = Change.of(texts)
    same = fmean(text.agreement for text in texts)
    return Verdict(
        f"int8 raises perplexity by at most {MOST_LOST:.0%}",
        f"{change.raised:.2%}, 95% interval {change.low:.2%} to {change.high:.2%}, over "
        f"{len(texts)} texts; {same:.1%} of the most likely tokens stay",
        change.high <= MOST_LOST,
    )


def _speed_verdicts(
    found: Mapping[int, Mapping[str, Speed]], bandwidth: float
) -> Iterator[Verdict]:
    many, one = found[max(ROWS)], found[1]
    for name, aim in (("float32", 80.0), ("int8", 140.0)):
        speed = many[name].operations / 1e9
        yield Verdict(
            f"{name}: at least {aim:g} GOP/s of one core at {max(ROWS)} rows",
            f"{speed:.0f}, torch in float32 {many['torch_float32'].operations / 1e9:.0f}",
            speed >= aim,
        )
        share = one[name].bytes_read / bandwidth
        yield Verdict(
            f"{name}: one row reads its weights at 80% of what one core reads",
            f"{share:.0%} of {bandwidth / 1e9:.1f} GB/s",
            share >= 0.8,
        )

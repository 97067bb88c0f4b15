"""Can a tenant tell from the time to its first token what another tenant has read?

A trial has two requests. Tenant A asks about a document, then somebody asks about one:

    stranger   tenant B; half of the time it is the document that A has just used
    own        tenant A itself, likewise: the control, which has to show

Every document is used in one trial only, and both halves follow a request of the same size. The
model is tiny, of seeded random weights: what is timed is whether anything was found.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file

from benchmarks.rag_numbers import auc
from cluster.clock import MonotonicClock
from cluster.engine.assemble import assemble_engine
from cluster.engine.engine import Engine
from cluster.engine.options import EngineOptions
from cluster.engine.shelves import Shelving
from cluster.ids import RequestId
from cluster.knowledge.node import Tier
from cluster.models.config import decoder_config
from cluster.models.decoder import random_tensors
from cluster.request import Request, Sampling, SegmentSource, TokenIds

DOCUMENT_TOKENS = 192
QUESTION_TOKENS = 8
KV_BLOCKS = 512
HOST_BYTES = 2**24
WARM_TRIALS = 20
VOCABULARY = 512
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@dataclass(slots=True)
class Trials:
    """Seconds to the second request's first token, by whether A had used the document."""

    used: list[float] = field(default_factory=list)
    unused: list[float] = field(default_factory=list)
    num_cached: int = 0

    @property
    def auc(self) -> float:
        """The chance that a document that was not used takes longer."""
        return auc(low=self.used, high=self.unused)


@dataclass(slots=True)
class Desk:
    """An engine that serves one request at a time."""

    engine: Engine
    random: Random
    num_asked: int = 0

    def trial(self, trials: Trials, *, tenant: bytes, is_used: bool) -> None:
        first, second = self._document(), self._document()
        self._ask(first, b"a")
        seconds, cached = self._ask(first if is_used else second, tenant)
        (trials.used if is_used else trials.unused).append(seconds)
        trials.num_cached += cached

    def _ask(self, document: TokenIds, salt: bytes) -> tuple[float, int]:
        """Seconds to the first token, and tokens that were found."""
        self.num_asked += 1
        name = SegmentSource("tenants", "-".join(map(str, document[:8])), salt=salt)
        question = self._ids(QUESTION_TOKENS)
        request = Request(
            RequestId(str(self.num_asked)),
            (document, question),
            Sampling(max_tokens=1),
            float("inf"),
            sources=(name,),
        )
        clock = self.engine.clock
        begun_s = clock.now_s()
        self.engine.submit(request)
        while True:
            report = self.engine.step()
            if report.first_tokens:
                seconds = clock.now_s() - begun_s
                break
        while self.engine.has_work:
            self.engine.step()
        return seconds, report.first_tokens[0].cached.total

    def _document(self) -> TokenIds:
        return self._ids(DOCUMENT_TOKENS)

    def _ids(self, count: int) -> TokenIds:
        return tuple(self.random.randrange(3, VOCABULARY) for _ in range(count))


@dataclass(frozen=True, slots=True)
class Told:
    """Both classes of each kind, the same number in each."""

    stranger: Trials
    own: Trials


def timed(num_trials: int, seed: int) -> Told:
    """`num_trials` of each class of each kind, in an order drawn by the seed."""
    kinds = {b"b": Trials(), b"a": Trials()}
    todo = [(tenant, used) for tenant in kinds for used in (False, True)] * num_trials
    random = Random(seed)
    random.shuffle(todo)
    with _desk(random, seed) as desk:
        for tenant, is_used in todo[:WARM_TRIALS]:
            desk.trial(Trials(), tenant=tenant, is_used=is_used)
        for tenant, is_used in todo:
            desk.trial(kinds[tenant], tenant=tenant, is_used=is_used)
    return Told(stranger=kinds[b"b"], own=kinds[b"a"])


@contextmanager
def _desk(random: Random, seed: int) -> Iterator[Desk]:
    clock = MonotonicClock()
    threads = torch.get_num_threads()
    with TemporaryDirectory(prefix="thoth-tenants-") as folder:
        shelving = Shelving(tiers=(Tier.DEVICE, Tier.HOST), host_bytes=HOST_BYTES)
        options = EngineOptions(kv_blocks=KV_BLOCKS, shelving=shelving)
        built = assemble_engine(_write_model(Path(folder), seed), options, clock)
        try:
            yield Desk(built.engine, random)
        finally:
            built.shelves.close(clock)
            torch.set_num_threads(threads)


def _write_model(folder: Path, seed: int) -> Path:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tensors = random_tensors(decoder_config(CONFIG), seed)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder

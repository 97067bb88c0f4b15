"""Traces of real services as the cache sees them: which parts a prompt begins with.

RAGPulse (arXiv 2511.12979): a week of questions to a university. A prompt is its system prompt, its
passages, and a rest that nobody else's has. The trace cuts the system prompt in three: the first
piece is one of three texts, the others change with the time, the user and the conversation. As a
template of this project has to, the stable piece comes first and the others after the passages;
`Order.SENT` leaves them where the service had them.

Mooncake (FAST'25), the conversations: a prompt is blocks of 512 tokens, each named by all that
stands before it as well.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from benchmarks.result import CannotRun
from cluster.knowledge.keys import KEY_BYTES, NodeKey, chain
from cluster.request import SegmentSource

FINGERPRINT = b"cache-sim"
TEMPLATE = "trace"
MOONCAKE_BLOCK_TOKENS = 512


class Order(StrEnum):
    """In which order a prompt's documents stand."""

    RETRIEVAL = "retrieval"
    CANONICAL = "canonical"  # by id
    SENT = "sent"  # as retrieved, behind the whole of the system prompt


@dataclass(frozen=True, slots=True)
class Part:
    """A leading segment of a prompt: what a node of the tree would be."""

    key: NodeKey
    source: SegmentSource
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """`rest_tokens` are always computed."""

    parts: tuple[Part, ...]
    rest_tokens: int

    @property
    def num_tokens(self) -> int:
        return sum(part.num_tokens for part in self.parts) + self.rest_tokens


@dataclass(frozen=True, slots=True)
class Trace:
    """Prompts in the order of their arrival."""

    name: str
    order: Order
    prompts: tuple[Prompt, ...]

    def head(self, count: int) -> Trace:
        return Trace(self.name, self.order, self.prompts[:count])


def data_folder(name: str) -> Path:
    """Raises CannotRun where THOTH_DATA has no such folder."""
    root = os.environ.get("THOTH_DATA")
    folder = Path(root or "") / name
    if not root or not folder.is_dir():
        raise CannotRun(f"THOTH_DATA does not name a folder with {name}")
    return folder


def mooncake(folder: Path) -> Trace:
    """The last block of a prompt may be partial."""
    prompts = []
    for line in _lines(folder / "conversation_trace.jsonl"):
        left, parts = line["input_length"], []
        for block_id in line["hash_ids"]:
            num_tokens = min(left, MOONCAKE_BLOCK_TOKENS)
            key = NodeKey(block_id.to_bytes(KEY_BYTES, "little"))
            parts.append(Part(key, SegmentSource("mooncake", str(block_id)), num_tokens))
            left -= num_tokens
        prompts.append(Prompt(tuple(parts), left))
    return Trace("mooncake", Order.SENT, tuple(prompts))


@dataclass(frozen=True, slots=True)
class RagPulse:
    """The requests by time, and how long each component is."""

    requests: tuple[Mapping[str, list[int]], ...]
    num_tokens: Mapping[str, Mapping[int, int]]

    @classmethod
    def read(cls, folder: Path) -> RagPulse:
        lengths = {
            "sys_prompt": _lengths(folder / "1_sys_prompt.jsonl", "sys_prompt_id"),
            "passages_ids": _lengths(folder / "2_passages.jsonl", "passage_id"),
            "history": _lengths(folder / "3_history.jsonl", "history_id"),
            "user_input": _lengths(folder / "4_user_input.jsonl", "user_input_id"),
            "web_search": _lengths(folder / "5_web_search.jsonl", "web_search_id"),
        }
        lines = sorted(_lines(folder / "0_trace.jsonl"), key=lambda line: float(line["timestamp"]))
        return cls(tuple(line["hash_ids"] for line in lines), lengths)

    def trace(self, order: Order) -> Trace:
        prompts = tuple(self._prompt(request, order) for request in self.requests)
        return Trace("ragpulse", order, prompts)

    def _prompt(self, request: Mapping[str, list[int]], order: Order) -> Prompt:
        num_stable = len(request["sys_prompt"]) if order is Order.SENT else 1
        system, volatile = request["sys_prompt"][:num_stable], request["sys_prompt"][num_stable:]
        passages = request["passages_ids"]
        if order is Order.CANONICAL:
            passages = sorted(passages)
        rest = self._sum("sys_prompt", volatile)
        rest += sum(
            self._sum(kind, request[kind]) for kind in ("history", "user_input", "web_search")
        )
        return Prompt(self._parts(system, passages), rest)

    def _parts(self, system: list[int], passages: list[int]) -> tuple[Part, ...]:
        """A piece of text stands for itself: its id is hashed in place of its tokens."""
        sources = [SegmentSource("system")] * len(system)
        sources += [SegmentSource("passages", str(passage)) for passage in passages]
        lengths = [self.num_tokens["sys_prompt"][piece] for piece in system]
        lengths += [self.num_tokens["passages_ids"][passage] for passage in passages]
        keys = chain(FINGERPRINT, TEMPLATE, [(each,) for each in system + passages], sources)
        return tuple(map(Part, keys, sources, lengths))

    def _sum(self, kind: str, ids: list[int]) -> int:
        return sum(self.num_tokens[kind][each] for each in ids)


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())


def _lengths(file: Path, name: str) -> dict[int, int]:
    return {line[name]: line["token_length"] for line in _lines(file)}

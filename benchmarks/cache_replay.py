"""A trace through the cache, one request after the other, without a model.

A request does what a worker's does: it walks down as far as the tree goes, computes what comes
next, leaves it behind, and lets go. The cache is the product's own; here is only who asks it.

    bound   the same prompts, and a cache in which everything stays
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.cache_traces import FINGERPRINT, Part, Prompt
from cluster.blocks.pool import BLOCK_TOKENS, BlockPool, blocks_for
from cluster.ids import BlockId
from cluster.knowledge.cache import CacheOptions, KnowledgeCache, Visit, Way
from cluster.knowledge.keys import NodeKey
from cluster.knowledge.node import Node, Tier
from cluster.knowledge.prefill_cost import PrefillCost, TransferCost

# Seconds per token lie on the line through the two speeds of `GRID`, also beyond.
FIRST_TOKEN_S = 1 / 400
MORE_PER_CACHED_TOKEN_S = (1 / 300 - 1 / 400) / 2048
GRID = "SmolLM2-135M on one core: 400 tokens/s, 300 behind 2,048"
ALPHAS = (0, 2048, 8192, 32768, 131072)
BETAS = (16, 128, 512, 2048)
# Its 16 tokens are 0.7 MiB of float32; 5 GB/s within a machine, 1 GB/s from its disk.
TRANSFER = TransferCost(host_block_s=1.5e-4, disk_block_s=7.5e-4)


def token_s(num_cached: float) -> float:
    return FIRST_TOKEN_S + MORE_PER_CACHED_TOKEN_S * num_cached


def prefill_cost() -> PrefillCost:
    """A chunk's tokens each cost what the middle one does."""
    return PrefillCost(
        ALPHAS,
        BETAS,
        [[beta * token_s(alpha + beta / 2) for beta in BETAS] for alpha in ALPHAS],
    )


@dataclass(slots=True)
class Totals:
    """Tokens of prompts, and where they were found. `num_refused` prompts are longer than the
    device; they are computed, and leave nothing behind. `seconds` of prefill that was done."""

    prompt_tokens: int = 0
    document_tokens: int = 0
    found: Counter[Tier] = field(default_factory=Counter)
    found_documents: int = 0
    num_refused: int = 0
    seconds: float = 0.0
    whole_seconds: float = 0.0

    @property
    def reused(self) -> float:
        return self.found.total() / self.prompt_tokens

    @property
    def documents_reused(self) -> float:
        """Without the system prompts."""
        return self.found_documents / self.document_tokens

    @property
    def work_ratio(self) -> float:
        """Prefill seconds without a cache over those with it."""
        return self.whole_seconds / self.seconds

    @property
    def work_saved(self) -> float:
        """The share of the prefill seconds that was not spent."""
        return 1 - self.seconds / self.whole_seconds


class Costs:
    """T(alpha, beta), each computed once."""

    def __init__(self, prefill: PrefillCost) -> None:
        self.prefill = prefill
        self._known: dict[tuple[int, int], float] = {}

    def __call__(self, alpha: int, beta: int) -> float:
        known = self._known.get((alpha, beta))
        if known is None:
            known = self._known[alpha, beta] = self.prefill.prefill_s(alpha, beta)
        return known


def cache_of(options: CacheOptions, device_tokens: int) -> KnowledgeCache:
    pool = BlockPool(device_tokens // BLOCK_TOKENS)
    return KnowledgeCache(options, FINGERPRINT, pool, prefill_cost(), TRANSFER)


class Replay:
    """Requests and their cache."""

    def __init__(self, cache: KnowledgeCache, costs: Costs) -> None:
        self.cache = cache
        self.costs = costs
        self.totals = Totals()

    def run(self, prompts: Sequence[Prompt]) -> Totals:
        for prompt in prompts:
            self.serve(prompt)
        return self.totals

    def serve(self, prompt: Prompt) -> None:
        """One request from its arrival to its end."""
        num_blocks = sum(blocks_for(part.num_tokens) for part in prompt.parts)
        num_blocks += blocks_for(prompt.rest_tokens)
        if num_blocks > self.cache.pool.num_blocks:
            self.totals.num_refused += 1
            count(self.totals, self.costs, prompt, [])
            return
        nodes, tiers = self._walk(prompt)
        seconds = count(self.totals, self.costs, prompt, tiers)
        self._compute(prompt, nodes, seconds)
        self.cache.unpin(nodes)
        self.cache.take_moves()

    def _walk(self, prompt: Prompt) -> tuple[list[Node], list[Tier]]:
        """Nodes that are there, pinned and on the device, and where they were."""
        cache, nodes, tiers, alpha = self.cache, list[Node](), list[Tier](), 0
        for part in prompt.parts:
            node = cache.find(part.key)
            way = Way.COMPUTE if node is None else cache.way(node, Visit(alpha))
            if node is None or node.nearest is None or way is Way.COMPUTE:
                break
            tiers.append(node.nearest)
            cache.pin(node)
            if way is Way.LOAD:
                cache.make_room(node.num_blocks)
                cache.load(node)
            cache.accessed(node)
            nodes.append(node)
            alpha += part.num_tokens
        return nodes, tiers

    def _compute(self, prompt: Prompt, nodes: list[Node], seconds: float) -> None:
        """What was not there enters the tree, pinned; the rest's blocks are free again."""
        missing = prompt.parts[len(nodes) :]
        beta = sum(part.num_tokens for part in missing) + prompt.rest_tokens
        needed = [blocks_for(part.num_tokens) for part in missing]
        num_rest = blocks_for(prompt.rest_tokens)
        self.cache.make_room(sum(needed) + num_rest)
        rest = self.cache.pool.allocate(num_rest)
        for part, num_blocks in zip(missing, needed, strict=True):
            blocks = self.cache.pool.allocate(num_blocks)
            nodes.append(self._keep(nodes[-1] if nodes else None, part, blocks, seconds / beta))
        self.cache.pool.release(rest)

    def _keep(
        self, parent: Node | None, part: Part, blocks: tuple[BlockId, ...], cost_s: float
    ) -> Node:
        node = self.cache.insert(parent, part.key, part.source, part.num_tokens, blocks)
        if node.device != blocks:
            self.cache.pool.release(blocks)
        self.cache.pin(node)
        node.history.missed(cost_s)
        self.cache.accessed(node)
        return node


def count(totals: Totals, costs: Costs, prompt: Prompt, tiers: Sequence[Tier]) -> float:
    """The leading parts were found in these tiers. The seconds of computing the others."""
    for part, tier in zip(prompt.parts, tiers, strict=False):
        totals.found[tier] += part.num_tokens
        totals.found_documents += part.num_tokens if part.source.document_id else 0
    num_tokens = prompt.num_tokens
    alpha = sum(part.num_tokens for part in prompt.parts[: len(tiers)])
    seconds = costs(alpha, num_tokens - alpha)
    totals.prompt_tokens += num_tokens
    totals.document_tokens += sum(p.num_tokens for p in prompt.parts if p.source.document_id)
    totals.seconds += seconds
    totals.whole_seconds += costs(0, num_tokens)
    return seconds


@dataclass(frozen=True, slots=True)
class Bound:
    """What no cache can exceed that reuses whole prefixes alone."""

    totals: Totals
    uses: Counter[NodeKey]

    @property
    def used_once(self) -> float:
        """The share of nodes that are never used again."""
        return sum(times == 1 for times in self.uses.values()) / len(self.uses)


def bound(prompts: Sequence[Prompt], costs: Costs) -> Bound:
    totals, uses = Totals(), Counter[NodeKey]()
    for prompt in prompts:
        # A part is there only when all before it are: its key says so.
        num_found = sum(part.key in uses for part in prompt.parts)
        count(totals, costs, prompt, [Tier.DEVICE] * num_found)
        uses.update(part.key for part in prompt.parts)
    return Bound(totals, uses)

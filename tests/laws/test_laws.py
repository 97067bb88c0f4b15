"""Each law of the library holds of the functions that it models: both are computed and compared."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import unwrap
from types import CodeType, FrameType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.attention.reference import ReferenceAttention, ReferenceBackend
from cluster.attention.split import split_attention
from cluster.attention.spread import SpreadAttention
from cluster.attention.state import merge
from cluster.blocks.pool import BlockPool
from cluster.engine.engine import Engine
from cluster.engine.forward import EagerForward
from cluster.engine.step import lay_out
from cluster.engine.tiers.copies import Copies, Rows
from cluster.engine.tiers.moves import Mover
from cluster.knowledge.cache import KnowledgeCache
from cluster.knowledge.device_tier import DeviceTier, subtree
from cluster.knowledge.keys import chain
from cluster.knowledge.tree import KnowledgeTree
from cluster.scheduling.draft import chunk_of
from cluster.scheduling.iteration import IterationScheduler
from cluster.scheduling.reuse import keep_computed, to_keep, walk
from cluster.scheduling.sequence import Sequence
from prover.library import laws, text
from tests.laws import computing, documents, memories, pools, states
from tests.laws.cases import Bound
from tests.laws.models import Model

STATE = "a key: its number; a state: `State`, equal up to float32's rounding"
CONTEXT = "a state: the context whose keys and values there are; the logits' bits are equal"
ROWS = "a row: a prompt; what comes out: the bits of its logits"
GREEDY = "tokens: ids; `next`: what an engine of its own draws after them"
PATHS = "a path: a request's documents; a forest: the tree's nodes, siblings in their order"
WANTED = "a forest: nodes that lie there; `wanted`: a set of documents"
ORDER = "a list: documents in the order in which they make room"
FREE = "a list: blocks in the order in which they are given out"
COPIES = "a content: the bits of a node's blocks in each layer"
WRITES = "a memory: what each block holds; the last write of a block counts"

attend, fold = ReferenceAttention.attend, ReferenceBackend.fold
across = SpreadAttention.attend
step, compute = Engine.step, EagerForward.compute
evict, drop, load = DeviceTier.evict, DeviceTier.drop, DeviceTier.load
accessed, make_room = KnowledgeCache.accessed, KnowledgeCache.make_room
allocate, release = BlockPool.allocate, BlockPool.release
move = Mover.begin

BINDINGS = (
    Bound("attention.split", (attend, merge), STATE, states.split),
    Bound("attention.streaming", (fold, attend), STATE, states.streaming),
    Bound("attention.paged", (attend,), STATE, states.paged),
    Bound("attention.folded_on", (split_attention, across, fold), STATE, states.folded_on),
    Bound("prefill.prefix", (step, walk, keep_computed), CONTEXT, computing.prefix),
    Bound("prefill.cut", (chunk_of, Sequence.computed), CONTEXT, computing.cut),
    Bound("prefill.chunked", (step, IterationScheduler.plan), CONTEXT, computing.chunked),
    Bound("batching.batched", (lay_out, compute), ROWS, computing.batched),
    Bound("batching.two_batches", (lay_out, compute), ROWS, computing.two_batches),
    Bound("decoding.resumed", (step, Engine.submit), GREEDY, computing.resumed),
    Bound("keys.prefix", (chain,), PATHS, documents.prefix),
    Bound("keys.as_many", (chain,), PATHS, documents.as_many),
    Bound("tree.found", (keep_computed, walk), PATHS, documents.found),
    Bound("tree.inserted_once", (keep_computed,), PATHS, documents.inserted_once),
    Bound("tree.reused_or_computed", (walk, to_keep), PATHS, documents.reused_or_computed),
    Bound("tree.grown", (keep_computed, to_keep), PATHS, documents.grown),
    Bound("tree.nothing_lost", (keep_computed, walk), PATHS, documents.nothing_lost),
    Bound("tree.guessed_right", (keep_computed, walk), PATHS, documents.guessed_right),
    Bound("tree.planted", (KnowledgeTree.attach, subtree), PATHS, documents.planted),
    Bound("tree.one_path", (keep_computed, subtree), PATHS, documents.one_path),
    Bound("tree.flattened", (subtree,), PATHS, documents.flattened),
    Bound("tree.counted", (subtree,), PATHS, documents.counted),
    Bound("eviction.in_order", (evict, subtree), WANTED, documents.in_order),
    Bound("eviction.kept_once", (evict, subtree), WANTED, documents.kept_once),
    Bound("eviction.evicted_once", (evict,), WANTED, documents.evicted_once),
    Bound("eviction.pruned_once", (drop,), WANTED, documents.pruned_once),
    Bound("eviction.found_before", (drop, walk), WANTED, documents.found_before),
    Bound("eviction.still_found", (drop, walk), WANTED, documents.still_found),
    Bound("recency.order_kept", (accessed, drop, make_room), ORDER, documents.order_kept),
    Bound("recency.used_again", (accessed, make_room), ORDER, documents.used_again),
    Bound("recency.last_use", (accessed, make_room), ORDER, documents.last_use),
    Bound("recency.left", (accessed, drop, make_room), ORDER, documents.left),
    Bound("blocks.on_top", (release, allocate), FREE, pools.on_top),
    Bound("blocks.given_again", (release, allocate), FREE, pools.given_again),
    Bound("blocks.as_before", (release, allocate), FREE, pools.as_before),
    Bound("blocks.taken_back", (allocate, release), FREE, pools.taken_back),
    Bound("swap.restored", (evict, load, move), COPIES, memories.restored),
    Bound("swap.faithful_out", (evict, move), COPIES, memories.faithful_out),
    Bound("swap.faithful_again", (evict, load, move), COPIES, memories.faithful_again),
    Bound("swap.copied_once", (evict, load, move), COPIES, memories.copied_once),
    Bound("copies.untouched", (Rows.of, Copies.copy), WRITES, memories.untouched),
    Bound("copies.together", (Rows.of, Copies.copy), WRITES, memories.together),
)
# What no function of the cluster does.
OF_THE_MODEL_ALONE = {"decoding.accepted"}
LAWS = {law.name: law for law in laws()}


@pytest.mark.parametrize("bound", BINDINGS, ids=lambda bound: bound.law)
def test_a_law_holds_of_the_functions_that_it_models(bound: Bound) -> None:
    called: set[CodeType] = set()

    @settings(max_examples=30, deadline=None)
    @given(data=st.data())
    def holds(data: st.DataObject) -> None:
        with _noting(called):
            case = bound.draw(data)
        case.hold(LAWS[bound.law])

    holds()
    assert [each.__name__ for each in bound.models if unwrap(each).__code__ not in called] == []


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_what_is_assumed_of_merge_holds_up_to_rounding(data: st.DataObject) -> None:
    attention = states.draw_attention(data)
    program = LAWS["attention.split"].program
    values = {name: attention.attend(states.draw_keys(data, 20)) for name in "abc"}
    assert len(program.assumptions) == 3
    for assumption in program.assumptions:
        left, right = Model(program, attention.meaning).sides(assumption, values)
        assert states.close(left, right)
        if len(assumption.variables) == 1:
            assert torch.equal(left.o, right.o), "the unit is exact"
            assert torch.equal(left.lse, right.lse), "the unit is exact"


@contextmanager
def _noting(called: set[CodeType]) -> Iterator[None]:
    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)


def test_every_law_is_bound_or_said_to_be_of_the_model_alone() -> None:
    bound = {each.law for each in BINDINGS}
    assert len(bound) == len(BINDINGS)
    assert bound <= LAWS.keys()
    assert LAWS.keys() - bound == OF_THE_MODEL_ALONE
    for law in OF_THE_MODEL_ALONE:
        theory, _, goal = law.partition(".")
        before, _, _ = text(theory).decode().partition(f"prove {goal}:")
        _, _, said = before.rpartition("\n\n")
        assert "a law of the model alone" in " ".join(said.replace("#", " ").split())

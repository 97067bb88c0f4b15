"""A context in two memories has the bits of one that lies in one memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from cluster.attention.backend import AttentionBackend
from cluster.attention.native import NativeBackend
from cluster.attention.plan import Run
from cluster.attention.port import LocalPort
from cluster.attention.reference import ReferenceBackend
from cluster.attention.split import Fold, split_attention
from cluster.attention.spread import SpreadAttention
from cluster.attention.state import State
from cluster.blocks.segment import Home, SegmentView
from cluster.errors import InvariantBroken
from cluster.ids import BlockId
from cluster.kernels import kernels, kernels_available
from tests.attention.steps import Laid, Rows, Step, steps


def backends() -> list[AttentionBackend]:
    found: list[AttentionBackend] = [ReferenceBackend()]
    if kernels_available():
        found += [NativeBackend(kernels().Threads(count)) for count in (1, 2)]
    return found


def scattered(runs: Sequence[Run], random: Random) -> list[Run]:
    """The same segments, each in one of the memories."""
    homes: dict[tuple[int, ...], Home] = {}

    def moved(segment: SegmentView) -> SegmentView:
        home = homes.setdefault(segment.blocks, random.choice(list(Home)))
        return segment._replace(home=home)

    return [replace(run, segments=tuple(map(moved, run.segments))) for run in runs]


class TwoMemories:
    """What lies in one is NaN in the other."""

    def __init__(self, laid: Laid, runs: Sequence[Run], backend: AttentionBackend) -> None:
        self.backend, self.runs, self.q = backend, runs, laid.q
        on_host = self._blocks(Home.HOST, Home.STREAMED)
        self.k, self.v = (self._without(each, on_host) for each in (laid.k, laid.v))
        host = [self._without(each, self._blocks(Home.DEVICE)) for each in (laid.k, laid.v)]
        port = LocalPort(backend, [host[0]] * 3, [host[1]] * 3)
        self.ports = {Home.HOST: port, Home.STREAMED: port}

    def _blocks(self, *homes: Home) -> list[BlockId]:
        segments = (segment for run in self.runs for segment in run.segments)
        return [b for segment in segments if segment.home in homes for b in segment.blocks]

    def _without(self, blocks: Tensor, others: list[BlockId]) -> Tensor:
        kept = blocks.clone()
        kept[others] = torch.nan
        return kept

    def attend(self, layer: int) -> Tensor:
        plan = split_attention(self.runs)
        with SpreadAttention(plan, self.backend, self.ports) as attention:
            return attention.attend(layer, self.q, self.k, self.v)


@settings(max_examples=60)
@given(step=steps(), seed=st.integers(0, 99), number=st.integers(0, len(backends()) - 1))
def test_where_a_segment_lies_changes_no_bit(step: Step, seed: int, number: int) -> None:
    backend = backends()[number]
    # Torch's products of other widths are not the same in every batch.
    assume(number or step.shape[2] % 16 == 0)
    laid = Laid(step, backend)
    runs = scattered(laid.runs, Random(seed))
    assert torch.equal(TwoMemories(laid, runs, backend).attend(seed % 3), laid.attend(backend).o)


def views(*homes: Home) -> tuple[SegmentView, ...]:
    return tuple(SegmentView((BlockId(i),), 5 + i, home) for i, home in enumerate(homes))


def test_only_the_beginning_of_a_context_is_folded_where_it_lies() -> None:
    host, device = Home.HOST, Home.DEVICE
    plan = split_attention([Run(0, 2, views(host, host, device, host, host, device))])
    assert {home: part.num_parts for home, part in plan.parts.items()} == {device: 4, host: 6}
    assert plan.fold is not None
    assert plan.fold.rows.tolist() == [0, 1]
    # The device's four come first: two rows of each of its segments.
    assert plan.fold.parts.tolist() == [4, 0, 6, 8, 2, 5, 1, 7, 9, 3]
    first = plan.parts[host].attention
    assert first.run_offsets.diff().tolist() == [2, 2, 1, 1, 1, 1]


def test_a_row_that_lies_on_the_device_alone_is_left_whole() -> None:
    runs = [Run(0, 1, views(Home.DEVICE)), Run(1, 1, views(Home.HOST, Home.DEVICE))]
    plan = split_attention(runs)
    assert plan.whole.run_rows.tolist() == [[0, 1]]
    assert plan.parts[Home.HOST].queries.tolist() == [1]
    assert split_attention(runs[:1]).fold is None


def test_rows_share_the_reading_of_a_segment_on_the_host() -> None:
    shared, own = views(Home.HOST, Home.DEVICE)
    runs = [Run(i, 1, (shared, own._replace(blocks=(BlockId(7 + i),)))) for i in range(8)]
    host = split_attention(runs).parts[Home.HOST].attention
    assert host.segment_tokens.tolist() == [shared.num_tokens]


@pytest.mark.skipif(not kernels_available(), reason="the kernels were not built")
@pytest.mark.parametrize(
    ("fold", "said"),
    [
        (([9], [0, 1], [0]), "rows has 9 of 2"),
        (([0], [0, 1], [3]), "parts has 3 of 3"),
        (([0], [0, 1], [-1]), "parts has -1 of 3"),
        (([0], [0, 2], [0]), "offsets does not cut parts"),
        (([0, 1], [0, 2, 1], [0]), "offsets does not cut parts"),
        (([0], [1, 1], [0]), "offsets does not cut parts"),
    ],
)
def test_a_fold_of_what_is_not_there_is_refused(
    fold: tuple[list[int], list[int], list[int]], said: str
) -> None:
    arrays = Fold(*(torch.tensor(each, dtype=torch.int32) for each in fold))
    parts, rows = (State(torch.zeros(n, 2, 16), torch.zeros(n, 2)) for n in (3, 2))
    with pytest.raises(ValueError, match=said):
        NativeBackend(kernels().Threads(1)).fold(arrays, parts, rows)


def test_a_local_port_answers_what_was_posted() -> None:
    backend = ReferenceBackend()
    laid = Laid(Step((4, 2, 16), torch.float32, (30,), (Rows((0,), 20, 2),), seed=0), backend)
    runs = [
        replace(run, segments=tuple(s._replace(home=Home.HOST) for s in run.segments))
        for run in laid.runs
    ]
    port = LocalPort(backend, [laid.k], [laid.v])
    exchange = port.prepare(split_attention(runs).parts[Home.HOST])
    with pytest.raises(InvariantBroken, match="was not posted"):
        exchange.collect(0)
    exchange.post(0, laid.q)
    with pytest.raises(InvariantBroken, match="before another was collected"):
        exchange.post(0, laid.q)
    assert torch.equal(exchange.collect(0).o, laid.attend(backend).o)
    exchange.close()


def test_a_memory_grows_where_the_last_segment_lies() -> None:
    host, device = Home.HOST, Home.DEVICE
    read = split_attention([Run(0, 1, views(host, device))]).parts
    assert (read[host].is_growing, read[device].is_growing) == (False, True)
    written = split_attention([Run(0, 1, views(device, host)), Run(1, 1, views(host, device))])
    assert written.parts[host].is_growing

"""What a request says of its prompt, and what came of it, is the same on the other side."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.gateway.generation import FirstToken as GatewayFirstToken
from actors.gateway.generation import _first
from cluster.errors import InvalidArgument
from cluster.ids import RequestId
from cluster.request import CachedTokens, Request, Sampling, SegmentSource, Usage, WorkerLoad
from cluster.scheduling.plan import FirstToken
from cluster.wire.generation import (
    cached_from_pb,
    cached_to_pb,
    first_token_to_pb,
    load_from_pb,
    load_to_pb,
    request_from_pb,
    request_to_pb,
    source_from_pb,
    source_to_pb,
    usage_from_pb,
    usage_to_pb,
)
from protos.thoth.v1 import types_pb2, worker_pb2

COUNTS = st.integers(0, 2**64 - 1)
CACHED = st.builds(CachedTokens, device=COUNTS, host=COUNTS, disk=COUNTS)
SOURCES = st.builds(
    SegmentSource,
    collection=st.text(max_size=8),
    document_id=st.text(max_size=8),
    chunk=st.integers(0, 2**32 - 1),
    version=COUNTS,
    salt=st.binary(max_size=64),
)
SEGMENTS = st.lists(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4).map(tuple))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """The leading segments have sources, and the last has none."""
    segments = (*draw(SEGMENTS), (1,))
    num_sources = draw(st.integers(0, len(segments) - 1))
    sources = draw(st.lists(SOURCES, min_size=num_sources, max_size=num_sources))
    template = draw(st.text(max_size=8))
    return Request(RequestId("r"), segments, Sampling(), 12.5, (3, 4), tuple(sources), template)


@given(requests())
def test_a_request_keeps_its_segments_their_sources_and_its_template(request: Request) -> None:
    sent = request_to_pb(request, timeout_s=2.5).SerializeToString()
    assert request_from_pb(worker_pb2.GenerateRequest.FromString(sent), now_s=10.0) == request


@given(SOURCES)
def test_a_source_is_the_same_on_the_other_side(source: SegmentSource) -> None:
    sent = source_to_pb(source).SerializeToString()
    assert source_from_pb(worker_pb2.SegmentSource.FromString(sent)) == source


def test_a_salt_that_is_too_long_is_refused_before_a_key_is_made() -> None:
    request = request_to_pb(
        Request(
            RequestId("r"), ((1,), (2,)), Sampling(), 0.0, (), (SegmentSource(salt=bytes(65)),)
        ),
        timeout_s=1.0,
    )
    with pytest.raises(InvalidArgument, match="a salt has 65 bytes") as refused:
        request_from_pb(request, 0.0)
    assert (refused.value.field, refused.value.limit) == ("salt", "at most 64 bytes")


def test_a_source_that_says_nothing_is_still_a_source() -> None:
    request = Request(RequestId("r"), ((1,), (2,)), Sampling(), 0.0, sources=(SegmentSource(),))
    assert request_from_pb(request_to_pb(request, 0.0), 0.0).sources == (SegmentSource(),)


def test_a_source_behind_a_segment_without_one_is_not_used() -> None:
    message = worker_pb2.GenerateRequest(
        segments=[
            worker_pb2.Segment(token_ids=[1], source=worker_pb2.SegmentSource(document_id="a")),
            worker_pb2.Segment(token_ids=[2]),
            worker_pb2.Segment(token_ids=[3], source=worker_pb2.SegmentSource(document_id="b")),
            worker_pb2.Segment(token_ids=[4]),
        ]
    )
    request = request_from_pb(message, 0.0)
    assert [source.document_id for source in request.sources] == ["a"]
    assert request.segments == ((1,), (2,), (3,), (4,))


@given(CACHED)
def test_cached_tokens_keep_their_tiers(cached: CachedTokens) -> None:
    sent = cached_to_pb(cached).SerializeToString()
    assert cached_from_pb(types_pb2.CachedTokens.FromString(sent)) == cached
    assert cached.total == cached.device + cached.host + cached.disk


@given(CACHED, COUNTS, COUNTS)
def test_usage_keeps_what_was_cached(cached: CachedTokens, prompt: int, completion: int) -> None:
    usage = Usage(prompt, completion, cached)
    sent = usage_to_pb(usage).SerializeToString()
    assert usage_from_pb(types_pb2.Usage.FromString(sent)) == usage


def test_usage_of_a_server_that_says_nothing_of_a_cache_is_all_computed() -> None:
    assert usage_from_pb(types_pb2.Usage(prompt_tokens=7)).cached == CachedTokens()


@given(CACHED, COUNTS)
def test_a_first_token_says_what_was_cached_and_computed(cached: CachedTokens, rest: int) -> None:
    message = first_token_to_pb(FirstToken(RequestId("r"), 0.25, 0.5, cached, rest))
    message = worker_pb2.FirstToken.FromString(message.SerializeToString())
    assert message.computed_tokens == rest
    assert _first(message) == GatewayFirstToken(0.25, 0.5, cached)


def test_a_load_keeps_every_number() -> None:
    load = WorkerLoad(*range(1, 13))
    assert load_from_pb(load_to_pb(load)) == load

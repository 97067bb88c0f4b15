"""A worker's knowledge tree is the same on the other side, without its salts."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cluster.knowledge.keys import NodeKey
from cluster.knowledge.node import Tier
from cluster.knowledge.snapshot import CacheSnapshot, NodeStatus, TierStatus
from cluster.request import SegmentSource
from cluster.wire.cache import snapshot_from_pb, snapshot_to_pb
from protos.thoth.v1 import worker_pb2

SMALL, COUNTS = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
NUMBERS = st.floats(0, allow_nan=False)
KEYS = st.binary(min_size=16, max_size=16).map(NodeKey)
NODES = st.builds(
    NodeStatus,
    key=KEYS,
    parent=st.none() | KEYS,
    source=st.builds(SegmentSource, st.text(), st.text(), SMALL, COUNTS),
    num_tokens=SMALL,
    tiers=st.lists(st.sampled_from(Tier), unique=True).map(tuple),
    frequency=NUMBERS,
    priority=NUMBERS,
    pins=SMALL,
)
TIERS = st.builds(TierStatus, st.sampled_from(Tier), COUNTS, COUNTS, COUNTS)
SNAPSHOTS = st.builds(
    CacheSnapshot,
    policy=st.text(),
    num_nodes=COUNTS,
    nodes=st.lists(NODES, max_size=4).map(tuple),
    tiers=st.lists(TIERS, max_size=3).map(tuple),
)


def sent(snapshot: CacheSnapshot) -> CacheSnapshot:
    message = snapshot_to_pb(snapshot).SerializeToString()
    return snapshot_from_pb(worker_pb2.DescribeCacheResponse.FromString(message))


@given(SNAPSHOTS)
def test_a_snapshot_is_the_same_on_the_other_side(snapshot: CacheSnapshot) -> None:
    assert sent(snapshot) == snapshot


@given(NODES, st.binary(min_size=1, max_size=64))
def test_no_salt_is_shown(node: NodeStatus, salt: bytes) -> None:
    salted = replace(node, source=replace(node.source, salt=salt))
    snapshot = CacheSnapshot("lru", 1, (salted,), ())
    assert sent(snapshot).nodes == (node,)

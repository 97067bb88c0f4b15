"""What a worker's knowledge tree looks like, on the wire and back."""

from __future__ import annotations

from cluster.knowledge.keys import NodeKey
from cluster.knowledge.node import Tier
from cluster.knowledge.snapshot import CacheSnapshot, NodeStatus, TierStatus
from cluster.request import SegmentSource
from protos.thoth.v1 import worker_pb2

_TIERS = {tier.label: tier for tier in Tier}


def snapshot_to_pb(snapshot: CacheSnapshot) -> worker_pb2.DescribeCacheResponse:
    """Without salts: whoever looks needs none."""
    return worker_pb2.DescribeCacheResponse(
        nodes=map(_node_to_pb, snapshot.nodes),
        tiers=map(_tier_to_pb, snapshot.tiers),
        num_nodes=snapshot.num_nodes,
        policy=snapshot.policy,
    )


def snapshot_from_pb(message: worker_pb2.DescribeCacheResponse) -> CacheSnapshot:
    return CacheSnapshot(
        policy=message.policy,
        num_nodes=message.num_nodes,
        nodes=tuple(map(_node_from_pb, message.nodes)),
        tiers=tuple(map(_tier_from_pb, message.tiers)),
    )


def _node_to_pb(node: NodeStatus) -> worker_pb2.CacheNode:
    return worker_pb2.CacheNode(
        key=node.key.hex(),
        parent=node.parent.hex() if node.parent is not None else "",
        collection=node.source.collection,
        document_id=node.source.document_id,
        chunk=node.source.chunk,
        version=node.source.version,
        tokens=node.num_tokens,
        tiers=[tier.label for tier in node.tiers],
        frequency=node.frequency,
        priority=node.priority,
        pins=node.pins,
    )


def _node_from_pb(message: worker_pb2.CacheNode) -> NodeStatus:
    return NodeStatus(
        key=NodeKey(bytes.fromhex(message.key)),
        parent=NodeKey(bytes.fromhex(message.parent)) if message.parent else None,
        source=SegmentSource(
            collection=message.collection,
            document_id=message.document_id,
            chunk=message.chunk,
            version=message.version,
        ),
        num_tokens=message.tokens,
        tiers=tuple(_TIERS[tier] for tier in message.tiers),
        frequency=message.frequency,
        priority=message.priority,
        pins=message.pins,
    )


def _tier_to_pb(tier: TierStatus) -> worker_pb2.CacheTier:
    return worker_pb2.CacheTier(
        tier=tier.tier.label,
        blocks=tier.num_blocks,
        free_blocks=tier.num_free,
        cached_blocks=tier.num_cached,
    )


def _tier_from_pb(message: worker_pb2.CacheTier) -> TierStatus:
    return TierStatus(
        _TIERS[message.tier], message.blocks, message.free_blocks, message.cached_blocks
    )

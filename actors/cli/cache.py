"""`thoth cache show`: which documents' keys and values each worker keeps, and where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from actors.cli.console import plain, results, table, write_json
from actors.cli.options import AsJson, ConfigFile, Settings, settings_in_force
from actors.cli.status import Supervisor, seats_of
from actors.cli.workers import asked, ready_workers
from cluster.knowledge.keys import NodeKey
from cluster.knowledge.snapshot import CacheSnapshot, NodeStatus
from cluster.scheduling.membership import Member
from cluster.wire.cache import snapshot_from_pb
from protos.thoth.v1 import worker_pb2

_TIMEOUT_S = 30.0

MaxNodes = Annotated[
    int, typer.Option("--max-nodes", min=1, max=100_000, help="Most nodes shown of each worker.")
]


@dataclass(frozen=True, slots=True)
class WorkerCache:
    """What a worker keeps."""

    worker: str
    cache: CacheSnapshot


def build_app() -> typer.Typer:
    app = typer.Typer(help="Documents' keys and values that workers keep.", no_args_is_help=True)
    # A callback makes `show` a command of its own, though it is the only one.
    app.callback()(lambda: None)
    app.command()(show)
    return app


def show(
    max_nodes: MaxNodes = 200,
    config: ConfigFile = None,
    settings: Settings = None,
    supervisor: Supervisor = None,
    as_json: AsJson = False,
) -> None:
    """Show the knowledge tree of every worker: what is used now, then the most valuable nodes."""
    seats = seats_of(settings_in_force(config, settings), supervisor)
    workers = ready_workers(seat.member for seat in seats)
    found = [WorkerCache(worker.name, _ask(worker, max_nodes)) for worker in workers]
    if as_json:
        write_json([_plain(worker) for worker in found])
        return
    for worker in found:
        _show(worker)


def _ask(worker: Member, max_nodes: int) -> CacheSnapshot:
    request = worker_pb2.DescribeCacheRequest(max_nodes=max_nodes)
    return snapshot_from_pb(asked(worker, lambda s: s.DescribeCache(request, timeout=_TIMEOUT_S)))


def _plain(worker: WorkerCache) -> dict[str, object]:
    cache = worker.cache
    return {
        "worker": worker.worker,
        "policy": cache.policy,
        "num_nodes": cache.num_nodes,
        "tiers": [
            {
                "tier": tier.tier.label,
                "blocks": tier.num_blocks,
                "free": tier.num_free,
                "cached": tier.num_cached,
            }
            for tier in cache.tiers
        ],
        "nodes": [_plain_node(node) for node in cache.nodes],
    }


def _plain_node(node: NodeStatus) -> dict[str, object]:
    return {
        "key": node.key.hex(),
        "parent": node.parent.hex() if node.parent is not None else None,
        "collection": node.source.collection,
        "document_id": node.source.document_id,
        "chunk": node.source.chunk,
        "version": node.source.version,
        "tokens": node.num_tokens,
        "tiers": [tier.label for tier in node.tiers],
        "frequency": node.frequency,
        "priority": node.priority,
        "pins": node.pins,
    }


def _show(worker: WorkerCache) -> None:
    console, cache = results(), worker.cache
    console.print(_tiers(worker))
    if cache.nodes:
        console.print(_tree(cache))
    console.print(f"{len(cache.nodes)} of {cache.num_nodes} nodes, policy {cache.policy}")


def _tiers(worker: WorkerCache) -> Table:
    rows = table(worker.worker, "tier", "blocks", "free", "documents", "share")
    for tier in worker.cache.tiers:
        share = tier.num_cached / tier.num_blocks
        numbers = (str(tier.num_blocks), str(tier.num_free), str(tier.num_cached))
        rows.add_row(tier.tier.label, *numbers, f"{share:.0%}")
    return rows


def _tree(cache: CacheSnapshot) -> Tree:
    """Parents come before their children."""
    root = Tree("documents, each in the context of those above it")
    branches: dict[NodeKey, Tree] = {}
    for node in cache.nodes:
        above = root if node.parent is None else branches[node.parent]
        branches[node.key] = above.add(_line(node))
    return root


def _line(node: NodeStatus) -> Text:
    source = node.source
    name = f"{source.collection}/{source.document_id}" if source.document_id else "system prompt"
    line = plain(name)
    return line.append(f"  {', '.join(_facts(node))}", style="dim")


def _facts(node: NodeStatus) -> Iterator[str]:
    if node.source.document_id:
        yield f"passage {node.source.chunk} of version {node.source.version}"
    yield f"{node.num_tokens} tokens"
    yield "+".join(tier.label for tier in node.tiers)
    yield f"frequency {node.frequency:.1f}"
    yield f"priority {node.priority:.3g}"
    if node.pins:
        yield f"{node.pins} using it"

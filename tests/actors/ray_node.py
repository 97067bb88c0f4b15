"""A further node of a Ray on the loopback, with one of a resource and nothing else:
`python -m tests.actors.ray_node ADDRESS RESOURCE`.

`ray start` would have the node listen on another interface. It ends with its standard input.
"""

from __future__ import annotations

import sys

from ray._private.node import Node
from ray._private.parameter import RayParams

_STORE_BYTES = 100 * 2**20


def main(address: str, resource: str) -> None:
    parameters = RayParams(
        gcs_address=address,
        node_ip_address="127.0.0.1",
        num_cpus=0,
        num_gpus=0,
        resources={resource: 1},
        object_store_memory=_STORE_BYTES,
        min_worker_port=0,
        max_worker_port=0,
        node_manager_port=0,
    )
    Node(parameters, head=False, shutdown_at_exit=True, spawn_reaper=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])

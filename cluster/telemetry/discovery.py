"""The list in which Prometheus finds the actors: its `file_sd` format, written by the supervisor.

    [{"targets": ["127.0.0.1:41234"],
      "labels": {"actor": "gpu_worker-0", "actor_role": "gpu_worker", "node": "..."}}]

The targets' labels are `actor` and `actor_role`, because some metrics have a label `role`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from cluster.scheduling.membership import Member

FILE_NAME = "prometheus-targets.json"


def targets(members: Sequence[Member]) -> list[dict[str, object]]:
    """One group per member that serves metrics, in the order of names so that files compare."""
    return [
        {
            "targets": [member.metrics_address],
            "labels": {
                "actor": member.name,
                "actor_role": str(member.role),
                "node": member.node,
            },
        }
        for member in sorted(members, key=lambda m: m.name)
        if member.metrics_address
    ]


def write_targets(path: Path, members: Sequence[Member]) -> None:
    """Replaces the file in one step, so that no reader ever sees half of it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    draft.write_text(json.dumps(targets(members), indent=2) + "\n")
    draft.replace(path)

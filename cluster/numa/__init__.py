"""What this machine is made of, and how a process keeps to one part of it.

read_topology -> Topology -> a host -> plan_cores -> CorePlan -> pin_to -> Pinning
"""

from cluster.numa.cgroups import Limits, read_limits
from cluster.numa.cores import Core, CorePlan, plan_cores
from cluster.numa.gpus import Gpu
from cluster.numa.kernel_files import format_ids
from cluster.numa.pinning import Pinning, pin_to, unpinned_after
from cluster.numa.topology import Node, Topology, read_topology

__all__ = [
    "Core",
    "CorePlan",
    "Gpu",
    "Limits",
    "Node",
    "Pinning",
    "Topology",
    "format_ids",
    "pin_to",
    "plan_cores",
    "read_limits",
    "read_topology",
    "unpinned_after",
]

"""Whether the compiled kernels are here. The one place that imports `thoth_kernels`.

The package installs without a compiler and then computes with torch, slower: who builds an engine
asks here first, and says which it is.
"""

from __future__ import annotations

from types import ModuleType

from cluster.errors import Unsupported

_kernels: ModuleType | None = None
_reason = ""
try:
    import thoth_kernels
except ImportError as error:
    _reason = str(error)
else:
    _kernels = thoth_kernels


def kernels_available() -> bool:
    return _kernels is not None


def why_not() -> str:
    """What the import said; empty when the kernels are here."""
    return _reason


def kernels() -> ModuleType:
    """The module `thoth_kernels`. Raises Unsupported, saying why, when it was not built."""
    if _kernels is None:
        raise Unsupported(
            f"the compiled kernels are not installed ({_reason}): install a C++20 compiler and "
            "install the package again, or choose the torch backend",
            field="gpu_worker.backend",
            limit="torch",
        )
    return _kernels

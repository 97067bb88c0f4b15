"""Computes attention over the memory of engines on the same host, for as many as there are.

The work is done by a loop of `thoth_kernels` in one thread of this process, beside its helpers, and
never takes the interpreter's lock.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from cluster.attention.shared_memory import ChannelEnds
from cluster.errors import InvalidArgument, InvariantBroken, Unavailable
from cluster.kernels import kernels

if TYPE_CHECKING:
    import thoth_kernels

# For so long after its last work the loop looks for more: a layer comes after the next within a
# millisecond or two, and the processors of a server have nothing else to do.
SPIN_US = 2000


@dataclass(frozen=True, slots=True)
class ServerCounts:
    """Since the start: plans laid out, layers computed, parts of those, requests answered with an
    error, and the seconds that all of it took."""

    steps: int
    layers: int
    parts: int
    errors: int
    busy_s: float


class AttentionServer:
    """At work from its creation on; any thread may call it."""

    def __init__(self, num_threads: int, *, spin_us: int = SPIN_US) -> None:
        self._server: thoth_kernels.ChannelServer = kernels().ChannelServer(
            kernels().Threads(num_threads), spin_us
        )
        self._thread = threading.Thread(
            target=self._server.run, name="attention-server", daemon=True
        )
        self._thread.start()

    def add(self, ends: ChannelEnds, k: Sequence[Tensor], v: Sequence[Tensor]) -> int:
        """Serves a client from now on; the channel's number. The descriptors are copied. `k` and
        `v` are its blocks, layer by layer, which are only read, and held until `remove`.

        Raises InvalidArgument for what is no channel or does not fit the blocks, Unavailable when
        the system gives no more descriptors or memory.
        """
        try:
            return self._server.add(
                memory=ends.memory,
                work_bell=ends.work_bell,
                answer_bell=ends.answer_bell,
                **asdict(ends.sizes),
                k=list(k),
                v=list(v),
            )
        except ValueError as error:
            raise InvalidArgument(f"not served: {error}", field="channel") from error
        except RuntimeError as error:
            raise Unavailable(f"not served: {error}") from error

    def remove(self, number: int) -> None:
        """Waits for the layer that is computed. Then nothing of the client is touched any more."""
        try:
            self._server.remove(number)
        except ValueError as error:
            raise InvariantBroken(str(error)) from error

    @property
    def counts(self) -> ServerCounts:
        server = self._server
        return ServerCounts(
            server.num_steps,
            server.num_layers,
            server.num_parts,
            server.num_errors,
            server.busy_s,
        )

    def close(self) -> None:
        self._server.stop()
        self._thread.join()

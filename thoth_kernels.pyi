"""Attention and linear layers on the CPU, compiled from `kernels/`.

Arrays are torch tensors on the cpu, contiguous where nothing else is said. Everything raises
ValueError for an array of another type, shape or layout, naming the argument.
"""

from torch import Tensor

def isa() -> str:
    """The instruction set in use: "baseline" or "x86-64-v3"."""

def prefer_baseline(on: bool) -> None:
    """Run the baseline kernels, whatever the machine has: for tests and comparisons."""

class Threads:
    """Threads of one engine; used by one caller at a time."""

    def __init__(self, count: int) -> None: ...
    @property
    def count(self) -> int: ...

class AttentionPlan:
    """What a step's rows attend, for all of its layers and one caller; the arrays are those of
    `cluster.attention.plan.AttentionPlan`, int32, and are copied."""

    def __init__(
        self,
        run_rows: Tensor,
        run_offsets: Tensor,
        run_segments: Tensor,
        segment_tokens: Tensor,
        segment_offsets: Tensor,
        block_ids: Tensor,
    ) -> None: ...
    def attend(
        self,
        q: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        o: Tensor,
        lse: Tensor,
        threads: Threads,
    ) -> None:
        """Writes the rows' states to `o` [rows, heads, head_dim] and `lse` [rows, heads]."""

def append(
    k_cache: Tensor, v_cache: Tensor, slots: Tensor, k: Tensor, v: Tensor, threads: Threads
) -> None:
    """Writes `k` and `v` [rows, kv_heads, head_dim] into `slots` int64 [rows] of the blocks."""

def fold_parts(
    rows: Tensor,
    offsets: Tensor,
    parts: Tensor,
    part_o: Tensor,
    part_lse: Tensor,
    o: Tensor,
    lse: Tensor,
    threads: Threads,
) -> None:
    """Folds states of parts, [parts, heads, head_dim] and [parts, heads], to those of the rows that
    `rows` names, which are written to `o` and `lse`; the first three are those of
    `cluster.attention.split.Fold`, int32."""

def probe_read(data: Tensor, threads: Threads) -> float:
    """Bytes a second of one pass over a float32 array."""

def probe_multiply_add(rounds: int, threads: Threads) -> float:
    """Floating-point operations a second without memory."""

class Linear:
    """A linear layer on packed weights; the precision is "float32" or "int8"."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, precision: str, threads: Threads
    ) -> None:
        """`weight` float32 [outputs, inputs] and `bias` [outputs] are copied."""

    def apply(self, x: Tensor, out: Tensor) -> None:
        """out [rows, outputs] = x [rows, inputs] @ weight.T + bias, both float32."""

    @property
    def num_bytes(self) -> int: ...

class Step:
    """The rows of one step on their way through a decoder: `project` and `finish` of every layer in
    order, then `logits`."""

    def project(self, layer: int) -> None:
        """Writes q, k and v of the layer, q and k turned."""

    def finish(self, layer: int, o: Tensor) -> None:
        """Takes what attention made of them, float32 [rows, heads, head_dim]."""

    def logits(self, rows: Tensor, out: Tensor) -> None:
        """`rows` int64 [n] of this step, `out` float32 [n, vocab]."""

class Decoder:
    """A decoder but for its attention; used by one caller at a time."""

    def __init__(
        self,
        *,
        hidden: int,
        inner: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        epsilon: float,
        precision: str,
        embedding: Tensor,
        head: Tensor | None,
        norm: Tensor,
        threads: Threads,
    ) -> None:
        """`embedding` and `head` are float32 [vocab, hidden]; no head is the embedding."""

    def add_layer(
        self,
        *,
        attention_norm: Tensor,
        qkv: Tensor,
        qkv_bias: Tensor | None,
        q_norm: Tensor | None,
        k_norm: Tensor | None,
        output: Tensor,
        mlp_norm: Tensor,
        gate_up: Tensor,
        down: Tensor,
    ) -> None:
        """The next layer, float32, matrices as [outputs, inputs]; all are copied."""

    def begin(
        self,
        token_ids: Tensor,
        cos: Tensor,
        sin: Tensor,
        x: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
    ) -> Step:
        """The arrays of a step: `token_ids` int64 [rows], cos and sin float32 [rows, head_dim / 2].

        The step works in x [rows, hidden], q [rows, heads, head_dim], k and v [rows, kv_heads,
        head_dim], all float32.
        """

    @property
    def num_bytes(self) -> int:
        """What the matrices take."""

class PeerLost(Exception):
    """A channel's peer is dead, late or wrong, and the channel closed for good."""

class ChannelClient:
    """The engine's end of a channel of shared memory, which it creates; used by one caller at a
    time. `begin`, `post` and `collect` raise PeerLost."""

    def __init__(
        self,
        *,
        lanes: int,
        heads: int,
        head_dim: int,
        max_queries: int,
        max_parts: int,
        plan_numbers: int,
        peer: int,
        spin_us: int,
    ) -> None:
        """`peer` is a pidfd, which is copied. Raises RuntimeError when there is no memory."""

    @property
    def memory(self) -> int:
        """Its descriptor, which stays the channel's, as those of the bells do."""

    @property
    def work_bell(self) -> int: ...
    @property
    def answer_bell(self) -> int: ...
    @property
    def num_ignored(self) -> int:
        """Answers that were not to what was posted last."""

    def begin(
        self,
        *,
        lane: int,
        num_queries: int,
        rows: Tensor,
        run_rows: Tensor,
        run_offsets: Tensor,
        run_segments: Tensor,
        segment_tokens: Tensor,
        segment_offsets: Tensor,
        block_ids: Tensor,
        timeout_s: float,
    ) -> None:
        """`rows` int32 [parts], the others those of an AttentionPlan; all are copied. Waits for the
        answer to what was posted in the lane and never collected."""

    def post(self, lane: int, layer: int, q: Tensor) -> None:
        """`q` float32 [num_queries, heads, head_dim] is copied."""

    def collect(self, lane: int, layer: int, o: Tensor, lse: Tensor, timeout_s: float) -> None:
        """Writes o [parts, heads, head_dim] and lse [parts, heads], float32."""

    def busy_s(self, lane: int) -> float:
        """What the server computed for the layers that were collected since the lane's `begin`."""

    def close(self) -> None: ...

class ChannelServer:
    """Serves the channels of any number of clients on its threads. All but `run` may be called by
    any thread, at any time."""

    def __init__(self, threads: Threads, spin_us: int) -> None: ...
    def add(
        self,
        *,
        memory: int,
        work_bell: int,
        answer_bell: int,
        lanes: int,
        heads: int,
        head_dim: int,
        max_queries: int,
        max_parts: int,
        plan_numbers: int,
        k: list[Tensor],
        v: list[Tensor],
    ) -> int:
        """The channel's number. Descriptors are copied; `k` and `v` are held until `remove`.

        Raises RuntimeError when the system gives no more.
        """

    def remove(self, number: int) -> None:
        """After it neither the channel nor its keys and values are touched any more."""

    def run(self) -> None:
        """Until `stop`, without the interpreter's lock."""

    def stop(self) -> None:
        """For good."""

    @property
    def num_steps(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def num_parts(self) -> int: ...
    @property
    def num_errors(self) -> int: ...
    @property
    def busy_s(self) -> float: ...

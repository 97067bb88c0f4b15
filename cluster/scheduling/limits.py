"""What a worker takes in: its limits, and whether a request can ever run within them."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.blocks.pool import BLOCK_TOKENS, blocks_for
from cluster.errors import InvalidArgument
from cluster.request import Request


@dataclass(frozen=True, slots=True)
class IterationLimits:
    """`step_tokens` rows per step, `max_running` requests in it, `max_waiting` behind it."""

    step_tokens: int
    max_running: int
    max_waiting: int
    context_tokens: int

    def __post_init__(self) -> None:
        if self.step_tokens < self.max_running:
            raise InvalidArgument(
                f"step_tokens {self.step_tokens} is less than max_running {self.max_running}: "
                "a decode would wait for a step with room",
                field="gpu_worker.step_tokens",
                limit=f"at least {self.max_running}",
            )


@dataclass(frozen=True, slots=True)
class Room:
    """Blocks that one request may have of the device, and of the host beside it."""

    device_blocks: int
    host_blocks: int = 0


def check_fits(request: Request, limits: IterationLimits, room: Room, num_shared: int = 0) -> None:
    """What can never run is refused at the door, with both numbers. The first `num_shared` segments
    lie on the device, and so does all that follows, or else all of that on the host."""
    if not request.segments or not all(request.segments):
        raise InvalidArgument(
            "a prompt has at least one segment, none of them empty", field="segments"
        )
    if request.sampling.max_tokens <= len(request.output_ids):
        raise InvalidArgument(
            f"max_tokens is {request.sampling.max_tokens}, and {len(request.output_ids)} are there",
            field="max_tokens",
            limit=f"more than {len(request.output_ids)}",
        )
    if len(request.sources) >= len(request.segments):
        raise InvalidArgument(
            f"{len(request.sources)} of {len(request.segments)} segments have a source",
            field="segments",
            limit="the last segment has none",
        )
    num_prompt, max_tokens = request.num_prompt_tokens, request.sampling.max_tokens
    if num_prompt + max_tokens > limits.context_tokens:
        raise InvalidArgument(
            f"{num_prompt} prompt tokens and max_tokens {max_tokens} exceed the context of "
            f"{limits.context_tokens} tokens",
            field="messages",
            limit=f"{limits.context_tokens} tokens",
        )
    lengths = [*map(len, request.segments)]
    lengths[-1] += max_tokens
    blocks = [*map(blocks_for, lengths)]
    needed, shared = sum(blocks), sum(blocks[:num_shared])
    fits_beside = shared <= room.device_blocks and needed - shared <= room.host_blocks
    if needed > room.device_blocks and not fits_beside:
        beside = f" and {room.host_blocks} of the host's" if room.host_blocks else ""
        raise InvalidArgument(
            f"{num_prompt} prompt tokens and max_tokens {max_tokens} need {needed} KV blocks of "
            f"{BLOCK_TOKENS} tokens; the worker has {room.device_blocks}{beside}",
            field="messages",
            limit=f"{room.device_blocks} blocks",
        )

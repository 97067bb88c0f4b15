"""`adaptive`: the plans of `gpu_only` as long as there is room, and beyond it what the costs say.

    the device is full   what is left of prompts is spread over steps
                         the head of the queue begins on the host, if rows per second grow by it
                         the youngest is paged out to the host, if that is cheaper than to compute
                         it again
    every step           rows of the host join where the device hides them, the longest unserved
                         first; the last prompt's chunk is cut where that makes more rows a second
    there is room again  the oldest is paged in, if nobody waits or the host does not keep up

Beside prompts that are spread only the rows of answers count: what is left of a prompt comes
anyway.
Nobody on the host goes without a row for more than `progress_steps` steps. What the costs say of
the host is doubted when it was not measured for long while requests wait: then it is probed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.blocks.pool import blocks_for
from cluster.blocks.segment import Home
from cluster.scheduling.balance import Balance, Rates
from cluster.scheduling.draft import Draft, total
from cluster.scheduling.joining import LEAST_CHUNK, Joining
from cluster.scheduling.limits import IterationLimits
from cluster.scheduling.offload import Offload
from cluster.scheduling.oldest_first import OldestFirst, due_rows, fits_device
from cluster.scheduling.requests import Requests
from cluster.scheduling.reuse import blocks_beyond, own_blocks
from cluster.scheduling.sequence import Sequence
from cluster.scheduling.stages import Work, keys_of

# The host is used where it brings more rows a second by this share: who comes there is slower, and
# moving there and back has its price.
WORTH_SHARE = 0.05
# Of numbers whose rates are level, within this share, the largest is best: nobody comes and goes.
LEVEL_SHARE = 0.02
# What the best number on the host is, is asked again after so many steps.
ASKED_AGAIN = 16
# Whoever has come to a host that keeps up stays for so many steps.
LEAST_STAY = 8
# Whoever is paged out is thought to stay for so many steps, until there is room again.
LONG_STAY = 256
# How long prompts and answers are remembered: what a step counts in the next.
MEMORY = 0.99
PRIOR_ROWS = 64.0
# Of the device's blocks, what stays free for those that grow when somebody begins or is paged in.
GROWTH_SHARE = 0.05
# Of the device's blocks: with no more of them free, and somebody waiting, prompts are spread over
# so many steps.
NEARLY_FULL = 0.25
SPREAD_STEPS = 4
# Spreading has to save this share of the linear operators' seconds.
SPREAD_SHARE = 0.05


@dataclass(slots=True)
class Adaptive:
    requests: Requests
    limits: IterationLimits
    offload: Offload
    _oldest_first: OldestFirst = field(init=False)
    _joining: Joining = field(init=False)
    # How many on the host are best, once it was asked, what was said then, and steps since.
    _most_there: int | None = field(init=False, default=None)
    _said: str = field(init=False, default="")
    _asked: int = field(init=False, default=0)
    # Of recent steps: rows that decode, steps with prompts, and the work of those.
    _decoded: float = field(init=False, default=0.0)
    _prompt_steps: float = field(init=False, default=0.0)
    _prompt_rows: float = field(init=False, default=0.0)
    _prompt_keys: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._oldest_first = OldestFirst(self.requests, self.limits, self)
        self._joining = Joining(self.offload)

    def fill(self, draft: Draft) -> None:
        self.offload.costs.doubt(bool(self.requests.waiting))
        self._asked += 1
        if self._asked >= ASKED_AGAIN:
            self._most_there = None
        self._page_in()
        draft.reserved = due_rows(self.requests, self.offload)
        draft.prompt_rows = self._spread()
        self._oldest_first.fill(draft)
        if draft.parked:
            self._joining.join(draft)
        self._remember(draft)

    def _spread(self) -> int | None:
        """Prompt rows of this step; None: as many as it has room for.

        While others wait for room as many prompts come as answers end. Each computed at once would
        leave the steps between them fewer rows than the weights that they read are worth; where
        that costs more than it saves, what is left of prompts is shared out over steps, the more a
        step the more is left.
        """
        running, waiting, pool = self.requests.running, self.requests.waiting, self.requests.pool
        if not waiting or self.requests.cache.num_available > NEARLY_FULL * pool.num_blocks:
            return None
        left = sum(s.num_remaining for s in running if not s.is_decoding)
        left += waiting[0].num_remaining
        return max(LEAST_CHUNK, left // SPREAD_STEPS) if self._is_worth_spreading(left) else None

    def _is_worth_spreading(self, left: int) -> bool:
        """Whether the linear operators take less for as many steps, each with its share of them,
        than for one with all that it has room for and others with none."""
        linear, running = self.offload.costs.linear, self.requests.running
        decoding = sum(s.is_decoding and s.home is Home.DEVICE for s in running)
        at_once = min(left, max(0, self.limits.step_tokens - decoding))
        once_s = linear.at(decoding + at_once) + (SPREAD_STEPS - 1) * linear.at(decoding)
        spread_s = SPREAD_STEPS * linear.at(decoding + at_once // SPREAD_STEPS)
        return spread_s < (1.0 - SPREAD_SHARE) * once_s

    def _remember(self, draft: Draft) -> None:
        chunks = [entry for entry in draft.first if entry.rows > 1]
        num_decoded = len(draft.first) + len(draft.second) - len(chunks)
        prompts = total(chunks)
        self._decoded = MEMORY * self._decoded + num_decoded
        self._prompt_steps = MEMORY * self._prompt_steps + bool(chunks)
        self._prompt_rows = MEMORY * self._prompt_rows + prompts.rows
        self._prompt_keys = MEMORY * self._prompt_keys + prompts.prefill_keys

    def _usual_prompts(self, sequence: Sequence) -> tuple[float, Work]:
        """Steps with prompts for each row that decodes, and the prompts of such a step, as it has
        been lately; before anything has been, as if all were like this one and had answers as long
        as they may be."""
        request = sequence.request
        prior_steps = PRIOR_ROWS / request.sampling.max_tokens
        steps = self._prompt_steps + prior_steps
        rows = self._prompt_rows + prior_steps * request.num_prompt_tokens
        each = min(round(rows / steps), self.limits.step_tokens)
        keys = each * self._prompt_keys / max(1.0, self._prompt_rows)
        return steps / (self._decoded + PRIOR_ROWS), Work(each, round(keys), drawn=1)

    # What the host is used for when the device is full.

    def home(self, head: Sequence, draft: Draft, /) -> Home | None:
        """A host that is behind gets the device's room first; it gets more all the same if it is
        only with them that a sub-batch of its own is worth it."""
        if fits_device(self.requests, head, self._growth if self.requests.running else 0):
            return None if self._is_behind else Home.DEVICE
        return Home.HOST if self._fits_host(head) and self._pays(head, draft) else None

    def pages_out(self, victim: Sequence, draft: Draft, /) -> bool:
        if victim.home is Home.HOST or not victim.pageable():
            return False
        is_wanted = self._is_cheaper_there(victim) or self._wants(victim, draft)
        return is_wanted and self.requests.page_out(victim)

    @property
    def _growth(self) -> int:
        """Blocks for those that run to grow by: without them somebody who has only begun would be
        the youngest, and have to go."""
        return int(GROWTH_SHARE * self.requests.pool.num_blocks)

    def _is_cheaper_there(self, victim: Sequence) -> bool:
        """Whether the rows that it is promised on the host cost less than computing it anew."""
        costs, length = self.offload.costs, len(victim.tokens)
        rows_s = costs.host_s(1, length) * LONG_STAY / self.offload.progress_steps
        return rows_s < costs.linear.at(length) + costs.prefill.at(keys_of(0, length))

    @property
    def _is_behind(self) -> bool:
        """Whether the host does not keep up with those that decode there."""
        return any(s.num_skipped for s in self.requests.running if s.home is Home.HOST)

    def _fits_host(self, head: Sequence) -> bool:
        own = own_blocks(head)
        needed, available = blocks_beyond(self.requests.cache, head)
        return needed - own <= available and self.requests.host_room(own)

    def _pays(self, head: Sequence, draft: Draft) -> bool:
        """Whether there are more rows a second with it, once it decodes; what can never lie on the
        device has no choice."""
        needed, _ = blocks_beyond(self.requests.cache, head)
        if needed > self.requests.pool.num_blocks or not self.requests.running:
            return True
        return self._wants(head, draft)

    def _wants(self, sequence: Sequence, draft: Draft) -> bool:
        """Whether the host is to have one more. One row there may not be worth a sub-batch of its
        own where many are: what counts is the best number of them, found once a step."""
        running = self.requests.running
        num_there = sum(s.home is Home.HOST for s in running if s is not sequence)
        if self._most_there is None:
            others = [s for s in running if s is not sequence]
            self._most_there, self._said = self._best_number(others, sequence)
            self._asked = 0
        draft.said = self._said
        return num_there < self._most_there

    def _best_number(self, others: list[Sequence], sequence: Sequence) -> tuple[int, str]:
        """Of those on the host, for the most answers' rows a second, as if those to come were like
        this one, and in words why."""
        on_device = [s for s in others if s.home is Home.DEVICE]
        on_host = [s for s in others if s.home is Home.HOST]
        num_device, length = len(on_device), len(sequence.tokens)
        on_device_tokens = sum(len(s.tokens) for s in on_device)
        device = Work(num_device, 0, on_device_tokens, drawn=num_device)
        room = self.requests.host_limit - self.requests.cache.host.num_lent
        more = min(
            room // blocks_for(length),
            len(self.requests.waiting) + 1,
            self.limits.max_running - len(others),
        )
        parked = [Work(1, 0, 0, 1, len(s.tokens), drawn=1) for s in on_host]
        parked += [Work(1, 0, 0, 1, length, drawn=1)] * max(0, more)
        prompt_steps, prompts = self._usual_prompts(sequence)
        rates = Rates(
            Balance(self.offload.costs, device, parked),
            Balance(self.offload.costs, device + prompts, parked),
            prompt_steps,
            self.offload.progress_steps,
            self.offload.costs.exchange.at(prompts.rows),
        ).by_number()
        most = max(rates.values())
        best = max(count for count, rate in rates.items() if rate >= (1.0 - LEVEL_SHARE) * most)
        said = f"{best} on the host: {rates[best]:.1f} rows/s, {rates[0]:.1f} without"
        return (best if rates[best] > rates[0] * (1.0 + WORTH_SHARE) else 0), said

    # Back to the device.

    def _page_in(self) -> None:
        """The oldest: as many as there is room for while the host does not keep up, one if it does
        and nobody waits."""
        is_behind = self._is_behind
        if self.requests.waiting and not is_behind:
            return
        for sequence in [s for s in self.requests.running if s.home is Home.HOST]:
            reserve = 0 if is_behind else self._growth
            stays = not is_behind and sequence.num_steps_there < LEAST_STAY
            if stays or not self._bring(sequence, reserve):
                return
            if not is_behind:
                return

    def _bring(self, sequence: Sequence, reserve: int) -> bool:
        """False: there is no room beside the reserve."""
        needed = len(sequence.pageable()) + 1 + reserve
        if self.requests.cache.num_available < needed:
            return False
        if not self.requests.cache.make_room(needed):
            return False
        self.requests.page_in(sequence)
        return True

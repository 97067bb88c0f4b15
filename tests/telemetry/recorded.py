"""Records of steps as a worker could have made them: whatever is inside a step fits into it."""

from __future__ import annotations

from hypothesis import strategies as st

from cluster.ids import RequestId
from cluster.scheduling.plan import PlanKind
from cluster.scheduling.stages import StageTimes, Work
from cluster.telemetry.steps import StepRecord, SubBatch

SECONDS = st.floats(0.0, 2.0)
IDS = st.sampled_from([RequestId(f"r{n}") for n in range(5)])
TIMES = st.builds(StageTimes, SECONDS, SECONDS, SECONDS, SECONDS)
COUNTS = st.integers(0, 2**40)
WORKS = st.builds(Work, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)


@st.composite
def batches(draw: st.DrawFn) -> tuple[SubBatch, ...]:
    """A request is in one of them. With seconds of all or, where the clock does not see the device,
    of none."""
    measured = TIMES if draw(st.booleans()) else st.none()
    ids = draw(st.lists(IDS, unique=True))
    parts = [part for part in (ids[::2], ids[1::2]) if part]
    return tuple(
        draw(st.builds(SubBatch, st.just(tuple(p)), WORKS, TIMES, measured)) for p in parts
    )


@st.composite
def histories(draw: st.DrawFn) -> tuple[StepRecord, ...]:
    """Steps of one worker, one after the other."""
    now_s, steps = draw(st.floats(0.0, 1e6)), []
    for number in range(draw(st.integers(0, 6))):
        step = draw(_steps(now_s, number))
        steps.append(step)
        now_s = step.ended_s + draw(SECONDS)
    return tuple(steps)


@st.composite
def _steps(draw: st.DrawFn, started_s: float, number: int) -> StepRecord:
    parts, decide_s, draw_s = draw(batches()), draw(SECONDS), draw(SECONDS)
    took = [part.measured for part in parts if part.measured is not None]
    device_s = sum(each.linear_s + each.device_s + each.waited_s for each in took)
    host_s = sum(each.host_s for each in took)
    return StepRecord(
        started_s=started_s,
        seconds=decide_s + max(device_s, host_s) + draw_s + draw(SECONDS),
        decide_s=decide_s,
        draw_s=draw_s,
        kind=draw(st.sampled_from(PlanKind)),
        predicted_s=draw(SECONDS),
        said=draw(st.text(max_size=9)),
        batches=parts,
        num_preempted=draw(st.integers(0, 3)),
        first_tokens=tuple(draw(st.lists(IDS, unique=True, max_size=2))),
        finished=tuple(draw(st.lists(IDS, unique=True, max_size=2))),
        number=number,
    )

"""Whatever a worker remembers is a valid Chrome trace, and adds up to what was measured."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.ids import RequestId
from cluster.scheduling.plan import PlanKind
from cluster.scheduling.stages import StageTimes, Work
from cluster.telemetry.steps import StepRecord, SubBatch
from cluster.telemetry.trace import Lane, WorkerSteps, chrome_trace
from tests.telemetry.chrome import check_trace, complete
from tests.telemetry.recorded import IDS, histories

WORKERS = st.lists(
    st.builds(WorkerSteps, st.just("gpu_worker"), histories(), st.floats(0.0, 2e6)), max_size=3
)


def traced(*workers: WorkerSteps, request_id: RequestId | None = None) -> list[dict[str, Any]]:
    """As it is read from a file."""
    made = json.loads(json.dumps(chrome_trace(workers, request_id)))
    events: list[dict[str, Any]] = made["traceEvents"]
    return events


@given(WORKERS, st.none() | IDS)
def test_every_trace_is_valid(workers: list[WorkerSteps], request_id: RequestId | None) -> None:
    named = [WorkerSteps(f"w{n}", w.steps, w.now_s) for n, w in enumerate(workers)]
    check_trace(traced(*named, request_id=request_id))


@given(histories())
def test_the_slices_add_up_to_what_was_measured(steps: tuple[StepRecord, ...]) -> None:
    events = complete(traced(WorkerSteps("w", steps, 7.0)))
    widths: dict[str, float] = defaultdict(float)
    for event in events:
        lane = Lane(event["tid"]).name.lower()
        widths[f"{lane} {event['name'].split()[0]}"] += event["dur"] / 1e6
    took = [b.measured for s in steps for b in s.batches if b.measured is not None]
    expected = {
        "engine step": sum(s.seconds for s in steps),
        "engine deciding": sum(s.decide_s for s in steps),
        "engine drawing": sum(s.draw_s for s in steps),
        "device linear": sum(t.linear_s for t in took),
        "device attention": sum(t.device_s for t in took),
        "device waiting": sum(t.waited_s for t in took),
        "host attention": sum(t.host_s for t in took),
    }
    for name, seconds in expected.items():
        assert widths[name] == pytest.approx(seconds, abs=1e-5), name
    in_parts = [e for e in events if "seconds" in e["args"]]
    assert all(e["dur"] / 1e6 == pytest.approx(e["args"]["seconds"], abs=1e-5) for e in in_parts)


@given(histories(), IDS)
def test_a_request_spans_the_steps_that_computed_it(
    steps: tuple[StepRecord, ...], request_id: RequestId
) -> None:
    events = traced(WorkerSteps("w", steps, 7.0), request_id=request_id)
    own = [step for step in steps if step.computes(request_id)]
    begins = [e for e in events if e["ph"] == "b" and e["name"] == request_id]
    ends = [e for e in events if e["ph"] == "e" and e["name"] == request_id]
    assert len(begins) == len(ends) == bool(own)
    rows = [e["name"] for e in events if e["ph"] == "b" and e["name"].startswith("rows in step")]
    assert rows == [f"rows in step {step.number}" for step in own]
    if own:
        width_s = (ends[0]["ts"] - begins[0]["ts"]) / 1e6
        assert width_s == pytest.approx(own[-1].ended_s - own[0].started_s, abs=1e-5)


BOTH = StepRecord(
    started_s=100.0,
    seconds=1.0,
    decide_s=0.1,
    draw_s=0.05,
    kind=PlanKind.TWO_BATCH,
    predicted_s=0.9,
    said="3 on the host",
    batches=(
        SubBatch(
            (RequestId("a"), RequestId("b")),
            Work(2, 0, 40),
            StageTimes(0.3, 0.1, 0.0),
            StageTimes(0.31, 0.11, 0.0, 0.0),
        ),
        SubBatch(
            (RequestId("c"),),
            Work(1, 0, 0, 1, 900),
            StageTimes(0.2, 0.0, 0.3),
            StageTimes(0.2, 0.02, 0.33, 0.08),
        ),
    ),
    first_tokens=(RequestId("b"),),
    finished=(RequestId("a"),),
    number=7,
)


def test_a_step_of_two_sub_batches_is_drawn_on_three_lanes() -> None:
    events = traced(WorkerSteps("gpu_worker-0", (BOTH,), 103.0))
    drawn = [(e["tid"], e["name"], e["ts"], e["dur"]) for e in complete(events)]
    assert drawn == [
        (Lane.ENGINE, "step 7", 0.0, 1e6),
        (Lane.ENGINE, "deciding", 0.0, 1e5),
        (Lane.DEVICE, "sub-batch 0", 1e5, 4.2e5),
        (Lane.DEVICE, "linear", 1e5, 3.1e5),
        (Lane.DEVICE, "attention", 4.1e5, 1.1e5),
        (Lane.DEVICE, "sub-batch 1", 5.2e5, 3e5),
        (Lane.DEVICE, "linear", 5.2e5, 2e5),
        (Lane.DEVICE, "attention", 7.2e5, 2e4),
        (Lane.DEVICE, "waiting", 7.4e5, 8e4),
        (Lane.HOST, "attention of 1", 1e5, 3.3e5),
        (Lane.ENGINE, "drawing", 9.5e5, 5e4),
    ]
    step = complete(events)[0]
    assert step["args"] == {
        "kind": "two_batch",
        "measured_s": 1.0,
        "predicted_s": 0.9,
        "said": "3 on the host",
        "rows": 3,
        "requests": 3,
        "finished": ["a"],
    }
    linear = complete(events)[3]
    assert linear["args"] == {"seconds": 0.31, "predicted_s": 0.3}
    named = {e["args"]["name"] for e in events if e["ph"] == "M"}
    assert named == {"gpu_worker-0", "engine", "device", "host", "requests"}


def test_a_device_whose_clock_sees_no_stages_computes_in_one_piece() -> None:
    batch = SubBatch((RequestId("a"),), Work(1), StageTimes(0.5))
    step = StepRecord(0.0, 1.0, 0.25, 0.25, batches=(batch,))
    events = complete(traced(WorkerSteps("w", (step,), 1.0)))
    assert [(e["name"], e["dur"]) for e in events if e["tid"] == Lane.DEVICE] == [
        ("computing", 5e5)
    ]


def test_workers_with_clocks_of_their_own_share_one_axis() -> None:
    early = StepRecord(started_s=10.0, seconds=1.0)
    late = StepRecord(started_s=5000.0, seconds=1.0)
    events = traced(WorkerSteps("a", (early,), 14.0), WorkerSteps("b", (late,), 5002.0))
    begins = {e["pid"]: e["ts"] for e in complete(events) if e["name"].startswith("step")}
    assert begins == {1: 0.0, 2: 2e6}


def test_stages_say_that_they_are_sums() -> None:
    trace = chrome_trace([WorkerSteps("w", (BOTH,), 103.0)])
    assert "positions are not measured" in json.dumps(trace["otherData"])
    whole = [e for e in complete(traced(WorkerSteps("w", (BOTH,), 1.0))) if "sub" in e["name"]]
    assert len(whole) == 2
    assert all(event["args"]["layout"].startswith("sums over") for event in whole)

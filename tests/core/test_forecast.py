"""A forecast says what the core will do, as far as anybody can know, and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gpud.core.events import (
    CancelRequested,
    CheckpointRequested,
    ContinueRequested,
    DrainRequested,
    PauseRequested,
    RulesChanged,
    RunnerGone,
    WindowsTurned,
)
from gpud.core.forecast import Assumption, Forecast, forecast
from gpud.core.model import (
    After,
    Array,
    Device,
    JobId,
    JobSpec,
    Request,
    Span,
)
from gpud.core.rules import Rule, Rules, Window
from gpud.core.state import State

from .build import CPUS, NOW_MS, A, B, happens, ready, started, submit

LIMITS, USUAL = Assumption.LIMITS, Assumption.USUAL
S = 1000


def limited(seconds: float, **more: object) -> JobSpec:
    """Its payload is gone after exactly that long, at the latest."""
    return JobSpec(b"train", time_limit_s=seconds, grace_s=0.0, linger_s=0.0, **more)


def when(state: State, job: int, now_ms: int = NOW_MS, **more: object) -> Forecast:
    (found,) = forecast(state, now_ms, [JobId(job)], **more).values()
    return found


def running(state: State, *specs: JobSpec) -> None:
    for job in range(submit(state, *specs), state.next_id):
        started(state, JobId(job))


# -- one after another ---------------------------------------------------------------------------


def test_after_the_one_that_runs_if_that_takes_its_whole_limit() -> None:
    state = ready(A)
    running(state, limited(600))
    submit(state, limited(60), limited(60))
    assert when(state, 2) == Forecast(NOW_MS + 600 * S, (1,), (LIMITS,))
    assert when(state, 3, NOW_MS + 100 * S) == Forecast(NOW_MS + 660 * S, (2,), (LIMITS,))


def test_of_many_at_once_each_has_its_own() -> None:
    state = ready(A)
    running(state, limited(600))
    submit(state, limited(60), limited(60))
    found = forecast(state, NOW_MS, [JobId(2), JobId(3)])
    assert {job: f.start_ms for job, f in found.items()} == {
        2: NOW_MS + 600 * S,
        3: NOW_MS + 660 * S,
    }


def test_a_job_that_has_run_past_its_limit_ends_at_any_moment() -> None:
    state = ready(A)
    running(state, limited(600))
    submit(state, limited(60))
    assert when(state, 2, NOW_MS + 900 * S) == Forecast(NOW_MS + 900 * S, (1,), (LIMITS,))


def test_a_job_that_is_being_stopped_has_its_grace() -> None:
    state = ready(A)
    running(state, limited(600))
    submit(state, limited(60))
    happens(state, CancelRequested(1, (JobId(1),), 5.0))
    assert when(state, 2) == Forecast(NOW_MS + 5 * S, (1,), ())


def test_a_pause_puts_the_end_off() -> None:
    state = ready(A)
    running(state, limited(600))
    submit(state, limited(60))
    happens(state, PauseRequested(1, (JobId(1),)), now_ms=NOW_MS + 100 * S)
    assert when(state, 2, NOW_MS + 200 * S) == Forecast(unknown="job 1 is paused")
    happens(state, ContinueRequested(1, (JobId(1),)), now_ms=NOW_MS + 400 * S)
    assert when(state, 2, NOW_MS + 500 * S) == Forecast(NOW_MS + 900 * S, (1,), (LIMITS,))


def test_a_job_that_saves_its_state_comes_back() -> None:
    """And in its turn, which is before the other's."""
    state = ready(A)
    running(state, limited(600, checkpoint=10))
    submit(state, limited(60))
    happens(state, CheckpointRequested(1, (JobId(1),)))
    assert when(state, 2).start_ms == NOW_MS + 600 * S


def test_those_whose_ends_make_room_are_named() -> None:
    state = ready(A, B, CPUS)
    running(state, limited(600), limited(600), limited(600, request=Request(0)))
    submit(state, limited(60, request=Request(2)))
    assert when(state, 4) == Forecast(NOW_MS + 600 * S, (1, 2), (LIMITS,))


def test_a_time_to_begin_is_kept() -> None:
    state = ready(A)
    submit(state, limited(60, begin_ms=NOW_MS + 900 * S))
    assert when(state, 1) == Forecast(NOW_MS + 900 * S)


def test_a_job_that_comes_after_another_starts_when_that_has_ended() -> None:
    state = ready(A, B, CPUS)
    running(state, limited(600), limited(700))
    after = After((Span(2, 2),))
    submit(state, limited(60, request=Request(0), after=after))
    assert when(state, 3) == Forecast(NOW_MS + 700 * S, (2,), (LIMITS,))


def test_a_job_that_is_passed_by_short_ones_keeps_its_turn() -> None:
    """The gap before it is used; it starts when the others have ended all the same."""
    state = ready(A, B)
    running(state, limited(600), limited(100))
    submit(state, limited(60, request=Request(2)), *[limited(200)] * 4)
    found = forecast(state, NOW_MS, [JobId(job) for job in range(3, 8)])
    starts = {job: (f.start_ms - NOW_MS) // S for job, f in found.items() if f.start_ms}
    assert starts == {3: 600, 4: 100, 5: 300, 6: 660, 7: 660}


def test_elements_of_an_array_start_one_after_the_other() -> None:
    state = ready(A)
    submit(state, limited(60, array=Array(((0, 99_999, 1),))))
    assert [when(state, job).start_ms for job in (2, 3, 9)] == [
        NOW_MS + 60 * S,
        NOW_MS + 120 * S,
        NOW_MS + 480 * S,
    ]


# -- how long such jobs usually take -------------------------------------------------------------


@pytest.mark.parametrize(
    ("runs_s", "ran_s", "limit_s", "ends_s", "rests_on"),
    [
        ((), 0, 600, 600, LIMITS),
        ((50, 60), 0, 600, 600, LIMITS),  # two are no custom
        ((50, 60, 300), 0, 600, 60, USUAL),
        ((50, 60, 300), 55, 600, 300, USUAL),  # of those that took longer
        ((50, 60, 300), 400, 600, 600, LIMITS),
        ((50, 60, 300), 0, 40, 40, LIMITS),
        ((50, 60, 300), 0, None, 60, USUAL),
    ],
)
def test_how_long_a_job_is_expected_to_run(
    runs_s: Sequence[int], ran_s: int, limit_s: int | None, ends_s: int, rests_on: Assumption
) -> None:
    state = ready(A)
    running(state, limited(limit_s) if limit_s else JobSpec(b"train"))
    submit(state, limited(60))
    found = when(
        state, 2, NOW_MS + ran_s * S, runs_like=lambda job: [s * S for s in runs_s if job == 1]
    )
    assert found == Forecast(NOW_MS + ends_s * S, (1,), (rests_on,))


# -- what nobody knows ---------------------------------------------------------------------------


def test_a_job_without_a_limit_may_run_for_ever() -> None:
    state = ready(A)
    running(state, JobSpec(b"train"))
    submit(state, limited(60))
    assert when(state, 2) == Forecast(unknown="job 1 has no time limit")


def test_but_not_on_a_gpu_that_the_other_needs() -> None:
    state = ready(A, B)
    running(state, JobSpec(b"train"), limited(600))
    submit(state, limited(60), limited(60, request=Request(2)), limited(60))
    assert when(state, 3).start_ms == NOW_MS + 600 * S
    assert when(state, 4).unknown == "job 1 has no time limit"
    assert when(state, 5).unknown == "job 1 has no time limit"  # job 4 keeps the other one


def test_those_that_will_run_before_it_count_too() -> None:
    state = ready(A, B)
    running(state, limited(600), JobSpec(b"train"))
    submit(state, JobSpec(b"train"), limited(60))
    assert when(state, 4) == Forecast(unknown="jobs 2 and 3 have no time limit")


def test_no_more_than_three_are_named() -> None:
    devices = [Device(name, (name,)) for name in "abcde"]
    state = ready(*devices)
    running(state, *[JobSpec(b"train")] * 5)
    submit(state, limited(60))
    assert when(state, 6).unknown == "jobs 1, 2, 3 and 2 more have no time limit"


def test_a_chain_is_followed_to_who_stops_it() -> None:
    state = ready(A)
    submit(state, limited(60, held=True), *[limited(60, after=After((Span(-1, -1),)))] * 3)
    assert when(state, 4) == Forecast(unknown="job 1 is held (gpuctl release 1)")
    patient = After((Span(1, 1),), patient=True)
    submit(state, limited(60, after=patient))
    happens(state, CancelRequested(1, (JobId(1),)))
    assert when(state, 5) == Forecast(unknown="job 1 was cancelled (gpuctl retry 1)")


def test_what_cannot_be_served_or_started() -> None:
    state = ready(A)
    happens(state, DrainRequested(1))
    submit(state, *[limited(60)] * 2)
    state.pool.block({"a": "it is on fire"}, set(), {})
    assert when(state, 2) == Forecast(unknown="nothing that it could have takes work now")
    happens(state, RunnerGone("it is gone"))
    assert when(state, 2) == Forecast(unknown="jobs cannot be started now")


def test_who_stands_at_a_gate() -> None:
    state = ready(A, B)
    rules = {"group:one": Rule(limit=1), "group:none": Rule(limit=0)}
    rules["group:night"] = Rule(windows={"clock": "the window nights"})
    happens(state, RulesChanged(Rules(rules)))
    window = Window(open=False, until_ms=NOW_MS + 1000, why="which opens at 22:00")
    happens(state, WindowsTurned("clock", {"group:night": window}))
    running(state, limited(600, group="one"))
    submit(state, *[limited(60, group=group) for group in ("one", "none", "night")])
    assert when(state, 2).start_ms == NOW_MS + 600 * S
    assert when(state, 3) == Forecast(unknown="group none may have no job running")
    assert when(state, 4).start_ms == NOW_MS + S, "as its provider has told"


def test_a_gpu_that_is_blocked_for_a_moment_is_counted_on() -> None:
    state = ready(A)
    happens(state, RunnerGone("it is gone"))
    submit(state, limited(60))
    state.runner_problem = ""
    state.pool.block({"a": "it is being looked at"}, {"a"}, {})
    assert when(state, 1) == Forecast(NOW_MS)


def test_a_job_that_will_be_too_late_never_starts() -> None:
    state = ready(A)
    running(state, limited(600))
    submit(state, limited(60, deadline_ms=NOW_MS + 500 * S))
    assert when(state, 2) == Forecast(
        assumes=(LIMITS,), never="it could not be started in time for its deadline"
    )


def test_who_may_be_too_late_if_another_runs_for_ever_may_not_be() -> None:
    state = ready(A)
    running(state, JobSpec(b"train"))
    after = After((Span(-1, -1),))
    late = limited(60, deadline_ms=NOW_MS + 500 * S)
    submit(state, late, limited(60, after=after))
    found = forecast(state, NOW_MS, [JobId(2), JobId(3)])
    assert [found[JobId(job)].unknown for job in (2, 3)] == ["job 1 has no time limit"] * 2


def test_who_comes_after_one_that_is_being_stopped_never_starts() -> None:
    state = ready(A, B)
    running(state, limited(600), JobSpec(b"train"))
    submit(state, limited(60, after=After((Span(1, 1),))))
    happens(state, CancelRequested(1, (JobId(1),), 5.0))
    assert when(state, 3).never == "job 1, which it comes after, was cancelled"


def test_a_walk_that_is_too_long_says_how_far_it_came() -> None:
    state = ready(A)
    running(state, limited(60))
    last = submit(state, *[limited(60)] * 2_000) + 1_999
    assert when(state, last) == Forecast(later_than_ms=NOW_MS + 60 * S * 1_000, assumes=(LIMITS,))


# -- people --------------------------------------------------------------------------------------


def test_a_held_job_is_released_now_if_it_alone_is_meant() -> None:
    state = ready(A)
    running(state, limited(600))
    submit(state, limited(60, held=True), limited(60, held=True))
    assert when(state, 2) == Forecast(NOW_MS + 600 * S, (1,), (LIMITS, Assumption.RELEASE))
    both = forecast(state, NOW_MS, [JobId(2), JobId(3)])
    assert both[JobId(2)] == Forecast(unknown="it is held (gpuctl release 2)")


def test_an_element_of_a_held_array_is_released_alone() -> None:
    state = ready(A)
    submit(state, limited(60, held=True, array=Array(((0, 9, 1),))))
    assert when(state, 4) == Forecast(NOW_MS, assumes=(Assumption.RELEASE,))


def test_a_drained_pool_is_undrained_now() -> None:
    state = ready(A)
    happens(state, DrainRequested(1))
    submit(state, limited(60), limited(60))
    assert when(state, 1) == Forecast(NOW_MS, assumes=(Assumption.UNDRAIN,))
    assert when(state, 2) == Forecast(NOW_MS + 60 * S, (1,), (LIMITS, Assumption.UNDRAIN))


# -- memory that others use ----------------------------------------------------------------------

ROOMY = [Device(name, (name,), 4, memory_mib=40_000) for name in "ab"]
WANTS = Request(1, vram_mib=9_000)


def test_memory_that_a_job_has_beyond_its_promise_is_there_until_it_ends() -> None:
    state = ready(ROOMY[0])
    running(state, limited(600, request=WANTS), limited(300, request=WANTS))
    happens(state, DrainRequested(1))
    submit(state, limited(60, request=WANTS))
    state.pool.block({}, set(), {"a": 5_000})
    assert when(state, 3) == Forecast(NOW_MS + 300 * S, (2,), (LIMITS, Assumption.UNDRAIN))
    state.pool.block({}, set(), {"a": -5_000})
    assert when(state, 3).start_ms == NOW_MS + 600 * S


def test_memory_of_somebody_else_stays_in_use() -> None:
    state = ready(*ROOMY)
    happens(state, DrainRequested(1))
    submit(state, limited(60, request=WANTS))
    state.pool.block({}, set(), {"a": 5_000, "b": 5_000})
    assert when(state, 1).unknown == "nothing that it could have takes work now"
    state.pool.block({}, set(), {"a": 5_000, "b": 15_000})
    assert when(state, 1).start_ms == NOW_MS

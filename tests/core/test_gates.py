"""Gates: limits, windows and fails of what has a group, a user, a source or a label in common."""

from __future__ import annotations

from gpud.core.actions import StartAttempt
from gpud.core.events import (
    AttemptEnded,
    CancelRequested,
    DevicesChanged,
    GateRequested,
    JobsSubmitted,
    ReleaseRequested,
    RetryRequested,
    RulesChanged,
    Tick,
    WindowsTurned,
)
from gpud.core.explain import ahead, explain
from gpud.core.gates import MOST_REMEMBERED, Gates
from gpud.core.gating import begin_gate, end_gate
from gpud.core.model import Device, JobId, JobState, NewJob, Request, RetryPolicy
from gpud.core.rules import DEFAULT, EVERY_USER, NONE, Kept, Rule, Rules, Window
from gpud.core.state import State

from .build import CPUS, HALVES, NOW_MS, A, B, ended, happens, ready, spec_of, started, submit

NIGHTS = {"clock": "the window nights"}
LATER = NOW_MS + 60_000
FOUR = Device("q", ("q",), 4)


def ruled(*devices: Device, rules: Rules | None = None, **gates: Rule) -> State:
    """`group_lr=Rule(…)` is that of "group:lr"."""
    state = ready(*devices)
    found = {key.replace("_", ":", 1): rule for key, rule in gates.items()}
    happens(state, RulesChanged(rules or Rules(found)))
    return state


def why(state: State, job: JobId, now_ms: int = NOW_MS) -> str:
    return explain(state, job, now_ms)


def told(state: State, key: str, *, is_open: bool, until: int = LATER, now: int = NOW_MS) -> None:
    windows = {key: Window(is_open, until, "which opens at 22:00")}
    happens(state, WindowsTurned("clock", windows), now_ms=now)


# -- limits ----------------------------------------------------------------------------------------


def test_so_many_of_a_group_run_at_a_time_and_others_pass() -> None:
    state = ruled(FOUR, group_lr=Rule(limit=2))
    first, second, third = (submit(state, group="lr") for _ in range(3))
    other = submit(state)
    assert state.attempts.keys() == {first, second, other}
    assert why(state, third) == "waits for a place in group lr: 2 of 2 run"
    assert ahead(state, third, NOW_MS) == 0
    happens(state, ended(state, first, exit_code=0))
    assert third in state.attempts


def test_a_user_has_a_limit_and_all_others_have_theirs() -> None:
    rules = Rules({EVERY_USER: Rule(limit=1), "user:7": Rule(limit=2)}, {7: "alice"})
    state = ruled(FOUR, rules=rules)
    alices = [submit(state, uid=7) for _ in range(3)]
    bobs = [submit(state, uid=8) for _ in range(2)]
    assert state.attempts.keys() == {*alices[:2], bobs[0]}
    assert why(state, alices[2]) == "waits: user alice has 2 of 2 running"
    assert why(state, bobs[1]) == "waits: user 8 has 1 of 1 running"


def test_the_first_gate_that_is_closed_is_named() -> None:
    state = ruled(FOUR, **{"group_lr": Rule(limit=1), "label_a=b": Rule(limit=1)})
    submit(state, group="lr", labels=("a=b",))
    assert why(state, submit(state, group="lr", labels=("a=b",))).endswith("group lr: 1 of 1 run")
    assert why(state, submit(state, labels=("a=b",))) == (
        "waits for a place under label a=b: 1 of 1 run"
    )


def test_a_limit_of_nothing_lets_nobody_start() -> None:
    state = ruled(A, group_lr=Rule(limit=0))
    job = submit(state, group="lr")
    assert why(state, job) == "waits: group lr may have no job running (its limit is 0)"


def test_a_higher_limit_lets_more_start_at_once_and_a_lower_one_stops_nobody() -> None:
    state = ruled(FOUR, group_lr=Rule(limit=1))
    jobs = [submit(state, group="lr") for _ in range(4)]
    happens(state, GateRequested(9, "group:lr", limit=3))
    assert state.attempts.keys() == set(jobs[:3])
    assert not happens(state, GateRequested(9, "group:lr", limit=1))[1:]
    assert why(state, jobs[3]) == "waits for a place in group lr: 3 of 1 run"


def test_a_persons_word_goes_before_the_configuration_until_it_is_taken_back() -> None:
    state = ruled(FOUR, group_lr=Rule(limit=1))
    jobs = [submit(state, group="lr") for _ in range(4)]
    happens(state, GateRequested(9, "group:lr", limit=2))
    assert state.changes.gates["group:lr"] == Kept(limit=2)
    happens(state, RulesChanged(Rules({"group:lr": Rule(limit=4)})))
    assert len(state.attempts) == 2
    happens(state, GateRequested(9, "group:lr", limit=DEFAULT))
    assert state.attempts.keys() == set(jobs)
    assert not state.changes.gates["group:lr"]


def test_a_word_may_be_that_there_is_no_limit() -> None:
    state = ruled(FOUR, group_lr=Rule(limit=0))
    jobs = [submit(state, group="lr") for _ in range(2)]
    happens(state, GateRequested(9, "group:lr", limit=NONE))
    assert state.attempts.keys() == set(jobs)


def test_a_rule_that_comes_later_counts_what_runs_already() -> None:
    state = ready(FOUR)
    submit(state, labels=("a=b",))
    happens(state, RulesChanged(Rules({"label:a=b": Rule(limit=1)})))
    job = submit(state, labels=("a=b",))
    assert job not in state.attempts
    happens(state, RulesChanged(Rules()))
    assert job in state.attempts


def test_any_key_may_be_a_gate_such_as_that_of_an_array() -> None:
    state = ready(FOUR)
    begin_gate(state, "array:1", limit=1, max_fails=1)
    assert state.changes.gates == {"array:1": Kept(1, 1)}
    happens(state, JobsSubmitted(1, (NewJob(spec_of(held=True)),) * 2))
    for job in (first := state.jobs[JobId(1)], second := state.jobs[JobId(2)]):
        job.belongs = (*job.belongs, "array:1")
    happens(state, ReleaseRequested(2, (first.id, second.id)))
    assert why(state, second.id) == "waits for a place in array 1: 1 of 1 run"
    happens(state, ended(state, first.id, exit_code=1))
    held = f"held since 1 job of array 1 failed: gpuctl release {first.id}"
    assert why(state, second.id) == held
    happens(state, CancelRequested(3, (second.id,)))
    end_gate(state, "array:1")
    assert not state.gates.is_one("array:1")
    assert not state.changes.gates["array:1"]


def test_labels_of_their_own_do_not_fill_the_memory() -> None:
    gates = Gates(Rules({"label:a=b": Rule(limit=1)}))
    for number in range(2 * MOST_REMEMBERED + 10):
        belongs = (f"label:n={number}", "label:a=b")
        assert gates.of(belongs) == ("label:a=b",)
    assert len(gates._of) <= MOST_REMEMBERED


def test_what_keeps_gpus_keeps_its_place_too() -> None:
    state = ruled(A, B, CPUS, group_lr=Rule(limit=1))
    busy = submit(state, request=Request(1))
    wide = submit(state, request=Request(2), group="lr")
    narrow = submit(state, request=Request(0), group="lr")
    assert narrow not in state.attempts, "it would pass the wide one for ever"
    assert why(state, wide).startswith("waits for 2 GPUs at once")
    assert why(state, narrow) == "waits for a place in group lr: 0 of 1 run, and one is kept"
    happens(state, ended(state, busy, exit_code=0))
    assert state.attempts.keys() == {wide}


# -- windows ---------------------------------------------------------------------------------------


def test_nothing_starts_outside_its_window() -> None:
    state = ruled(A, source_nightly=Rule(windows=NIGHTS))
    job = submit(state, source="nightly")
    assert why(state, job) == "waits for the window nights, which is being looked at"
    told(state, "source:nightly", is_open=False)
    assert why(state, job) == "waits for the window nights, which opens at 22:00"
    told(state, "source:nightly", is_open=True)
    assert job in state.attempts


def test_a_job_that_runs_goes_on_when_its_window_closes() -> None:
    state = ruled(A, group_lr=Rule(windows=NIGHTS))
    told(state, "group:lr", is_open=True)
    job = submit(state, group="lr")
    started(state, job)
    told(state, "group:lr", is_open=False)
    assert why(state, job) == "running on GPU a"


def test_after_its_end_a_window_is_closed_until_somebody_says_otherwise() -> None:
    """The machine was asleep, and the clock has not been looked at yet."""
    state = ruled(A, group_lr=Rule(windows=NIGHTS))
    told(state, "group:lr", is_open=True)
    job = submit(state, group="lr", begin_ms=LATER + 1)
    happens(state, Tick(), now_ms=LATER + 1)
    assert why(state, job, LATER + 1) == "waits for the window nights, which is being looked at"
    told(state, "group:lr", is_open=True, until=LATER + 1000, now=LATER + 1)
    assert job in state.attempts


def test_a_closed_window_does_not_open_by_itself() -> None:
    state = ruled(A, group_lr=Rule(windows=NIGHTS))
    told(state, "group:lr", is_open=False)
    job = submit(state, group="lr")
    assert not happens(state, Tick(), now_ms=LATER + 1)
    assert why(state, job, LATER + 1) == "waits for the window nights, which opens at 22:00"


def test_windows_of_several_providers_are_all_waited_for() -> None:
    state = ruled(A, group_lr=Rule(windows=NIGHTS | {"carbon": "clean power"}))
    told(state, "group:lr", is_open=True)
    job = submit(state, group="lr")
    assert why(state, job) == "waits for clean power, which is being looked at"
    happens(state, WindowsTurned("carbon", {"group:lr": Window(True, LATER)}))
    assert job in state.attempts


def test_a_window_of_every_user_is_that_of_each() -> None:
    state = ruled(A, rules=Rules({EVERY_USER: Rule(windows=NIGHTS)}))
    job = submit(state, uid=12)
    told(state, EVERY_USER, is_open=True)
    assert job in state.attempts


def test_a_gpu_takes_new_jobs_only_in_its_window() -> None:
    """Also where nothing can be seen of it."""
    by_night = Device("b", ("b",), gates=("gpu:b",))
    state = ruled(A, by_night, gpu_b=Rule(windows=NIGHTS))
    told(state, "gpu:b", is_open=False)
    first, second = submit(state), submit(state)
    assert state.attempts.keys() == {first}
    closed = "GPU b takes no work: outside the window nights, which opens at 22:00"
    assert why(state, second) == f"waits for the slot: it is taken; {closed}"
    told(state, "gpu:b", is_open=True)
    assert state.attempts[second].lease[0].device == "b"
    told(state, "gpu:b", is_open=False)
    assert why(state, second).startswith("starting on GPU b")
    happens(state, DevicesChanged((A,)))


# -- fails -----------------------------------------------------------------------------------------


def three_fail(state: State, group: str = "lr") -> list[JobId]:
    """Three of a group; gives back those that have not been tried."""
    jobs = [submit(state, group=group) for _ in range(5)]
    for job in jobs[:3]:
        happens(state, ended(state, job, exit_code=1))
    return jobs[3:]


def test_after_so_many_fails_the_rest_of_a_group_is_held() -> None:
    state = ruled(A, group_lr=Rule(max_fails=3))
    rest = three_fail(state)
    other = submit(state)
    assert state.attempts.keys() == {other}
    for job in rest:
        assert why(state, job) == "held since 3 jobs of group lr failed: gpuctl release group:lr"
    assert state.changes.gates["group:lr"] == Kept(fails=3)


def test_what_is_submitted_to_it_later_is_held_too() -> None:
    state = ruled(A, group_lr=Rule(max_fails=3))
    three_fail(state)
    job = submit(state, group="lr")
    assert state.jobs[job].held_by == "group:lr"
    assert why(state, job).endswith("gpuctl release group:lr")


def test_a_release_forgives_and_the_count_begins_anew() -> None:
    state = ruled(A, group_lr=Rule(max_fails=3))
    rest = three_fail(state)
    happens(state, ReleaseRequested(2, tuple(rest)))
    assert not state.gates.kept
    happens(state, ended(state, rest[0], exit_code=1))
    assert rest[1] in state.attempts


def test_who_is_held_by_hand_does_not_forgive_by_a_release() -> None:
    state = ruled(A, group_lr=Rule(max_fails=3))
    held = submit(state, group="lr", held=True)
    failed = submit(state, group="lr")
    happens(state, ended(state, failed, exit_code=1))
    happens(state, ReleaseRequested(2, (held,)))
    assert state.gates["group:lr"].fails == 1


def test_a_fail_counts_once_it_is_not_tried_again() -> None:
    state = ruled(A, group_lr=Rule(max_fails=1))
    job = submit(state, group="lr", retry=RetryPolicy(1, backoff_s=0))
    waits = submit(state, group="lr")
    happens(state, ended(state, job, exit_code=1))
    assert state.jobs[waits].state is JobState.QUEUED
    happens(state, ended(state, job, exit_code=1))
    assert state.jobs[waits].state is JobState.HELD


def test_a_try_that_was_to_come_is_held_with_the_rest() -> None:
    state = ruled(A, B, group_lr=Rule(max_fails=1))
    again = submit(state, group="lr", retry=RetryPolicy(1, backoff_s=60))
    failed = submit(state, group="lr")
    happens(state, ended(state, failed, exit_code=1))
    happens(state, ended(state, again, exit_code=1))
    assert why(state, again).startswith("held since 1 job of group lr failed")


def test_a_cancel_is_no_fail() -> None:
    state = ruled(A, group_lr=Rule(max_fails=1))
    job, waits = submit(state, group="lr"), submit(state, group="lr")
    happens(state, CancelRequested(2, (job,)))
    happens(state, AttemptEnded(job, 1, NOW_MS, signal=15))
    assert waits in state.attempts


def test_a_retry_by_hand_runs_while_the_rest_is_held() -> None:
    state = ruled(A, group_lr=Rule(max_fails=3))
    rest = three_fail(state)
    record = state.changes.jobs[JobId(1)]
    happens(state, RetryRequested(2, (JobId(1),), recalled=(record,)))
    assert state.attempts.keys() == {1}
    assert {state.jobs[job].state for job in rest} == {JobState.HELD}


def test_a_new_number_counts_from_then_on() -> None:
    state = ruled(A, group_lr=Rule(max_fails=3))
    rest = three_fail(state)
    happens(state, GateRequested(2, "group:lr", max_fails=1))
    job = submit(state, group="lr")
    assert job in state.attempts
    assert {state.jobs[held].state for held in rest} == {JobState.HELD}


def test_a_lower_number_in_the_configuration_holds_what_waits() -> None:
    state = ruled(HALVES, group_lr=Rule(max_fails=3))
    first = submit(state, group="lr")
    submit(state, group="lr")
    waits = submit(state, group="lr", begin_ms=LATER)
    happens(state, ended(state, first, exit_code=1))
    starts = happens(state, RulesChanged(Rules({"group:lr": Rule(max_fails=1)})))
    assert not [action for action in starts if isinstance(action, StartAttempt)]
    assert state.jobs[waits].held_by == "group:lr"

"""Jobs are changed while they wait: what is taken, what is refused and with which words."""

from __future__ import annotations

import pytest
from msgspec import structs

from gpud.core.events import (
    AttemptEnded,
    CancelRequested,
    Edit,
    EditRequested,
    HoldRequested,
    ReleaseRequested,
    RetryRequested,
    Tick,
)
from gpud.core.explain import explain
from gpud.core.model import After, JobId, JobSpec, Outcome, Request, RetryPolicy, Span
from gpud.core.state import State

from .build import NOW_MS, A, B, answer, ended, happens, ready, spec_of, started, submit
from .edit_scenarios import live

SCENARIOS = 400


@pytest.mark.slow
def test_days_of_people_who_change_their_minds() -> None:
    for seed in range(SCENARIOS):
        live(seed)


def spec(state: State, job: JobId, **fields: object) -> JobSpec:
    """As it is, with these; good enough for jobs that have said nothing else."""
    record = state.jobs.get(job)
    if record is None:
        return spec_of(**fields)
    now = spec_of(
        request=record.request,
        priority=record.priority,
        retry=record.retry,
        begin_ms=record.begin_ms,
        after=record.after,
    )
    return structs.replace(now, **fields)


def edit(state: State, *jobs: JobId, now_ms: int = NOW_MS, **fields: object) -> str:
    """The first refusal, or "", in a turn of its own."""
    state.take_changes()
    edits = tuple(Edit(j, spec(state, j), spec(state, j, **fields), {"x": [1, 2]}) for j in jobs)
    outcomes = {job: Outcome.CANCELLED for job in range(1, state.next_id) if job not in state.jobs}
    said = answer(happens(state, EditRequested(9, edits, outcomes), now_ms=now_ms))
    assert {*said.jobs} | {job for job, _ in said.refused} <= set(jobs)
    return said.refused[0][1] if said.refused else ""


def test_a_waiting_job_is_changed_and_its_story_tells_it() -> None:
    state = ready(A)
    submit(state)
    job = submit(state)
    assert edit(state, job, priority=9, name="big", command=b"other") == ""
    changes = state.take_changes()
    assert state.jobs[job].priority == 9
    assert (changes.edited[job].name, changes.edited[job].command) == ("big", b"other")
    (story,) = changes.story
    assert (story.kind, story.detail) == ("edited", {"changed": {"x": [1, 2]}})


def test_an_edit_that_changes_nothing_is_none() -> None:
    state = ready(A)
    submit(state)
    job = submit(state)
    assert edit(state, job) == ""
    assert not state.take_changes()


def test_a_smaller_request_starts_at_once() -> None:
    state = ready(A, B)
    submit(state)
    job = submit(state, request=Request(2))
    assert job not in state.attempts
    assert edit(state, job, request=Request(1)) == ""
    assert state.attempts[job].lease[0].device == "b"


def test_an_active_job_keeps_what_it_runs_with() -> None:
    state = ready(A)
    job = submit(state)
    started(state, job)
    assert edit(state, job, command=b"x") == (
        "cannot edit job 1: it is running: only its priority and its retries can be changed now"
    )
    assert edit(state, job, priority=3, retry=RetryPolicy(1, backoff_s=0)) == ""
    happens(state, ended(state, job, exit_code=1))
    assert state.attempts[job].no == 2, "it was given a retry while it ran"


def test_used_retries_stay_used() -> None:
    state = ready(A)
    job = submit(state, retry=RetryPolicy(3, backoff_s=50))
    happens(state, ended(state, job, exit_code=1))
    assert edit(state, job, retry=RetryPolicy(0)) == ""
    assert explain(state, job, NOW_MS).endswith("before retry 1 of 1")
    assert edit(state, job, retry=RetryPolicy(3, backoff_s=50)) == ""
    assert state.jobs[job].retries_left == 2


def test_what_is_done_or_not_there_is_refused() -> None:
    state = ready(A)
    job = submit(state)
    happens(state, ended(state, job, exit_code=0))
    assert edit(state, job) == "cannot edit job 1: it is done"
    assert edit(state, JobId(7)) == "cannot edit job 7: no such job"


def test_what_no_submit_could_ask_for_is_refused() -> None:
    state = ready(A)
    submit(state)
    job = submit(state)
    why = edit(state, job, request=Request(2))
    assert why.startswith("cannot edit job 2: ")
    assert "GPU" in why
    why = edit(state, job, deadline_ms=NOW_MS + 1000, time_limit_s=2.0)
    assert why == "cannot edit job 2: it cannot be done by its deadline"
    assert state.jobs[job].request == Request()
    assert not state.jobs[job].last_start_ms


def test_each_job_is_changed_or_refused_by_itself() -> None:
    state = ready(A)
    running, job, other = submit(state), submit(state), submit(state)
    assert "job 1: it is starting" in edit(state, running, job, other, name="x")
    assert state.changes.edited.keys() == {job, other}


def test_two_changes_in_one_turn_do_not_undo_each_other() -> None:
    state = ready(A)
    submit(state)
    job = submit(state)
    was = spec(state, job)
    one = EditRequested(1, (Edit(job, was, structs.replace(was, priority=1)),))
    two = EditRequested(2, (Edit(job, was, structs.replace(was, name="x")),))
    first, second = (a for a in happens(state, one, two))
    assert first.jobs == (job,)
    assert second.refused == (
        (
            job,
            "cannot edit job 2: somebody else changes it at this moment; look at it and try again",
        ),
    )


# -- time ------------------------------------------------------------------------------------------


def test_begin_is_moved_and_taken_away() -> None:
    state = ready(A)
    job = submit(state, begin_ms=NOW_MS + 60_000)
    assert edit(state, job, begin_ms=NOW_MS + 10_000) == ""
    assert "10 s more to begin" in explain(state, job, NOW_MS)
    happens(state, Tick(), now_ms=NOW_MS + 9_999)
    assert not state.attempts
    assert edit(state, job, begin_ms=0, now_ms=NOW_MS + 9_999) == ""
    assert job in state.attempts


def test_begin_does_not_cut_the_pause_before_a_retry() -> None:
    state = ready(A)
    job = submit(state, retry=RetryPolicy(1, backoff_s=100, backoff_max_s=100))
    happens(state, ended(state, job, exit_code=1))
    pause_ms = state.jobs[job].not_before_ms
    assert edit(state, job, begin_ms=NOW_MS + 1000) == ""
    assert state.jobs[job].not_before_ms == pause_ms
    assert "before retry 1 of 1" in explain(state, job, NOW_MS)


def test_a_held_job_begins_as_edited_once_it_is_released() -> None:
    state = ready(A)
    job = submit(state, held=True)
    assert edit(state, job, begin_ms=NOW_MS + 1000) == ""
    happens(state, ReleaseRequested(2, (job,)))
    assert state.jobs[job].not_before_ms == NOW_MS + 1000


def test_a_deadline_that_is_taken_away_ends_nobody() -> None:
    state = ready(A)
    submit(state)
    job = submit(state, deadline_ms=NOW_MS + 1000)
    was = spec(state, job, deadline_ms=NOW_MS + 1000)
    changed = Edit(job, was, structs.replace(was, deadline_ms=0))
    happens(state, EditRequested(2, (changed,)))
    happens(state, Tick(), now_ms=NOW_MS + 2000)
    assert job in state.jobs


# -- order -----------------------------------------------------------------------------------------


def after(*jobs: int, ended: bool = False, patient: bool = False) -> After:
    return After(tuple(Span(job, job, ended) for job in jobs), patient)


def test_a_job_comes_after_a_later_one() -> None:
    state = ready(A)
    first = submit(state)
    second, third = submit(state), submit(state)
    assert edit(state, second, after=after(third)) == ""
    happens(state, ended(state, first, exit_code=0))
    assert list(state.attempts) == [third]
    happens(state, ended(state, third, exit_code=0))
    assert list(state.attempts) == [second]


def test_a_job_that_comes_after_nobody_any_more_goes_on() -> None:
    state = ready(A, B)
    submit(state)
    second = submit(state, after=after(1))
    assert edit(state, second, after=After()) == ""
    assert second in state.attempts
    assert not state.links.dependents


def test_the_end_that_it_waits_for_now_cancels_it() -> None:
    state = ready(A)
    first, second, third = submit(state), submit(state), submit(state, held=True)
    assert edit(state, third, after=after(second)) == ""
    happens(state, CancelRequested(3, (second,)))
    assert third not in state.jobs
    assert first in state.attempts


@pytest.mark.parametrize(
    ("befores", "why"),
    [
        (after(2), "it cannot come after itself"),
        (after(1, 99), "it cannot come after job 99: no such job"),
        (after(3), "job 3, which it comes after, was cancelled"),
        (after(5), "it cannot come after job 5, which comes after it"),
        (after(1, 6), "it cannot come after job 6, which comes after it"),
    ],
)
def test_what_it_cannot_come_after(befores: After, why: str) -> None:
    state = ready(A)
    submit(state)
    submit(state)
    done = submit(state)
    happens(state, CancelRequested(1, (done,)))
    submit(state, after=after(2))
    submit(state, after=after(4), held=True)
    submit(state, after=after(5, ended=True, patient=True))
    assert edit(state, JobId(2), after=befores) == f"cannot edit job 2: {why}"
    assert not state.jobs[JobId(2)].after.spans


def test_patience_lets_it_come_after_one_that_failed() -> None:
    state = ready(A)
    submit(state)
    job, failed = submit(state), submit(state)
    happens(state, CancelRequested(1, (failed,)))
    assert edit(state, job, after=after(failed, patient=True)) == ""
    assert explain(state, job, NOW_MS) == "waits for job 3, which was cancelled: gpuctl retry 3"
    why = edit(state, job, after=after(failed))
    assert why == "cannot edit job 2: job 3, which it comes after, was cancelled"
    assert state.jobs[job].after.patient


def test_a_retry_that_would_close_a_circle_is_refused() -> None:
    state = ready(A)
    submit(state)
    second = submit(state)
    third = submit(state, after=after(2, ended=True))
    happens(state, CancelRequested(1, (third,)))
    record = state.changes.jobs[third]
    assert edit(state, second, after=after(third, ended=True)) == ""
    refused = answer(happens(state, RetryRequested(2, (third,), (record,)))).refused
    assert refused == (
        (third, "cannot retry job 3: it cannot come after job 2, which comes after it"),
    )


def test_a_chain_of_ten_thousand_is_no_circle_until_it_is_closed() -> None:
    state = ready(A)
    submit(state)
    chain = [spec_of(after=after(-1)) for _ in range(10_000)]
    first = submit(state, *chain)
    last = JobId(first + len(chain) - 1)
    assert edit(state, first, after=after(last)) == (
        f"cannot edit job 2: it cannot come after job {last}, which comes after it"
    )
    middle = JobId(first + 5000)
    assert "comes after it" in edit(state, middle, after=after(last - 7))
    assert edit(state, last, after=after(1)) == ""
    assert edit(state, first, after=after(last)) == ""


def test_what_a_job_had_grown_to_is_kept_unless_it_asks_anew() -> None:
    state = ready(A)
    policy = RetryPolicy(2, backoff_s=50, oom=True)
    job = submit(state, request=Request(share_milli=500, gpus=1), retry=policy)
    attempt = state.attempts[job]
    happens(state, AttemptEnded(job, attempt.no, NOW_MS, exit_code=1, oom="cuda"))
    grown = state.jobs[job].request
    assert grown.exclusive
    asked = Request(share_milli=500, gpus=1)
    was = structs.replace(spec(state, job), request=asked)
    happens(state, EditRequested(2, (Edit(job, was, structs.replace(was, name="x")),)))
    assert state.jobs[job].request == grown
    state.take_changes()
    happens(state, EditRequested(3, (Edit(job, was, structs.replace(was, request=Request(1))),)))
    assert state.jobs[job].request == Request(1)
    assert not state.jobs[job].grown


def test_arguments_of_a_retry_give_way_to_those_of_an_edit() -> None:
    state = ready(A)
    submit(state)
    job = submit(state)
    happens(state, HoldRequested(1, (job,)))
    state.jobs[job].retry_args = b"--resume"
    was = spec_of(retry_args=b"--resume", priority=0)
    happens(state, EditRequested(2, (Edit(job, was, structs.replace(was, name="x")),)))
    assert state.jobs[job].retry_args == b"--resume"
    state.take_changes()
    becomes = structs.replace(was, retry_args=b"")
    happens(state, EditRequested(3, (Edit(job, was, becomes),)))
    assert state.jobs[job].retry_args is None

"""What an edit, a move and a swap must do, and nothing else: worked out beside the core.

Called by tests/core/turns.py around each of these events. Circles are looked for here by following
everything that a job would come after, and a move is one of a list.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from gpud.core.actions import Action, Answer, Refuse
from gpud.core.events import Edit, EditRequested, MoveRequested, SwapRequested
from gpud.core.model import Job, JobId, JobSpec, JobState
from gpud.core.state import State

from .afters import Afters, before_of, will_do
from .capacity import Free
from .promises import Ledger, last_start_of

Change = EditRequested | MoveRequested | SwapRequested
LATER = {"priority", "retry", "retry_args"}  # may be changed while an attempt is live
TIME = {"begin_ms", "deadline_ms", "time_limit_s"}
BY_EDIT = {
    *("request", "grown", "priority", "retry", "retries_left", "retry_args", "grace_s"),
    *("within_s", "begin_ms", "last_start_ms", "not_before_ms", "after", "unmet"),
}


class Before:
    """The state before the event."""

    def __init__(self, state: State, afters: Afters) -> None:
        self.jobs = {job_id: structs.replace(job) for job_id, job in state.jobs.items()}
        self.edited = set(state.changes.edited)
        self.told = len(state.changes.story)
        self.order = order_of(state)
        self.afters = afters

    def waits(self, job: JobId) -> bool:
        return job in self.jobs and self.jobs[job].state is not JobState.ACTIVE


def check(
    before: Before,
    state: State,
    event: Change,
    actions: Sequence[Action],
    ledger: Ledger,
    now_ms: int,
) -> None:
    (answer,) = actions
    assert answer.request == event.request
    assert state.jobs.keys() == before.jobs.keys(), f"{event} makes or loses jobs"
    assert all(job.place < state.next_id for job in state.jobs.values())
    match event:
        case EditRequested():
            check_edit(before, state, event, answer, ledger, now_ms)
        case MoveRequested():
            check_move(before, state, event, answer)
        case SwapRequested():
            check_swap(before, state, event, answer)


def same_but_for(before: Before, state: State, job: JobId, fields: set[str]) -> None:
    was, is_ = before.jobs[job], state.jobs[job]
    for name in was.__struct_fields__:
        same = getattr(was, name) == getattr(is_, name)
        assert same or name in fields, f"{name} of {was} has become another: {is_}"


# -- edits -----------------------------------------------------------------------------------------


def check_edit(
    before: Before,
    state: State,
    event: EditRequested,
    answer: Action,
    ledger: Ledger,
    now_ms: int,
) -> None:
    assert isinstance(answer, Answer)
    changed, refused = [], []
    for edit in event.edits:
        fields = changed_fields(edit)
        if not is_possible(before, state, edit, fields, now_ms):
            refused.append(edit.job)
        elif fields:
            changed.append(edit.job)
            before.edited.add(edit.job)
            before.afters.specs[edit.job] = edit.becomes
            same_but_for(before, state, edit.job, BY_EDIT)
            check_record(before.jobs[edit.job], state.jobs[edit.job], edit, fields, now_ms)
            is_ = state.jobs[edit.job]
            ledger.specs[edit.job] = structs.replace(
                edit.becomes, priority=is_.priority, after=is_.after
            )
            if "request" in fields:
                ledger.asked_anew.add((edit.job, before.jobs[edit.job].attempt))
    assert list(answer.jobs) == changed, f"{answer}, and {refused} cannot be"
    assert [job for job, _ in answer.refused] == refused
    assert all(why.startswith(f"cannot edit job {job}: ") for job, why in answer.refused)
    for job in before.jobs.keys() - set(changed):
        same_but_for(before, state, job, set())
    told = state.changes.story[before.told :]
    assert [(story.kind, story.job) for story in told] == [("edited", job) for job in changed]


def changed_fields(edit: Edit) -> set[str]:
    names = JobSpec.__struct_fields__
    return {n for n in names if getattr(edit.was, n) != getattr(edit.becomes, n)}


def is_possible(before: Before, state: State, edit: Edit, fields: set[str], now_ms: int) -> bool:
    job, spec = edit.job, edit.becomes
    if job not in before.jobs or job in before.edited:
        return False
    if not before.waits(job) and not fields <= LATER:
        return False
    pool = Free(state.pool.devices.values(), [], usual_mib=state.pool.usual_mib)
    if "request" in fields and not pool.could_ever_fit(spec.request):
        return False
    last = last_start_of(spec)
    if fields & TIME and last and last < max(now_ms, spec.begin_ms):
        return False
    return "after" not in fields or can_come_after(before, state, job, spec)


def can_come_after(before: Before, state: State, job: JobId, spec: JobSpec) -> bool:
    for other, ended in before_of(spec, job):
        if not 0 < other < state.next_id:
            return False
        outcome = before.afters.outcome_of(other)
        if outcome and not will_do(outcome, ended) and not spec.after.patient:
            return False
    befores = {other for other, _ in before_of(spec, job)}
    return not before.afters.is_behind(job, befores, {*before.jobs} - {job})


def check_record(was: Job, job: Job, edit: Edit, fields: set[str], now_ms: int) -> None:
    """What decisions rest on says what the spec says."""
    spec = edit.becomes
    assert job.priority == (spec.priority if "priority" in fields else was.priority)
    assert job.retry == spec.retry
    assert job.request == (spec.request if "request" in fields else was.request)
    assert job.grown == (was.grown and "request" not in fields)
    assert job.grace_s == spec.grace_s
    assert job.last_start_ms == last_start_of(spec)
    assert (job.within_s > 0) == (spec.time_limit_s is not None)
    assert job.within_s >= (spec.time_limit_s or 0)
    assert job.begin_ms == spec.begin_ms
    asked = spec.after if "after" in fields else was.after
    assert before_of(job, job.id) == before_of(structs.replace(spec, after=asked), job.id)
    assert job.after.patient == asked.patient
    if "retry" in fields:
        assert job.retries_left == max(0, spec.retry.retries - was.retry_no)
    else:
        assert job.retries_left == was.retries_left
    if was.not_before_ms != was.begin_ms:
        assert job.not_before_ms >= was.not_before_ms, f"the pause of {was} is cut"
    if "begin_ms" not in fields:
        assert job.not_before_ms == was.not_before_ms
    elif job.state is JobState.QUEUED and spec.begin_ms > now_ms:
        assert job.not_before_ms >= spec.begin_ms
    else:
        assert job.not_before_ms in (0, was.not_before_ms)


# -- order -----------------------------------------------------------------------------------------


def rank(job: Job) -> tuple[int, float, JobId]:
    return -job.priority, job.place or job.id, job.id


def order_of(state: State) -> list[JobId]:
    return [job.id for job in sorted(state.jobs.values(), key=rank)]


def check_move(before: Before, state: State, event: MoveRequested, answer: Action) -> None:
    asked = [*dict.fromkeys(event.jobs)]
    moved = [job for job in before.order if job in asked and before.waits(job)]
    moved = [job for job in moved if job != event.beside]
    rest = [job for job in before.order if job not in moved]
    expected = before.order
    if event.beside and not before.waits(event.beside):
        assert isinstance(answer, Refuse), f"{answer}: nobody stands there"
        moved = []
    else:
        assert isinstance(answer, Answer)
        assert set(answer.jobs) == set(moved)
        assert {job for job, _ in answer.refused} == set(asked) - set(moved)
        waiting = [event.beside] if event.beside else [job for job in rest if before.waits(job)]
        behind = event.to in ("after", "last")
        if waiting and moved:
            beside = waiting[-1] if behind else waiting[0]
            place = rest.index(beside) + behind
            expected = [*rest[:place], *moved, *rest[place:]]
            priority = before.jobs[beside].priority
            assert all(state.jobs[job].priority == priority for job in moved)
            got = {job for job in moved if before.jobs[job].priority != priority}
            assert set(answer.priorities) == {(job, priority) for job in got}
    check_order(before, state, expected, set(moved))


def check_swap(before: Before, state: State, event: SwapRequested, answer: Action) -> None:
    one, other = event.jobs
    expected = [*before.order]
    swapped: set[JobId] = set()
    if one == other or not before.waits(one) or not before.waits(other):
        assert isinstance(answer, Refuse)
    else:
        assert isinstance(answer, Answer)
        assert answer.jobs == event.jobs
        a, b = expected.index(one), expected.index(other)
        expected[a], expected[b] = other, one
        swapped = {one, other}
        priorities = [before.jobs[job].priority for job in (other, one)]
        assert [state.jobs[job].priority for job in (one, other)] == priorities
    check_order(before, state, expected, swapped)


def check_order(before: Before, state: State, expected: list[JobId], moved: set[JobId]) -> None:
    assert order_of(state) == expected, f"it was {before.order}"
    for job in before.jobs:
        same_but_for(before, state, job, {"place", "priority"} if job in moved else {"place"})

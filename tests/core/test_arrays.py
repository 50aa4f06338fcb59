"""An array is what its elements would be, had they been submitted one by one.

Two states live the same life. One gets arrays, the other a job for each element; whatever people
and payloads do, both must decide alike, tell alike, and be alike after a restart. What single jobs
must do is in machine.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from gpud.core.actions import Action, Answer, StartAttempt
from gpud.core.events import (
    AttemptEnded,
    AttemptStarted,
    CancelRequested,
    Event,
    HoldRequested,
    JobsSubmitted,
    ReleaseRequested,
    RetryRequested,
    RunnerReady,
    Tick,
)
from gpud.core.explain import ahead, explain
from gpud.core.health import DEFAULT_POLICY
from gpud.core.invariants import check_invariants
from gpud.core.model import (
    After,
    Array,
    Device,
    Job,
    JobId,
    JobSpec,
    JobState,
    NewJob,
    Outcome,
    Request,
    RetryPolicy,
    Span,
)
from gpud.core.scheduler import next_deadline, step
from gpud.core.spans import each
from gpud.core.state import State

from .build import CPUS, NOW_MS, A, B, happens, ready, submit
from .draws import specs
from .store import FakeStore

DEVICES = (A, B, CPUS, Device("m", ("m",), 2, memory_mib=16_000))
FEW = tuple(structs.replace(d) for d in DEVICES)
MOST = 30  # ids

arrays = st.builds(
    lambda spec, size: structs.replace(spec, array=Array(((5, 4 + size, 1),))) if size else spec,
    specs,
    st.sampled_from([0, 1, 2, 5, 9]),
)
ids = st.lists(st.integers(1, MOST), min_size=1, max_size=8) | st.builds(
    lambda first, count: list(range(first, first + count)), st.integers(1, 9), st.integers(1, 20)
)
afters = st.lists(st.tuples(st.integers(-2, MOST), st.integers(0, 9), st.booleans()), max_size=2)
deeds = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.lists(arrays, min_size=1, max_size=3), afters),
        st.tuples(st.just("cancel"), ids, st.none()),
        st.tuples(st.just("hold"), ids, st.none()),
        st.tuples(st.just("release"), ids, st.none()),
        st.tuples(st.just("retry"), ids, st.none()),
        st.tuples(st.just("end"), st.integers(0, 5), st.sampled_from([0, 0, 0, 3])),
        st.tuples(st.just("wait"), st.integers(1, 50_000), st.none()),
        st.tuples(st.just("restart"), st.none(), st.none()),
    ),
    max_size=25,
)


class Life:
    """A state and its store."""

    def __init__(self, *, arrays: bool) -> None:
        self.arrays = arrays
        self.store = FakeStore()
        self.told: list[tuple[int, int, str, int, str]] = []
        self.restart()

    def restart(self) -> None:
        self.state = self.store.load(DEVICES, DEFAULT_POLICY)
        self.happens(NOW_MS, RunnerReady("boot"))

    def happens(self, now_ms: int, *events: Event) -> list[Action]:
        """One turn and its commit."""
        events = tuple(self.with_past(event) for event in events)
        actions = step(self.state, events, now_ms)
        check_invariants(self.state)
        changes = self.state.take_changes()
        self.store.commit(changes)
        for story in changes.story:
            for n in range(story.job, story.job + story.count):
                told = n, story.attempt, story.kind, story.at_ms, repr(sorted(story.detail.items()))
                self.told.append(told)
        return actions

    def with_past(self, event: Event) -> Event:
        outcomes = {job.id: job.outcome for job in self.store.jobs.values() if job.outcome}
        if isinstance(event, JobsSubmitted):
            jobs = event.jobs if self.arrays else tuple(one_by_one(event.jobs))
            return structs.replace(event, jobs=jobs, outcomes=outcomes)
        if isinstance(event, RetryRequested):
            done = [job for job in event.jobs if self.state.find(job) is None]
            return structs.replace(event, recalled=self.store.recall(done), outcomes=outcomes)
        return event

    def picture(self) -> dict[int, object]:
        """Every job, whoever has its record."""
        found: dict[int, object] = {}
        for job in self.state.jobs.values():
            for n in each(job.rest) if job.rest else (job.id,):
                found[n] = (
                    seen(job),
                    explain(self.state, JobId(n), NOW_MS),
                    ahead(self.state, JobId(n)),
                )
        for job in self.store.jobs.values():
            if job.state is JobState.DONE:
                found[job.id] = seen(job)
        return found


def one_by_one(jobs: Sequence[NewJob]) -> list[NewJob]:
    """The elements; what comes "so many jobs before" an array does for each of them."""
    found: list[NewJob] = []
    for new in jobs:
        spec = new.spec
        count = spec.array.indices[0][1] - 4 if spec.array else 1
        for k in range(count):
            spans = tuple(
                Span(*(n if n > 0 else n - k for n in (s.first, s.last)), s.ended)
                for s in spec.after.spans
            )
            after = After(spans, spec.after.patient)
            found.append(NewJob(structs.replace(spec, array=None, after=after)))
    return found


def seen(job: Job) -> tuple[object, ...]:
    fields = structs.asdict(job)
    for name in ("id", "array", "rest"):
        del fields[name]
    return tuple(sorted((name, repr(value)) for name, value in fields.items()))


@settings(max_examples=500)
@given(deeds=deeds)
def test_an_array_is_its_elements(deeds: list[tuple[str, object, object]]) -> None:
    one, many = Life(arrays=False), Life(arrays=True)
    now_ms, number = NOW_MS, 0
    for what, first, second in deeds:
        now_ms, number = now_ms + 1, number + 1
        if what == "restart":
            one.restart()
            many.restart()
            continue
        if what == "wait":
            now_ms += first
        event = event_of(what, first, second, one.state, number, now_ms)
        if event is None:
            continue
        expected, actions = one.happens(now_ms, event), many.happens(now_ms, event)
        assert comparable(actions) == comparable(expected), event
        for action in actions:
            if isinstance(action, StartAttempt):
                started = AttemptStarted(action.job, action.attempt, 7, now_ms)
                one.happens(now_ms, started)
                many.happens(now_ms, started)
        assert many.picture() == one.picture(), event
        assert next_deadline(many.state) == next_deadline(one.state)
        assert sorted(many.told) == sorted(one.told), event


def comparable(actions: Sequence[Action]) -> list[Action]:
    """A refusal of a submit counts the jobs in it."""
    return [a for a in actions if isinstance(a, StartAttempt | Answer)] + [
        type(a) for a in actions if not isinstance(a, StartAttempt | Answer)
    ]


def event_of(
    what: str, first: object, second: object, state: State, number: int, now_ms: int
) -> Event | None:
    match what, first, second:
        case "submit", list(), list():
            spans = tuple(Span(n, n + (more if n > 0 else 0), e) for n, more, e in second if n)
            after = After(spans)
            new = tuple(NewJob(structs.replace(spec, after=after)) for spec in first)
            return JobsSubmitted(number, new)
        case "cancel", list(), _:
            return CancelRequested(number, tuple(map(JobId, first)))
        case "hold", list(), _:
            return HoldRequested(number, tuple(map(JobId, first)))
        case "release", list(), _:
            return ReleaseRequested(number, tuple(map(JobId, first)))
        case "retry", list(), _:
            return RetryRequested(number, tuple(map(JobId, first)))
        case "end", int(), int():
            live = sorted(state.attempts)
            if not live:
                return None
            job = live[first % len(live)]
            return AttemptEnded(job, state.attempts[job].no, now_ms, exit_code=second)
    return Tick()


# -- what it is for --------------------------------------------------------------------------------


def test_what_has_not_changed_has_one_record() -> None:
    state = ready(A, B)
    first = submit(state, array=Array(((0, 99_999, 1),)))
    assert len(state.jobs) == 3, "two run, and one record stands for the rest"
    assert state.next_id == first + 100_000
    assert ahead(state, JobId(first + 99_999)) == 99_997
    everything = tuple(map(JobId, range(first, state.next_id)))
    state.take_changes()
    happens(state, CancelRequested(2, everything))
    changes = state.take_changes()
    assert len(changes.jobs) + len(changes.ends) + len(changes.story) < 10
    assert [len(state.jobs), state.arrays] == [2, []]


def test_a_part_that_is_held_has_records_of_its_own() -> None:
    state = ready(A)
    first = submit(state, array=Array(((0, 9, 1),)))
    happens(state, HoldRequested(2, (JobId(first + 4), JobId(first + 5))))
    held = [job.id for job in state.jobs.values() if job.state is JobState.HELD]
    assert held == [first + 4, first + 5]
    assert [*each(state.jobs[JobId(-first)].rest)] == [2, 3, 4, 7, 8, 9, 10]


def test_a_job_after_an_array_waits_for_its_last_element() -> None:
    state = ready(A, B)
    first = submit(state, array=Array(((0, 1, 1),)))
    after = submit(state, after=After((Span(first, first + 1),)))
    for job in (first, JobId(first + 1)):
        assert after not in state.attempts
        happens(state, AttemptEnded(job, 1, NOW_MS, exit_code=0))
    assert after in state.attempts


def test_an_entry_with_a_problem_is_one_job() -> None:
    state = ready(A)
    spec = JobSpec(b"train", request=Request(5), array=Array(((0, 9, 1),)), retry=RetryPolicy())
    state.add(NewJob(spec, "needs 5 GPUs"), NOW_MS)
    assert state.next_id == 2
    assert state.changes.jobs[JobId(1)].outcome is Outcome.NOT_STARTED

"""An array is what its elements would be, had they been submitted one by one.

Two states live the same life. One gets arrays, the other a job for each element; whatever people
and payloads do, both must decide alike, tell alike, and be alike after a restart. What single jobs
must do is in machine.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from gpud.core.actions import Action, Answer, StartAttempt
from gpud.core.changes import Changes
from gpud.core.events import (
    AttemptEnded,
    AttemptStarted,
    CancelRequested,
    Edit,
    EditRequested,
    Event,
    GateRequested,
    HoldRequested,
    JobsSubmitted,
    MoveRequested,
    ReleaseRequested,
    RetryRequested,
    RulesChanged,
    RunnerReady,
    SwapRequested,
    Tick,
)
from gpud.core.explain import ahead, explain
from gpud.core.health import DEFAULT_POLICY, GpuPolicy
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
from gpud.core.numbering import Numbering
from gpud.core.pool import Pool
from gpud.core.ready import rank_of
from gpud.core.rules import DEFAULT, Kept, Rules
from gpud.core.scheduler import next_deadline, step
from gpud.core.spans import each
from gpud.core.state import State
from gpud.protocol.replies import JobView
from gpud.protocol.selectors import Selection
from gpud.store.arrays import Arrays
from gpud.store.sqlite import SqliteStore

from .build import CPUS, NOW_MS, A, B, happens, ready, submit
from .draws import HALF_LIVES_MS, KEYS, RULES, WORDS, specs
from .store import FakeStore

DEVICES = (A, B, CPUS, Device("m", ("m",), 2, memory_mib=16_000))
FEW = tuple(structs.replace(d) for d in DEVICES)
MOST = 30  # ids
BOUND = -1  # the request that makes a limit of a label
SHARED = ("priority", "request", "retry", "grace_s", "begin_ms", "after")  # of specs and records

arrays = st.builds(
    lambda spec, size, at_most, max_fails: (
        structs.replace(spec, array=Array(((5, 4 + size, 1),), at_most, max_fails))
        if size
        else spec
    ),
    specs,
    st.sampled_from([0, 1, 2, 5, 9]),
    st.sampled_from([0, 0, 1, 2, 3]),
    st.sampled_from([0, 0, 1, 2]),
)
gates = st.builds(
    lambda key, limit, max_fails: GateRequested(0, key, limit, max_fails),
    st.sampled_from([key for key in KEYS if not key.startswith("gpu:")]),
    st.sampled_from(WORDS),
    st.sampled_from(WORDS),
)
rules = st.builds(
    lambda found, half_life_ms: structs.replace(found, half_life_ms=half_life_ms),
    st.sampled_from(RULES),
    st.sampled_from(HALF_LIVES_MS),
)
ids = st.lists(st.integers(1, MOST), min_size=1, max_size=8) | st.builds(
    lambda first, count: list(range(first, first + count)), st.integers(1, 9), st.integers(1, 20)
)
afters = st.lists(st.tuples(st.integers(-2, 4), st.integers(0, 3), st.booleans()), max_size=2)
deeds = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.lists(arrays, min_size=1, max_size=3), afters),
        st.tuples(st.just("cancel"), ids, st.none()),
        st.tuples(st.just("hold"), ids, st.none()),
        st.tuples(st.just("release"), ids, st.none()),
        st.tuples(st.just("retry"), ids, st.none()),
        st.tuples(st.just("end"), st.integers(0, 5), st.sampled_from([0, 0, 3])),
        st.tuples(st.just("gate"), gates, st.none()),
        st.tuples(st.just("rules"), rules, st.none()),
        st.tuples(st.just("wait"), st.integers(1, 50_000), st.none()),
        st.tuples(st.just("restart"), st.none(), st.none()),
    ),
    max_size=25,
)


class RealStore:
    """What of the real store is asked here, in the way of the fake one."""

    def __init__(self) -> None:
        self.real = SqliteStore.in_memory()

    def load(self, devices: Sequence[Device], policy: GpuPolicy, rules: Rules) -> State:
        loaded = self.real.load()
        state = State(Pool(devices), policy, rules)
        state.next_id, state.numbering = loaded.next_id, Numbering(loaded.arrays)
        state.load(
            loaded.jobs,
            loaded.attempts,
            outcome_of=loaded.outcomes.get,
            gates=loaded.gates,
            usage=loaded.usage,
        )
        return state

    def commit(self, changes: Changes) -> None:
        self.real.commit(changes)

    def recall(self, jobs: Sequence[JobId]) -> tuple[Job, ...]:
        return tuple(self.real.recall(jobs))

    @property
    def jobs(self) -> dict[JobId, Job]:
        """Those that are done."""
        done = self.real.recall(self.real.select(Selection(states=("done",))))
        return {job.id: job for job in done}


class Life:
    """A state and its store."""

    def __init__(self, store: FakeStore | RealStore, *, arrays: bool) -> None:
        self.arrays = arrays
        self.store = store
        self.told: list[tuple[int, int, str, int, str]] = []
        self.rules = Rules()
        self.restart()

    def restart(self, now_ms: int = NOW_MS) -> None:
        self.state = self.store.load(DEVICES, DEFAULT_POLICY, self.rules)
        self.happens(now_ms, RunnerReady("boot"))

    def happens(
        self,
        now_ms: int,
        event: Event,
        units: Sequence[tuple[int, int]] = (),
        *,
        bounded: bool = False,
    ) -> list[Action]:
        """One turn and its commit. `bounded`: limits of arrays are made for it, one by one."""
        if isinstance(event, RulesChanged):
            self.rules = event.rules
        events: list[Event] = []
        if bounded and not self.arrays:
            events += bounds(event.jobs, units)
        actions = step(self.state, [*events, self.with_past(event, list(units))], now_ms)
        actions = [a for a in actions if not isinstance(a, Answer) or a.request != BOUND]
        assert all(job.place < self.state.next_id for job in self.state.jobs.values())
        check_invariants(self.state)
        changes = self.state.take_changes()
        self.store.commit(changes)
        for story in changes.story:
            for n in range(story.job, story.job + story.count):
                detail = plain(repr(sorted(story.detail.items())))
                self.told.append((n, story.attempt, story.kind, story.at_ms, detail))
        return actions

    def with_past(self, event: Event, units: list[tuple[int, int]]) -> Event:
        outcomes = {job.id: job.outcome for job in self.store.jobs.values() if job.outcome}
        if isinstance(event, JobsSubmitted):
            jobs = event.jobs if self.arrays else tuple(one_by_one(event.jobs, units))
            return structs.replace(event, jobs=jobs, outcomes=outcomes)
        if isinstance(event, RetryRequested):
            done = [job for job in event.jobs if self.state.find(job) is None]
            return structs.replace(event, recalled=self.store.recall(done), outcomes=outcomes)
        if isinstance(event, EditRequested):
            edits = tuple(self.edit(edit.job, edit.told) for edit in event.edits)
            return structs.replace(event, edits=edits, outcomes=outcomes)
        return event

    def edit(self, job_id: JobId, fields: dict[str, object]) -> Edit:
        """What the control server would make of it."""
        record = self.state.find(job_id)
        submitted = getattr(self.store, "specs", {}).get(job_id)  # of the fake store
        was = JobSpec(b"train", array=submitted.array if submitted else None)
        if record is not None:
            shared = {name: getattr(record, name) for name in SHARED}
            was = structs.replace(was, **shared)
        return Edit(job_id, was, structs.replace(was, **fields), fields)

    def order(self) -> list[int]:
        """Who is first, of all elements of all records."""
        ranks = []
        for job in self.state.jobs.values():
            ranks += [(-job.priority, n, n) for n in each(job.rest)] or [rank_of(job)]
        return [rank[-1] for rank in sorted(ranks)]

    def reason(self, job: JobId) -> str:
        """An array that others wait for is named as one."""
        told = plain(explain(self.state, job, NOW_MS))
        told = re.sub(r"\b(\d+)-\1\b", r"\1", told)  # the first one alone
        return re.sub(r"^waits for (array \d+: \d+|\d+ jobs: ).*", "waits for several", told)

    def picture(self) -> dict[int, object]:
        """Every job, whoever has its record."""
        found: dict[int, object] = {}
        for job in self.state.jobs.values():
            for n in each(job.rest) if job.rest else (job.id,):
                found[n] = (
                    seen(job),
                    self.reason(JobId(n)),
                    ahead(self.state, JobId(n), NOW_MS),
                )
        for job in self.store.jobs.values():
            if job.state is JobState.DONE:
                found[job.id] = job.state, job.outcome, plain(job.why), job.ended_at_ms, job.attempt
        return found

    def gates(self, units: Sequence[tuple[int, int]]) -> dict[str, Kept]:
        """What is kept of gates, but for arrays that were refused."""
        arrays = {f"array:{first}" for first, _ in units}
        kept = {plain(key): found for key, found in self.state.gates.kept.items()}
        return {key: found for key, found in kept.items() if key[:6] != "array:" or key in arrays}


def plain(text: str) -> str:
    """What is said of an array, and of the label that its elements have in its place, alike; and
    whichever of several is named that can no longer be."""
    text = re.sub(r"\bjob \d+, which it comes after", "a job, which it comes after", text)
    text = re.sub(r"release label:array=(\d+)", r"release \1", text)
    text = re.sub(r"under label array=(\d+)", r"in array \1", text)
    return re.sub(r"label( |:)array=(\d+)", r"array\1\2", text)


def bounds(jobs: Sequence[NewJob], units: Sequence[tuple[int, int]]) -> list[Event]:
    """How many elements may run, and fail: said of the label that they have."""
    found: list[Event] = []
    first = units[-1][1] + 1 if units else 1
    for new in jobs:
        array = new.spec.array
        if array is not None:
            limit, max_fails = array.at_most or DEFAULT, array.max_fails or DEFAULT
            found.append(GateRequested(BOUND, f"label:array={first}", limit, max_fails))
        first += array.indices[0][1] - 4 if array else 1
    return found


def one_by_one(jobs: Sequence[NewJob], units: list[tuple[int, int]]) -> list[NewJob]:
    """The elements. `units`: the jobs and arrays there are, as ids; a job comes after these."""
    found: list[NewJob] = []
    units = list(units)
    for new in jobs:
        spec = new.spec
        spans = []
        for span in spec.after.spans:
            low, high = (
                units[n] if -len(units) <= n < 0 else (max(n, 0), max(n, 0))
                for n in (span.first, span.last)
            )
            spans.append(Span(low[0] or -MOST, high[1] or -MOST, span.ended))
        count = spec.array.indices[0][1] - 4 if spec.array else 1
        first = units[-1][1] + 1 if units else 1
        units.append((first, first + count - 1))
        alone = structs.replace(spec, array=None, after=After(tuple(spans), spec.after.patient))
        if spec.array:
            alone = structs.replace(alone, labels=(*alone.labels, f"array={first}"))
        found += [NewJob(alone)] * count
    return found


def seen(job: Job) -> tuple[object, ...]:
    fields = structs.asdict(job)
    for name in ("id", "array", "rest", "place"):
        del fields[name]
    return tuple(sorted((name, plain(repr(value))) for name, value in fields.items()))


@pytest.mark.timeout(300)
@settings(max_examples=150)
@given(deeds=deeds)
def test_an_array_is_its_elements(deeds: list[tuple[str, object, object]]) -> None:
    live(Life(FakeStore(), arrays=False), Life(FakeStore(), arrays=True), deeds)


def array_of(count: int, at_most: int = 0, max_fails: int = 0, **fields: object) -> JobSpec:
    spec = JobSpec(b"train", uid=1, **fields)  # type: ignore[arg-type]
    return structs.replace(spec, array=Array(((5, 4 + count, 1),), at_most, max_fails))


# What a random day has seldom: parts that go their own way while the rest waits, fails, groups.
DAYS: list[list[tuple[str, object, object]]] = [
    [
        ("submit", [JobSpec(b"train", uid=1)], []),
        ("submit", [array_of(9, group="g")], [(1, 0, False)]),
        ("hold", [4], None),
        ("release", [4], None),
        ("cancel", [6, 7, 8], None),
        ("restart", None, None),
        *[("end", 0, 0)] * 4,
        ("cancel", [9, 10], None),
    ],
    [
        ("submit", [array_of(9, max_fails=1, group="g", labels=("a=b",))], []),
        ("end", 0, 3),
        ("restart", None, None),
        ("wait", 1, None),
        ("release", list(range(1, 10)), None),
        ("end", 0, 0),
        ("end", 0, 3),
        ("restart", None, None),
        ("cancel", list(range(1, 10)), None),
    ],
]


@pytest.mark.parametrize("day", DAYS)
def test_the_store_knows_every_element_of_these_days(
    day: list[tuple[str, object, object]],
) -> None:
    check_store(day)


@pytest.mark.timeout(300)
@settings(max_examples=100)
@given(deeds=deeds)
def test_the_store_knows_every_element(deeds: list[tuple[str, object, object]]) -> None:
    check_store(deeds)


def check_store(deeds: list[tuple[str, object, object]]) -> None:
    store = RealStore()
    assert not store.real.group_counts()  # from now on they are moved along
    one = Life(FakeStore(), arrays=False)
    live(one, Life(store, arrays=True), deeds)
    everything = {job.id: job for job in one.store.jobs.values()}
    ids = store.real.select(Selection(everything=True))
    assert ids == sorted(everything)
    states, outcomes = store.real.counts()
    assert {word: n for word, n in (states | outcomes).items() if n and word != "done"} == Counter(
        (job.outcome or job.state).value for job in everything.values()
    )
    for state in ("queued", "held", "active", "done"):
        found = store.real.select(Selection(states=(state,)))
        assert found == sorted(n for n, job in everything.items() if job.state == state)
    shown = [n for view in store.real.views(store.real.together(ids)) for n in ids_of(view)]
    assert sorted(shown) == ids
    for view in store.real.views(ids):
        job = everything[JobId(view.id)]
        assert (view.state, view.outcome) == (job.state, job.outcome or "")
    page, more = store.real.page(0, 0)
    assert not more
    undone = [n for n, job in everything.items() if job.outcome is None]
    assert sum(view.count for view in page) == len(undone)
    groups = {spec.group for spec in one.store.specs.values()} - {""}
    found_groups = store.real.group_counts()
    for group in groups:
        members = {n for n, spec in one.store.specs.items() if spec.group == group}
        assert store.real.select(Selection(tags=(f"group:{group}",))) == sorted(members)
        words = Counter((everything[n].outcome or everything[n].state).value for n in members)
        assert found_groups[group] == words
    reopened = type(store.real._tally)(store.real._db, Arrays(store.real._db, None).counts())
    assert reopened.counts() == (states, outcomes)


def ids_of(view: JobView) -> list[int]:
    if view.count == 1:
        return [view.id]
    return [view.array + n for n in range(MOST) if str(5 + n) in indices_of(view.indices)]


def indices_of(text: str) -> set[str]:
    found = set()
    for run in text.split(","):
        low, _, high = run.partition("-")
        found |= set(map(str, range(int(low), int(high or low) + 1)))
    return found


def live(one: Life, many: Life, deeds: list[tuple[str, object, object]]) -> None:
    now_ms, number = NOW_MS, 0
    units: list[tuple[int, int]] = []
    for what, first, second in deeds:
        now_ms, number = now_ms + 1, number + 1
        if what == "restart":
            one.restart(now_ms)
            many.restart(now_ms)
            continue
        if what == "wait":
            now_ms += first
        event = event_of(what, first, second, one.state, number, now_ms)
        if event is None:
            continue
        actions = many.happens(now_ms, event)
        taken = isinstance(event, JobsSubmitted) and isinstance(actions[0], Answer)
        expected = one.happens(now_ms, event, units, bounded=taken)
        if taken:
            for new in event.jobs:
                first = units[-1][1] + 1 if units else 1
                count = new.spec.array.indices[0][1] - 4 if new.spec.array else 1
                units.append((first, first + count - 1))
        assert comparable(actions) == comparable(expected), event
        for action in actions:
            if isinstance(action, StartAttempt):
                started = AttemptStarted(action.job, action.attempt, 7, now_ms)
                one.happens(now_ms, started)
                many.happens(now_ms, started)
        assert many.picture() == one.picture(), event
        assert many.order() == one.order(), event
        assert next_deadline(many.state) == next_deadline(one.state)
        assert many.gates(units) == one.gates(units), event
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
        case "gate", GateRequested(), _:
            return structs.replace(first, request=number)
        case "rules", Rules(), _:
            return RulesChanged(first)
        case "edit", list(), dict():
            edits = (Edit(JobId(n), JobSpec(b""), JobSpec(b""), second) for n in first)
            return EditRequested(number, tuple(edits))
        case "move", list(), (str(to), int(beside)):
            other = JobId(beside) if to in ("before", "after") else JobId(0)
            return MoveRequested(number, tuple(map(JobId, first)), to, other)
        case "swap", (int(one), int(other)), _:
            return SwapRequested(number, (JobId(one), JobId(other)))
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
    assert ahead(state, JobId(first + 99_999), NOW_MS) == 99_997
    everything = tuple(map(JobId, range(first, state.next_id)))
    state.take_changes()
    happens(state, CancelRequested(2, everything))
    changes = state.take_changes()
    assert len(changes.jobs) + len(changes.ends) + len(changes.story) < 10
    assert sorted(state.jobs) == [1, 2]


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

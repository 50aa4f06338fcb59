"""Who is next: the tree of least values, shelves and bays, against a walk over all jobs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpud.core.events import DevicesChanged
from gpud.core.gates import Gates
from gpud.core.minima import Minima
from gpud.core.model import AUTO_VRAM, Device, Job, JobId, JobState, Request, RetryPolicy
from gpud.core.placement import resolved
from gpud.core.pool import Pool
from gpud.core.ready import Ready, is_ready, rank_of
from gpud.core.rules import Rule, Rules, Window, keys_of
from gpud.core.shape import shape_of
from gpud.core.shelves import ANY_MEMORY, ANYBODY, Row
from gpud.core.standing import waiting

from .build import CPUS, A, happens, submit
from .build import ready as ready_with

BITS = 5
GPU = Device("g", ("0",), memory_mib=64)

changes = st.lists(
    st.tuples(st.integers(0, (1 << BITS) - 1), st.none() | st.tuples(st.integers(0, 9))),
    max_size=40,
)


@given(changes=changes, below=st.integers(0, 2 << BITS))
def test_the_least_value_below_a_key_is_that_of_a_walk(
    changes: list[tuple[int, tuple[int] | None]], below: int
) -> None:
    minima: Minima[tuple[int]] = Minima(BITS)
    values: dict[int, tuple[int]] = {}
    for key, value in changes:
        minima.set(key, value)
        values.pop(key, None)
        if value is not None:
            values[key] = value
    found = [value for key, value in values.items() if key < below]
    assert minima.least(below) == min(found, default=None)


def test_a_tree_without_bits_has_one_key() -> None:
    minima: Minima[tuple[int]] = Minima(0)
    assert minima.least(1) is None
    minima.set(0, (3,))
    assert (minima.least(1), minima.least(0)) == ((3,), None)
    minima.set(0, None)
    assert minima.least(1) is None


requests = st.sampled_from(
    [
        *[Request(), Request(1), Request(1, exclusive=True)],
        *[Request(vram_mib=n) for n in (1, 5, 9, 40)],
        *[Request(vram_mib=AUTO_VRAM, likeness=name) for name in ("x", "y")],
    ]
)
belongings = st.builds(
    keys_of,
    st.sampled_from(["", "g", "h"]),
    st.sampled_from([1, 2]),
    st.just(""),
    st.sampled_from([(), (), ("a=b",)]),
)
GATES = ("group:g", "group:h", "user:1", "label:a=b")
deeds = st.lists(
    st.one_of(
        st.tuples(st.just("push"), requests, st.integers(-2, 2), belongings),
        st.tuples(st.just("leave"), st.integers(1, 12)),
        st.tuples(st.just("come back"), st.integers(1, 12), requests),
        st.tuples(st.just("learn"), st.sampled_from("xy"), st.integers(1, 60)),
        st.tuples(st.just("look"), st.integers(0, 64)),
        st.tuples(st.just("devices"), st.integers(20, 99)),
        st.tuples(st.just("windows"), st.sets(st.sampled_from(GATES))),
        st.tuples(st.just("rules"), st.sets(st.sampled_from(GATES)), st.booleans()),
    ),
    max_size=30,
)
NOW_MS, LATER_MS = 1000, 2000


@given(deeds=deeds, below=st.integers(0, 64))
def test_the_first_of_those_that_want_less_is_that_of_a_walk(
    deeds: list[tuple[str, object]], below: int
) -> None:
    jobs: dict[JobId, Job] = {}
    pool, gates = Pool([GPU]), Gates()
    ready = Ready(jobs, pool, gates)
    ruled: set[str] = set()
    opened: set[str] = set()

    def look(bound: int) -> None:
        check(ready, jobs, pool, bound, ruled - opened)

    for deed in deeds:
        match deed:
            case ("push", Request() as request, int(priority), tuple(belongs)):
                job = job_of(len(jobs) + 1, request, priority, belongs)
                jobs[job.id] = job
                ready.push(job)
            case ("leave", int(number)) if number in jobs:
                jobs[JobId(number)].state = JobState.HELD
            case ("come back", int(number), Request() as request) if number in jobs:
                job = jobs[JobId(number)]
                if not is_ready(job):  # only who does not wait may ask for something else
                    job.state, job.request = JobState.QUEUED, request
                    ready.push(job)
            case ("learn", str(likeness), int(mib)):
                pool.usual_mib[likeness] = mib
                ready.learn(likeness)
            case ("devices", int(memory_mib)):
                pool.replace([Device("g", ("0",), memory_mib=memory_mib)])
                ready.resolve_all()
            case ("look", int(bound)):
                look(bound)
            case ("windows", set(keys)):
                opened = keys
                told = {key: Window(key in keys, LATER_MS) for key in GATES}
                gates.tell("clock", told)
                ready.reopen_all()
            case ("rules", set(keys), bool(by_user)):
                ruled = keys
                rules = Rules({key: Rule(windows={"clock": "a window"}) for key in keys})
                gates.change(rules, [])
                ready.rebuild(by_user=by_user)
    look(below)
    look(ANY_MEMORY)


def test_a_window_that_has_ended_lets_nobody_through_until_it_is_told_of_again() -> None:
    jobs: dict[JobId, Job] = {JobId(1): job_of(1, Request(), 0, ("group:g",))}
    gates = Gates(Rules({"group:g": Rule(windows={"clock": "the window nights"})}))
    ready = Ready(jobs, Pool([GPU]), gates)
    ready.push(jobs[JobId(1)])
    gates.tell("clock", {"group:g": Window(True, LATER_MS)})
    (row,) = rows_of(ready)
    assert ready.first(row, LATER_MS - 1)
    assert not ready.first(row, LATER_MS)
    assert not ready.first(row, LATER_MS - 1), "it opens by itself"
    ready.reopen_all()
    assert ready.first(row, LATER_MS - 1)


def test_who_waits_for_the_lane_takes_a_gpu_that_is_found() -> None:
    state = ready_with(CPUS)
    first, _, third = submit(state), submit(state), submit(state)
    assert third not in state.attempts, "the lane has two slots"
    happens(state, DevicesChanged((CPUS, A)))
    assert [part.device for part in state.attempts[third].lease] == ["a"]
    assert [part.device for part in state.attempts[first].lease] == ["cpu"]


def check(ready: Ready, jobs: dict[JobId, Job], pool: Pool, below: int, shut: set[str]) -> None:
    open_ = [job for job in jobs.values() if is_ready(job) and shut.isdisjoint(job.belongs)]
    wanted: dict[object, tuple[object, int]] = {}
    for job in open_:
        asks = resolved(pool, job.request)
        kind = (asks.gpus, asks.share_milli, asks.gpu_model, asks.exclusive, asks.vram_mib > 0)
        key = kind, shape_of(job)[1], job.uid if ready.by_user else ANYBODY
        if asks.vram_mib < below:
            mine = rank_of(job), asks.vram_mib
            wanted[key] = min(wanted.get(key, mine), mine)
    found = {}
    for row in rows_of(ready):
        first = ready.first(row, NOW_MS)
        assert first is None or first[0][-1] in {job.id for job in open_}
        if (first := ready.first(row, NOW_MS, below)) is not None:
            found[row.bay.kind, row.within_s, row.bay.user] = first[:2]
            assert ready.asks(first) == resolved(pool, jobs[first[0][-1]].request)
    assert found == wanted
    spots = {(ready.spot_of(job), rank_of(job)) for job in jobs.values() if is_ready(job)}
    assert spots <= waiting(ready)


def rows_of(ready: Ready) -> list[Row]:
    return [row for bay in ready.bays() for row in bay.rows.values()]


def job_of(number: int, request: Request, priority: int, belongs: tuple[str, ...] = ()) -> Job:
    return Job(
        id=JobId(number),
        request=request,
        priority=priority,
        retry=RetryPolicy(),
        grace_s=1,
        state=JobState.QUEUED,
        submitted_at_ms=0,
        retries_left=0,
        uid=2 if "user:2" in belongs else 1,
        belongs=belongs,
    )

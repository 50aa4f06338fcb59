"""Lives of small pools, and what must be true of a forecast that is made in the midst of one.

Used by test_foretold.py, which wants them to hold, and by test_planted_forecast_bugs.py, which
wants them to fail. The rest of such a life is in forward.py.
"""

from __future__ import annotations

from hypothesis import strategies as st
from msgspec import Struct, structs

from gpud.core.actions import StartAttempt
from gpud.core.changes import Changes
from gpud.core.dispatching import dispatch
from gpud.core.events import DrainRequested, JobsSubmitted, UndrainRequested
from gpud.core.forecast import Walk, forecast, nobody_knows
from gpud.core.model import After, Array, Device, JobId, JobSpec, NewJob, Request, Span
from gpud.core.remedies import Remedy, remedies
from gpud.core.scheduler import handle
from gpud.core.state import State
from gpud.core.twin import Twin

from .build import CPUS, NOW_MS, A, B, happens, ready
from .foreseen import all_queued, check_twin, everything
from .forward import FOREVER, World

MINUTE_MS = 60_000
AT_ONCE = JobSpec(b"train", grace_s=0.0, linger_s=0.0)  # is gone at the end of its limit

POOLS = [
    (A,),
    (A, B),
    (A, B, CPUS),
    (Device("h", ("h",), 2, memory_mib=40_000), B),
    tuple(Device(name, (name,), memory_mib=40_000) for name in "abc"),
    (Device("a,b", ("a", "b")), Device("c", ("c",), 2), Device("d", ("d",)), CPUS),
]
REQUESTS = [
    *[Request()] * 3, Request(1), Request(2), Request(exclusive=True), Request(share_milli=300),
    Request(vram_mib=15_000), Request(3), Request(0),
]  # fmt: skip

lengths = st.integers(1, 60)  # minutes
specs = st.builds(
    lambda request, runs, spare, size, **more: (
        structs.replace(
            AT_ONCE,
            request=request,
            time_limit_s=None if spare is None else 60.0 * (runs + spare),
            array=Array(((0, size - 1, 1),)) if size else None,
            **more,
        ),
        MINUTE_MS * runs,
    ),
    request=st.sampled_from(REQUESTS),
    runs=lengths,
    spare=st.sampled_from([0, 0, 0, 5, 100, None]),
    size=st.sampled_from([0, 0, 0, 0, 3, 6]),
    priority=st.sampled_from([0, 0, 1, -1]),
    held=st.sampled_from([False] * 7 + [True]),
    begin_ms=st.sampled_from([0] * 4 + [NOW_MS + 10 * MINUTE_MS, NOW_MS + 45 * MINUTE_MS]),
    deadline_ms=st.sampled_from([0] * 5 + [NOW_MS + 70 * MINUTE_MS, NOW_MS + 200 * MINUTE_MS]),
)
afters = st.lists(
    st.sampled_from([(), (), (), (Span(-1, -1),), (Span(-3, -2, True),), (Span(-2, -1),)]),
    min_size=14,
    max_size=14,
)


class Life(Struct, frozen=True):
    """Jobs with how long each runs and whom it comes after; a forecast is made after so many
    moments at which something happened. `usual`: it is known how long they run, else their limits
    alone are, and they use them up."""

    pool: tuple[Device, ...]
    jobs: list[tuple[JobSpec, int]]
    after: list[tuple[Span, ...]]
    instants: int
    usual: bool

    def runs_ms(self, spec: JobSpec, runs_ms: int) -> int:
        if self.usual:
            return runs_ms
        return FOREVER if spec.time_limit_s is None else int(1000 * spec.time_limit_s)


lives = st.builds(
    Life,
    pool=st.sampled_from(POOLS),
    jobs=st.lists(specs, min_size=2, max_size=14),
    after=afters,
    instants=st.integers(0, 8),
    usual=st.booleans(),
)


def world_of(life: Life) -> World:
    """As it is when the forecast is made."""
    state, runs_ms = ready(*life.pool), {}
    happens(state, DrainRequested(1))
    for (spec, takes_ms), spans in zip(life.jobs, life.after, strict=False):
        first = state.next_id
        named = tuple(span for span in spans if first + span.first > 0)
        new = NewJob(structs.replace(spec, after=After(named)))
        happens(state, JobsSubmitted(1, (new,)))  # or it is refused
        runs_ms |= dict.fromkeys(range(first, state.next_id), life.runs_ms(spec, takes_ms))
    handle(state, UndrainRequested(1), NOW_MS)
    world = World(state, NOW_MS, runs_ms)
    world.go_on(life.instants)
    return world


def check_comes_true(life: Life) -> None:
    world = world_of(life)
    runs_like = (lambda job: [world.runs_ms[job]] * 3) if life.usual else nobody_knows
    asked, now_ms = all_queued(world.state), world.now_ms
    told = forecast(world.state, now_ms, asked, runs_like)
    assert told.keys() == set(asked)
    world.go_on()
    for job, found in told.items():
        assert found.start_ms == world.started_ms.get(job), f"job {job}: {found}"
        assert found.later_than_ms is None
        if found.start_ms is None:
            is_gone = world.state.find(job) is None
            assert bool(found.never) != bool(found.unknown), f"job {job}: {found}"
            assert bool(found.never) == is_gone or not life.usual, f"job {job}: {found}"
            assert is_gone or not found.never, f"job {job}: {found}"
            continue
        assert found.start_ms >= now_ms
        ending = set(world.ended_at.get(found.start_ms, ())) if found.start_ms > now_ms else set()
        assert set(found.after) <= ending, f"job {job}: {found}"
        assert bool(found.after) == bool(ending), f"job {job}: {found}"


def check_changes_nothing(life: Life) -> None:
    """Nor does what happens later change a forecast that has begun. Some things are overdue."""
    world = world_of(life)
    state, asked, now_ms = world.state, all_queued(world.state), world.now_ms + 30 * MINUTE_MS
    state.changes = Changes(draining=False)
    before = everything(state)
    whole = forecast(state, now_ms, asked)
    assert everything(state) == before
    walk = Walk(state, now_ms, asked, nobody_knows)
    pieces = walk.pieces()
    next(pieces, None)
    world.go_on()
    for _ in pieces:
        pass
    assert walk.found == whole


def check_is_like_the_live_one(life: Life) -> None:
    check_twin(world_of(life).state)


def check_remedies_help(life: Life) -> None:
    """What a job is said to have to ask for to start now is less, and with it it starts."""
    world = world_of(life)
    for job in all_queued(world.state):
        for remedy in remedies(world.state, job, AT_ONCE, world.now_ms):
            check_remedy(world.state, job, remedy, world.now_ms)


def check_remedy(state: State, job_id: JobId, remedy: Remedy, now_ms: int) -> None:
    twin = Twin(state)
    for _ in twin.load():
        pass
    job = twin.state.find(job_id)
    assert job is not None
    job = twin.state.split(job, job_id) if job.rest else job
    assert (job.request != remedy.request) == (remedy.time_limit_s is None)
    job.request = remedy.request
    if remedy.time_limit_s is not None:
        assert not 0 < job.within_s <= remedy.time_limit_s
        job.within_s = remedy.time_limit_s
    twin.state.ready.push(job)
    started = [a.job for a in dispatch(twin.state, now_ms) if isinstance(a, StartAttempt)]
    assert job_id in started, f"job {job_id} does not start {remedy.text}"

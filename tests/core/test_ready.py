"""Who is next: the tree of least values and the shelves, against what a walk over all jobs says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpud.core.events import DevicesChanged
from gpud.core.minima import Minima
from gpud.core.model import AUTO_VRAM, Device, Job, JobId, JobState, Request, RetryPolicy
from gpud.core.placement import resolved
from gpud.core.pool import Pool
from gpud.core.ready import ANY_MEMORY, Ready, is_ready, rank_of

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
deeds = st.lists(
    st.one_of(
        st.tuples(st.just("push"), requests, st.integers(-2, 2)),
        st.tuples(st.just("leave"), st.integers(1, 12), st.none()),
        st.tuples(st.just("come back"), st.integers(1, 12), requests),
        st.tuples(st.just("learn"), st.sampled_from("xy"), st.integers(1, 60)),
        st.tuples(st.just("look"), st.none(), st.integers(0, 64)),
        st.tuples(st.just("devices"), st.integers(20, 99), st.none()),
    ),
    max_size=30,
)


@given(deeds=deeds, below=st.integers(0, 64))
def test_the_first_of_those_that_want_less_is_that_of_a_walk(
    deeds: list[tuple[str, object, object]], below: int
) -> None:
    jobs: dict[JobId, Job] = {}
    pool = Pool([GPU])
    ready = Ready(jobs, pool)
    for deed in deeds:
        match deed:
            case ("push", Request() as request, int(priority)):
                job = job_of(len(jobs) + 1, request, priority)
                jobs[job.id] = job
                ready.push(job)
            case ("leave", int(number), None) if number in jobs:
                jobs[JobId(number)].state = JobState.HELD
            case ("come back", int(number), Request() as request) if number in jobs:
                job = jobs[JobId(number)]
                if not is_ready(job):  # only who does not wait may ask for something else
                    job.state, job.request = JobState.QUEUED, request
                    ready.push(job)
            case ("learn", str(likeness), int(mib)):
                pool.usual_mib[likeness] = mib
                ready.learn(likeness)
            case ("devices", int(memory_mib), None):
                pool.replace([Device("g", ("0",), memory_mib=memory_mib)])
                ready.resolve_all()
            case ("look", None, int(bound)):
                check(ready, jobs, pool, bound)
    check(ready, jobs, pool, below)
    check(ready, jobs, pool, ANY_MEMORY)


def test_who_waits_for_the_lane_takes_a_gpu_that_is_found() -> None:
    state = ready_with(CPUS)
    first, _, third = submit(state), submit(state), submit(state)
    assert third not in state.attempts, "the lane has two slots"
    happens(state, DevicesChanged((CPUS, A)))
    assert [part.device for part in state.attempts[third].lease] == ["a"]
    assert [part.device for part in state.attempts[first].lease] == ["cpu"]


def check(ready: Ready, jobs: dict[JobId, Job], pool: Pool, below: int) -> None:
    wanted: dict[object, tuple[tuple[int, JobId], int]] = {}
    heads = {shelf.kind: shelf for *_, shelf in ready.heads()}
    for job in jobs.values():
        if not is_ready(job):
            continue
        asks = resolved(pool, job.request)
        kind = (asks.gpus, asks.share_milli, asks.gpu_model, asks.exclusive, asks.vram_mib > 0)
        assert kind in heads, f"{job} waits on no shelf"
        if asks.vram_mib < below:
            wanted[kind] = min(
                wanted.get(kind, (rank_of(job), asks.vram_mib)),
                (
                    rank_of(job),
                    asks.vram_mib,
                ),
            )
    found = {}
    for kind, shelf in heads.items():
        if (first := ready.first(shelf, below)) is not None:
            found[kind] = first[:2]
            assert ready.asks(first) == resolved(pool, jobs[first[0][-1]].request)
    assert found == wanted


def job_of(number: int, request: Request, priority: int) -> Job:
    return Job(
        id=JobId(number),
        request=request,
        priority=priority,
        retry=RetryPolicy(),
        grace_s=1,
        state=JobState.QUEUED,
        submitted_at_ms=0,
        retries_left=0,
    )

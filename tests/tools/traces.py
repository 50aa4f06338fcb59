"""Short ways to a trace, a pool and a schedule in the tests of the simulator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hypothesis import strategies as st

from gpud.core.model import FULL_MILLI, ONE_SLOT, Device, LeasePart, Request
from gpud.tools.schedule import Schedule
from gpud.tools.simulate import PoolShape
from gpud.tools.trace import TraceJob

GIB = 1024


def job(
    duration_s: float,
    gpus: int | None = None,
    *,
    at_s: float = 0,
    limit_s: float = 0,
    priority: int = 0,
    request: Request = ONE_SLOT,
) -> TraceJob:
    return TraceJob(
        submit_ms=round(1000 * at_s),
        duration_ms=round(1000 * duration_s),
        request=request if gpus is None else Request(gpus=gpus),
        limit_ms=round(1000 * limit_s),
        priority=priority,
    )


def pool(gpus: int, slots_per_gpu: int = 1, *, gib: int = 0, cpu_slots: int = 0) -> list[Device]:
    return list(PoolShape(gpus, slots_per_gpu, GIB * gib, cpu_slots).devices())


def times_s(schedule: Schedule) -> list[tuple[float, float]]:
    """(start, end) of each job, in the order of the trace."""
    both = zip(schedule.start_ms, schedule.end_ms, strict=True)
    return [(start / 1000, end / 1000) for start, end in both]


def check_capacity(schedule: Schedule, devices: Iterable[Device]) -> None:
    """No device ever holds more than all of it: counted here, from starts and ends alone."""
    memory = {device.key: device.memory_mib for device in devices}
    milli, mib = dict.fromkeys(memory, 0), dict.fromkeys(memory, 0)
    moments: list[tuple[int, int, LeasePart]] = []
    for place in schedule.ran():
        for part in schedule.leases[place]:
            if schedule.start_ms[place] < schedule.end_ms[place]:  # else it holds it for no time
                moments.append((schedule.start_ms[place], 1, part))
                moments.append((schedule.end_ms[place], -1, part))
    for _, sign, part in sorted(moments, key=lambda moment: moment[:2]):  # ends first
        milli[part.device] += sign * part.milli
        mib[part.device] += sign * part.mib
        assert 0 <= milli[part.device] <= FULL_MILLI
        assert 0 <= mib[part.device] <= memory[part.device]


requests = st.one_of(
    st.builds(Request, gpus=st.sampled_from([None, 0, 1, 1, 2, 3, 4])),
    st.builds(Request, gpus=st.just(1), share_milli=st.sampled_from([1, 250, 500, 999])),
    st.builds(
        Request, gpus=st.sampled_from([None, 1, 2]), vram_mib=st.sampled_from([1, 5, 10, 11])
    ),
)
wide = st.builds(Request, gpus=st.sampled_from([1, 1, 1, 2, 3]))
shapes = st.builds(
    PoolShape, st.integers(1, 4), st.integers(1, 3), st.sampled_from([0, 10]), st.integers(0, 2)
)


def traces(asked: st.SearchStrategy[Request] = requests) -> st.SearchStrategy[Sequence[TraceJob]]:
    """Up to 25 jobs within seconds and minutes, with coinciding times; in order of submit."""
    jobs = st.builds(
        TraceJob,
        submit_ms=st.integers(0, 20).map(lambda s: 5000 * s),
        duration_ms=st.one_of(st.integers(0, 6).map(lambda s: 5000 * s), st.integers(0, 300_000)),
        request=asked,
        limit_ms=st.sampled_from([0, 0, 5000, 20_000, 100_000, 400_000]),
        priority=st.sampled_from([0, 0, 0, 1]),
    )
    return st.lists(jobs, min_size=1, max_size=25).map(
        lambda many: sorted(many, key=lambda one: one.submit_ms)
    )

"""Nobody waits for ever, and nobody who is first waits for those that come later."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gpud.core.model import CPU_LANE, Device, JobId, Request
from gpud.core.reservation import NEVER

from .capacity import Free
from .simulated import Run, Turn, World

PLAIN = [Device(name, (name,)) for name in "abc"]
SHARED = [Device(name, (name,), 2, memory_mib=40_000) for name in "ab"]
ROOMY = [Device(name, (name,), memory_mib=40_000) for name in "abc"]
GROUPED = [Device("a,b", ("a", "b")), Device("c", ("c",), 2), Device("d", ("d",))]
POOLS = [PLAIN, SHARED, ROOMY, GROUPED, [*ROOMY, Device(CPU_LANE, (), 2)]]

WHOLE = [Request(), Request(1), Request(2), Request(exclusive=True), Request(2, exclusive=True)]
SHARES = [Request(share_milli=milli) for milli in (100, 300, 500, 700)]
MEMORY = [Request(vram_mib=mib) for mib in (5_000, 15_000, 25_000)] + [Request(2, vram_mib=9_000)]
THREE, CPU = Request(3), Request(0)

runs = st.builds(
    Run,
    st.sampled_from([*WHOLE, *SHARES, *MEMORY, THREE, CPU]),
    st.integers(0, 60),
    st.integers(1, 40),
    st.booleans(),
    st.sampled_from([0, 0, 5, 100]),
)
workloads = st.lists(runs, min_size=3, max_size=40)


def world_of(devices: list[Device], runs: list[Run]) -> World:
    free = Free(devices, [])
    world = World(devices, [run for run in runs if free.could_ever_fit(run.request)])
    world.run()
    return world


def is_for_cpu(world: World, job: JobId) -> bool:
    return world.runs[job - 1].request == CPU


def first_of(world: World, turn: Turn) -> JobId | None:
    """Who is first in rank of those that wait for GPUs."""
    return min((job for job in turn.waiting if not is_for_cpu(world, job)), default=None)


@settings(max_examples=400)
@given(devices=st.sampled_from(POOLS), runs=workloads)
def test_the_first_starts_when_those_have_ended_that_were_there_before_it(
    devices: list[Device], runs: list[Run]
) -> None:
    """And those that were let into the gap, which end in time by their limits."""
    world = world_of(devices, runs)
    waited_for: dict[JobId, set[JobId]] = {}
    for turn in world.turns:
        first = first_of(world, turn)
        if first is None:
            continue
        if first not in waited_for:
            waited_for[first] = set(turn.live)
        elif turn.kept is not None and turn.kept.job == first:
            waited_for[first] |= gap_jobs(world, turn)
    for first, others in waited_for.items():
        latest = max(world.ran[job][1] for job in others)
        assert world.ran[first][0] <= latest, f"job {first} waits for others than {others}"


def gap_jobs(world: World, turn: Turn) -> set[JobId]:
    """Those that were started on what is kept; each ends in time by its limit."""
    kept = turn.kept
    assert kept is not None
    found = set()
    for job, lease in turn.started.items():
        if job > kept.job and kept.devices & {part.device for part in lease}:
            run = world.runs[job - 1]
            end_ms = turn.now_ms + 1000 * (run.runs_s + run.spare_s)
            assert run.limited, f"job {job} without a limit takes what is kept: {kept}"
            assert end_ms <= kept.at_ms != NEVER, f"job {job} takes what is kept: {kept}"
            found.add(job)
    return found


@settings(max_examples=400)
@given(devices=st.sampled_from(POOLS), runs=workloads)
def test_the_first_starts_at_the_time_that_was_promised(
    devices: list[Device], runs: list[Run]
) -> None:
    """However many short ones are let into the gap."""
    world = world_of(devices, runs)
    for turn in world.turns:
        kept = turn.kept
        if kept is not None and kept.job in turn.waiting and kept.at_ms != NEVER:
            start_ms = world.ran[kept.job][0]
            assert start_ms <= kept.at_ms, f"{kept} at {turn.now_ms}, and it starts at {start_ms}"


@settings(max_examples=400)
@given(devices=st.sampled_from(POOLS), runs=workloads)
def test_what_is_kept_stays_kept(devices: list[Device], runs: list[Run]) -> None:
    """Until its job starts: but for a device with room in the place of one without."""
    world = world_of(devices, runs)
    for before, after in zip(world.turns, world.turns[1:], strict=False):
        then, now = before.kept, after.kept
        if then is None or now is None or then.job != now.job or now.job not in after.waiting:
            continue
        assert now.at_ms <= then.at_ms, f"{then} becomes {now}"
        assert len(then.devices - now.devices) <= len(now.devices - then.devices) or (
            len(now.devices) == 1  # a group of GPUs instead
        )

"""What attempts used of their GPUs: energy, memory, utilisation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.core.events import AttemptEnded, Event, GpusSeen
from gpud.core.model import Attempt, JobId, LeasePart, Phase, RetryPolicy, Usage
from gpud.core.sight import GpuProcess, GpuSight
from gpud.core.state import State
from gpud.core.usage import Part, add_look, close, mean_util

from .build import BOOT, NOW_MS, happens, ready, started, submit
from .draws import HALVES, U

GPU = "GPU-u"


def part(job: int, milli: int = 1000, **usage: object) -> Part:
    """An attempt that began at 1,000 ms, when the counter stood at 0."""
    lease = LeasePart(GPU, milli)
    attempt = Attempt(JobId(job), 1, Phase.RUNNING, (lease,), BOOT, 0, started_at_ms=1_000)
    attempt.usage = Usage(**({"counters": {GPU: 0}} | usage))
    return attempt, lease


def of(job: int, util: int | None = None, mib: int | None = None) -> GpuProcess:
    return GpuProcess(100 + job, "python", "ann", mib, util, job, 1)


def sight(*processes: GpuProcess, **fields: object) -> GpuSight:
    return GpuSight(GPU, processes=processes, **fields)


def look(seen: GpuSight, *parts: Part, at_ms: int = 3_000, claimed_mj: int = 0) -> list[int | None]:
    """Added to each of them; gives back what add_look did."""
    found = [add_look(a, GPU, p, seen, at_ms, parts, claimed_mj) for a, p in parts]
    for attempt, _ in parts:
        attempt.usage.at_ms = at_ms
    return found


def energy(*parts: Part) -> list[int]:
    return [attempt.usage.energy_mj for attempt, _ in parts]


# -- alone ----------------------------------------------------------------------------------------


def test_alone_an_attempt_gets_all_that_the_counter_went_up_by() -> None:
    one = part(1, counters={GPU: 500})
    look(sight(energy_mj=1_300), one)
    look(sight(energy_mj=2_000), one)
    assert energy(one) == [1_500]


def test_nobody_knows_the_energy_before_the_first_counter() -> None:
    one = part(1, counters={})
    look(sight(energy_mj=1_300), one)
    look(sight(), one)  # the driver does not say
    look(sight(energy_mj=1_400), one)
    assert energy(one) == [100]


def test_when_the_driver_was_loaded_again_the_counter_is_taken_up_anew() -> None:
    one = part(1, counters={GPU: 5_000})
    look(sight(energy_mj=200), one)
    assert energy(one) == [0]
    look(sight(energy_mj=260), one)
    assert energy(one) == [60]


def test_a_counter_that_jumps_is_taken_up_anew() -> None:
    """No GPU takes so much: a value that was told once, or that was not told once."""
    one = part(1, counters={GPU: 1_000})
    for counter_mj in (1_500, 2**64 - 1, 1_700, 1_900, 0, 10**10, 10**10 + 50):
        look(sight(energy_mj=counter_mj), one)
    assert energy(one) == [500 + 200 + 50]


def test_after_a_minute_without_a_look_all_of_the_energy_is_counted() -> None:
    one = part(1)
    look(sight(energy_mj=60_000_000), one, at_ms=61_000)  # 1 kW
    look(sight(energy_mj=120_000_000), one, at_ms=61_001)  # it did not answer for long
    assert energy(one) == [120_000_000]


def test_on_several_gpus_each_has_its_counter() -> None:
    one = part(1, counters={GPU: 100, "GPU-v": 900})
    attempt, lease = one
    for uuid, mj in [(GPU, 150), ("GPU-v", 903)]:
        add_look(attempt, uuid, lease, GpuSight(uuid, energy_mj=mj), 3_000, [one])
    assert energy(one) == [53]
    assert attempt.usage.counters == {GPU: 150, "GPU-v": 903}


def test_the_peak_is_the_most_memory_of_all_its_processes_at_one_look() -> None:
    one = part(1)
    for mibs in ([700, 200], [300, 400], [None, 100]):
        look(sight(*(of(1, mib=mib) for mib in mibs), of(2, mib=9_000), used_mib=9_999), one)
    assert one[0].usage.peak_mib == 900


@pytest.mark.parametrize(
    ("attributable", "others", "peak_mib"), [(False, 0, 4_000), (False, 1, 0), (True, 0, 0)]
)
def test_where_processes_cannot_be_told_apart_an_attempt_alone_has_all_memory(
    attributable: bool, others: int, peak_mib: int
) -> None:
    parts = [part(job) for job in range(1, 2 + others)]
    look(sight(used_mib=4_000, attributable=attributable), *parts)
    assert parts[0][0].usage.peak_mib == peak_mib


def test_utilisation_is_the_mean_over_the_time_that_was_looked_at() -> None:
    one = part(1)
    assert look(sight(util=50), one, at_ms=3_000) == [50]  # 2 s since the start
    assert look(sight(util=100), one, at_ms=4_000) == [100]
    assert look(sight(), one, at_ms=9_000) == [None]
    assert look(sight(util=20), one, at_ms=10_000) == [20]
    assert (one[0].usage.busy_ms, one[0].usage.seen_ms) == (2_200, 4_000)
    assert mean_util(one[0].usage) == 55


def test_of_what_nobody_looked_at_there_is_no_mean() -> None:
    assert mean_util(Usage()) is None
    assert mean_util(Usage(seen_ms=1_000)) == 0


# -- together -------------------------------------------------------------------------------------


def test_two_share_by_what_the_driver_says_each_of_them_used() -> None:
    one, two = part(1, 500), part(2, 500)
    utils = look(sight(of(1, 60), of(2, 15), of(2, 5), util=90, energy_mj=1_000), one, two)
    assert energy(one, two) == [750, 250]
    assert utils == [60, 20]


def test_two_share_by_their_leases_where_nobody_knows() -> None:
    one, two = part(1, 300), part(2, 500)
    utils = look(sight(of(1), of(2), util=80, energy_mj=1_000), one, two)
    assert energy(one, two) == [375, 625]
    assert utils == [30, 50]


def test_what_strangers_use_is_not_counted_among_those_with_a_lease() -> None:
    one, two = part(1, 500), part(2, 500)
    look(sight(of(1, 10), of(2, 30), of(9, 60), energy_mj=1_000), one, two)
    assert energy(one, two) == [250, 750]


def test_more_than_all_of_a_gpu_is_all_of_it() -> None:
    assert look(sight(of(1, 70), of(1, 70)), part(1)) == [100]


def test_what_those_got_that_have_ended_is_not_given_again() -> None:
    one, two = part(1, 500), part(2, 500)
    look(sight(energy_mj=1_000), one, two, claimed_mj=400)
    assert energy(one, two) == [300, 300]
    look(sight(energy_mj=1_100), one, two, claimed_mj=400)  # more than there is
    assert energy(one, two) == [300, 300]


# -- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "end_ms", "at_ms", "milli", "mj"),
    [
        (sight(power_mw=200_000, energy_mj=1), 5_500, 3_000, 1000, 500_000),  # 200 W, 2.5 s
        (sight(power_mw=200_000, energy_mj=1), 5_500, 3_000, 300, 150_000),
        (sight(power_mw=200_000, energy_mj=1), 2_000, 3_000, 1000, 0),  # a look after the end
        (sight(power_mw=200_000, energy_mj=1), 5_500, 0, 1000, 0),  # never looked at
        (sight(power_mw=200_000), 5_500, 3_000, 1000, 0),  # no counter to pay it back to
        (sight(energy_mj=1), 5_500, 3_000, 1000, 0),
    ],
)
def test_from_the_last_look_to_the_end_the_power_is_reckoned(
    seen: GpuSight, end_ms: int, at_ms: int, milli: int, mj: int
) -> None:
    attempt, lease = part(1, milli, energy_mj=70, at_ms=at_ms)
    assert close(attempt.usage, lease, seen, end_ms) == mj
    assert attempt.usage.energy_mj == 70 + mj


# -- from look to look ----------------------------------------------------------------------------


def at(ms: int, state: State, event: Event) -> None:
    happens(state, event, now_ms=NOW_MS + ms)


def counter(uuid: str, mj: int, ms: int, *processes: GpuProcess, power_mw: int = 100_000) -> Event:
    found = GpuSight(uuid, processes=processes, util=50, energy_mj=mj, power_mw=power_mw)
    return GpusSeen(NOW_MS + ms, (found,))


def used(state: State, job: int, attempt: int = 1) -> Usage:
    return state.changes.attempts[JobId(job), attempt].usage


def test_the_energy_from_before_a_start_is_not_the_attempts() -> None:
    state = ready(U)
    at(0, state, counter("GPU-u", 70_000, -1))
    started(state, submit(state))
    at(2_001, state, counter("GPU-u", 71_000, 2_000))
    assert used(state, 1).energy_mj == 1_000


def test_who_goes_on_pays_for_what_was_reckoned_for_the_one_that_ended() -> None:
    state = ready(HALVES)
    at(0, state, counter("GPU-w", 0, -1))
    for job in (submit(state), submit(state)):
        started(state, job)
    at(2_001, state, counter("GPU-w", 200_000, 2_000))
    at(3_000, state, AttemptEnded(JobId(1), 1, NOW_MS + 3_000, exit_code=1))
    assert used(state, 1).energy_mj == 150_000  # half of the 200 J, and 50 W for 1 s
    at(4_001, state, counter("GPU-w", 400_000, 4_000))
    assert used(state, 2).energy_mj == 250_000  # all of the next 200 J, but for 50 J
    at(6_001, state, counter("GPU-w", 600_000, 6_000))
    assert used(state, 2).energy_mj == 450_000


def test_what_was_reckoned_and_not_used_up_is_paid_at_the_look_after() -> None:
    state = ready(HALVES)
    at(0, state, counter("GPU-w", 0, -1))
    for job in (submit(state), submit(state)):
        started(state, job)
    at(2_001, state, counter("GPU-w", 200_000, 2_000))
    at(3_000, state, AttemptEnded(JobId(1), 1, NOW_MS + 3_000, exit_code=0))
    at(4_001, state, counter("GPU-w", 230_000, 4_000))  # 30 J of the 50 J
    at(6_001, state, counter("GPU-w", 300_000, 6_000))
    assert used(state, 2).energy_mj == 150_000


def test_each_attempt_of_a_job_has_its_own_usage() -> None:
    state = ready(U)
    at(0, state, counter("GPU-u", 0, -1))
    job = submit(state, retry=RetryPolicy(1, backoff_s=0))
    started(state, job)
    at(2_001, state, counter("GPU-u", 200_000, 2_000, of(1, mib=700)))
    at(2_500, state, AttemptEnded(job, 1, NOW_MS + 2_000, lost="nobody saw its end"))
    at(2_601, state, counter("GPU-u", 210_000, 2_600))
    assert (used(state, 1).energy_mj, used(state, 1).peak_mib) == (200_000, 700)
    assert used(state, 1, 2) == Usage(counters={"GPU-u": 210_000})


def test_the_most_memory_that_any_run_took_is_remembered() -> None:
    state = ready(U)
    for job, mib in [(submit(state), 700), (submit(state), 900), (submit(state), 800)]:
        ms = 10 * job
        at(ms, state, counter("GPU-u", 0, ms - 1))
        at(ms + 5, state, counter("GPU-u", 0, ms + 4, of(job, mib=mib)))
        at(ms + 6, state, AttemptEnded(job, 1, NOW_MS + ms + 6, exit_code=0, likeness="x"))
    assert state.pool.usual_mib == state.changes.usual_mib == {"x": 900}


def test_what_was_used_so_far_is_written_down_once_a_minute() -> None:
    state = ready(U)
    at(0, state, counter("GPU-u", 0, -1))
    started(state, submit(state))
    written = []
    for ms in (2_000, 19_999, 20_000, 79_999, 80_000):  # the minute is full at 20 s
        state.take_changes()
        at(ms + 1, state, counter("GPU-u", 100 * ms, ms))
        written.append(bool(state.changes.attempts))
    assert written == [True, False, True, False, True]


HAPPENINGS = st.lists(
    st.one_of(
        st.tuples(
            st.integers(-5_000, 900_000),  # what the counter goes up by; or it begins at 0 again
            st.integers(0, 400_000),
            st.lists(st.one_of(st.none(), st.integers(0, 100)), min_size=2, max_size=6),
        ),
        st.integers(0, 3_000),  # how long after the last look one of them has ended
    ),
    max_size=25,
)


@given(happenings=HAPPENINGS)
def test_no_more_energy_is_given_than_was_counted_or_is_owed(happenings: list[object]) -> None:
    """Two jobs share a GPU, and others follow those that have ended; what was reckoned for these
    is owed."""
    state = ready(HALVES)
    mj = counted = owed = ms = 0
    at(0, state, counter("GPU-w", mj, -1))
    for _ in range(30):
        submit(state)
    for happening in happenings:
        ms += 3_000
        if isinstance(happening, int) and state.attempts:
            attempt = next(iter(state.attempts.values()))
            before = attempt.usage.energy_mj
            end_ms = NOW_MS + ms - 3_000 + happening
            at(ms, state, AttemptEnded(attempt.job, 1, end_ms, exit_code=0))
            owed += attempt.usage.energy_mj - before
        elif isinstance(happening, tuple):
            up, power_mw, utils = happening
            if up >= 0:  # what is owed is paid first
                mj, counted, owed = mj + up, counted + up, max(0, owed - up)
            else:  # and by nobody when the driver was loaded again
                mj, counted, owed = 0, counted + owed, 0
            processes = [of(job, util) for job, util in zip(state.attempts, utils, strict=False)]
            at(ms, state, counter("GPU-w", mj, ms - 1, *processes, power_mw=power_mw))
    given_mj = sum(attempt.usage.energy_mj for attempt in state.changes.attempts.values())
    assert given_mj <= counted + owed

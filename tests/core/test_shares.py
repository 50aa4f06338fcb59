"""Fair share: who is next among users, and what is counted of what they have had."""

from __future__ import annotations

from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.core.actions import StartAttempt
from gpud.core.events import AttemptEnded, ReleaseRequested, RulesChanged, Tick
from gpud.core.explain import ahead, explain
from gpud.core.model import Device, JobId, JobSpec, LeasePart, Request
from gpud.core.pool import Pool
from gpud.core.rules import Rules
from gpud.core.shares import ADVANCE_S, Shares, gpu_milli
from gpud.core.state import State

from .build import CPUS, NOW_MS, A, B, ended, happens, ready, submit

DAY_MS = 86_400_000
WEEKS = Rules(users={1: "alice", 2: "bob"}, half_life_ms=7 * DAY_MS)
ALICE, BOB = 1, 2


def shared(*devices: Device, rules: Rules = WEEKS) -> State:
    state = ready(*devices)
    happens(state, RulesChanged(rules))
    return state


def run(state: State, job: JobId, until_ms: int) -> list[JobId]:
    """The job ends then; gives back who starts in its place."""
    end = AttemptEnded(job, state.attempts[job].no, until_ms, exit_code=0)
    actions = happens(state, end, now_ms=until_ms)
    return [action.job for action in actions if isinstance(action, StartAttempt)]


def test_who_has_used_less_is_next() -> None:
    state = shared(A)
    alices = [submit(state, uid=ALICE) for _ in range(2)]
    bob = submit(state, uid=BOB)
    assert explain(state, alices[1], NOW_MS + 1000) == "waits for its turn: bob has used less"
    assert ahead(state, alices[1], NOW_MS + 1000) == 1
    assert ahead(state, bob, NOW_MS + 1000) == 0
    assert run(state, alices[0], NOW_MS + 3_600_000) == [bob]
    assert run(state, bob, NOW_MS + 3_700_000) == [alices[1]]


def test_without_fair_share_it_is_who_came_first() -> None:
    state = ready(A)
    alices = [submit(state, uid=ALICE) for _ in range(2)]
    submit(state, uid=BOB)
    assert run(state, alices[0], NOW_MS + 3_600_000) == [alices[1]]
    assert not state.changes.usage


def test_equals_take_turns_in_one_go() -> None:
    state = shared(Device("q", ("q",), 4))
    jobs = [submit(state, uid=uid, held=True) for uid in (ALICE, ALICE, ALICE, BOB, BOB)]
    actions = happens(state, ReleaseRequested(2, tuple(jobs)))
    starts = [action.job for action in actions if isinstance(action, StartAttempt)]
    assert starts == [jobs[0], jobs[3], jobs[1], jobs[4]]


def test_priority_goes_before_shares() -> None:
    state = shared(A)
    first = submit(state, uid=ALICE)
    submit(state, uid=BOB)
    urgent = submit(state, uid=ALICE, priority=1)
    assert run(state, first, NOW_MS + DAY_MS) == [urgent]


def test_a_weight_of_two_gets_twice_as_much() -> None:
    rules = Rules(half_life_ms=7 * DAY_MS, weights={ALICE: 2.0})
    state = shared(A, rules=rules)
    for uid in (ALICE, BOB):
        for _ in range(30):
            submit(state, uid=uid)
    ran = {ALICE: 0, BOB: 0}
    for hour in range(1, 31):
        (job,) = state.attempts
        ran[state.jobs[job].uid] += 1
        run(state, job, NOW_MS + hour * 3_600_000)
    assert ran == {ALICE: 20, BOB: 10}


def test_the_lane_goes_by_submission() -> None:
    state = shared(A, Device("cpu", (), 1))
    gpu = submit(state, uid=ALICE)
    first = submit(state, uid=BOB, request=Request(0))
    alices = submit(state, uid=ALICE, request=Request(0))
    submit(state, uid=BOB, request=Request(0))
    assert run(state, first, NOW_MS + DAY_MS) == [alices]
    assert state.shares.used_s(BOB, NOW_MS + DAY_MS) == 0
    assert gpu in state.attempts


def test_what_is_kept_is_for_who_is_first_in_turn() -> None:
    state = shared(A, B)
    ones = [submit(state, uid=ALICE, request=Request(1)) for _ in range(2)]
    wide = submit(state, uid=ALICE, request=Request(2))
    bob = submit(state, uid=BOB, request=Request(2))
    more = submit(state, uid=ALICE, request=Request(1))
    assert not run(state, ones[0], NOW_MS + 3_600_000)
    assert state.reservation is not None
    assert state.reservation.job == bob
    assert run(state, ones[1], NOW_MS + 3_600_001) == [bob]
    assert {wide, more} <= state.jobs.keys() - state.attempts.keys()


def test_usage_halves_and_what_is_tiny_is_forgotten() -> None:
    state = shared(A)
    job = submit(state, uid=ALICE)
    end = NOW_MS + 3_600_000
    run(state, job, end)
    (used_s, at_ms) = state.changes.usage[ALICE]
    assert (round(used_s), at_ms) == (3593, end)  # of the hour some has faded already
    later = end + 7 * DAY_MS
    assert state.shares.used_s(ALICE, later) == pytest.approx(used_s / 2)
    happens(state, Tick(), now_ms=end + 70 * DAY_MS)
    assert ALICE in state.shares.accounts
    happens(state, Tick(), now_ms=end + 90 * DAY_MS)
    assert ALICE not in state.shares.accounts
    assert state.changes.usage[ALICE] is None


def test_many_short_jobs_add_up() -> None:
    shares = Shares(WEEKS)
    for at in range(NOW_MS, NOW_MS + 100_000, 1000):
        shares.begin(ALICE, 1000, at)
        shares.end(ALICE, 1000, at, at + 500)
        assert not shares.drop_tiny(at + 600)
    assert shares.used_s(ALICE, NOW_MS + 100_000) == pytest.approx(50, rel=0.01)


def test_a_restart_goes_on_where_it_was() -> None:
    state = shared(A, B)
    job = submit(state, uid=ALICE)
    run(state, job, NOW_MS + 1_000_000)
    submit(state, uid=ALICE)
    again = State(Pool([A, B]), rules=WEEKS)
    usage = {uid: used for uid, used in state.changes.usage.items() if used is not None}
    again.load([*state.jobs.values()], [*state.attempts.values()], usage=usage)
    now = NOW_MS + 9_000_000
    assert again.shares.used_s(ALICE, now) == state.shares.used_s(ALICE, now) > 1000


def test_an_end_that_is_told_late_costs_what_was_used() -> None:
    """The daemon was away when the job ended."""
    state = shared(A)
    job, other = submit(state, uid=ALICE), submit(state, uid=ALICE)
    happens(state, AttemptEnded(job, 1, NOW_MS + 100_000, exit_code=0), now_ms=NOW_MS + DAY_MS)
    assert other in state.attempts
    assert state.shares.used_s(ALICE, NOW_MS + DAY_MS) == pytest.approx(100, rel=0.15)


def test_fair_share_that_is_switched_on_counts_from_then_on() -> None:
    state = ready(A, B)
    submit(state, uid=ALICE)
    happens(state, RulesChanged(WEEKS), now_ms=NOW_MS + DAY_MS)
    assert state.shares.used_s(ALICE, NOW_MS + DAY_MS) == 0
    later = NOW_MS + DAY_MS + 1_000_000
    assert state.shares.used_s(ALICE, later) == pytest.approx(1000, rel=0.01)
    happens(state, RulesChanged(Rules()), now_ms=later)
    happens(state, ended(state, JobId(1), exit_code=0), now_ms=later)
    happens(state, RulesChanged(WEEKS), now_ms=later)
    assert state.shares.used_s(ALICE, later) == pytest.approx(1000, rel=0.01)


@pytest.mark.parametrize(
    ("lease", "milli"),
    [
        ((LeasePart("0", 1000),), 1000),
        ((LeasePart("0", 500), LeasePart("1", 500)), 1000),
        ((LeasePart("0,1", 1000),), 2000),
        ((LeasePart("cpu", 250),), 0),
    ],
)
def test_what_a_lease_counts(lease: tuple[LeasePart, ...], milli: int) -> None:
    assert gpu_milli(lease) == milli


LIFE_MS = 1_000_000
spans = st.lists(
    st.tuples(st.integers(0, 5_000_000), st.integers(1, 3_000_000), st.sampled_from([500, 1000])),
    min_size=1,
    max_size=6,
)


@given(spans=spans, late_ms=st.integers(0, 2_000_000))
def test_an_account_is_the_sum_of_what_was_held(
    spans: list[tuple[int, int, int]], late_ms: int
) -> None:
    """Each moment halved every half-life since; ends may be told of late."""
    shares = Shares(Rules(half_life_ms=LIFE_MS))
    deeds = [(begin, 0, n, "begin") for n, (begin, _, _) in enumerate(spans)]
    deeds += [(begin + length + late_ms, 1, n, "end") for n, (begin, length, _) in enumerate(spans)]
    for at, _, n, deed in sorted(deeds):
        begin, length, milli = spans[n]
        if deed == "begin":
            shares.begin(ALICE, milli, at)
        else:
            shares.end(ALICE, milli, begin, begin + length)
    now = max(at for at, *_ in deeds)
    mean_s = LIFE_MS / 1000 / log(2)
    used = 0.0
    for begin, length, milli in spans:
        since, until = ((now - at) / LIFE_MS for at in (begin, begin + length))
        used += milli / 1000 * mean_s * (0.5**until - 0.5**since)
    assert shares.used_s(ALICE, now) == pytest.approx(used, abs=1e-6)


def test_a_clock_that_is_set_back_takes_nothing_and_gives_nothing() -> None:
    shares = Shares(WEEKS)
    shares.begin(ALICE, 1000, NOW_MS)
    shares.begin(ALICE, 1000, NOW_MS - DAY_MS)
    assert shares.used_s(ALICE, NOW_MS - DAY_MS) == 0
    shares.end(ALICE, 1000, NOW_MS, NOW_MS - DAY_MS + 1000)
    shares.end(ALICE, 1000, NOW_MS - DAY_MS, NOW_MS - DAY_MS + 1000)
    assert shares.used_s(ALICE, NOW_MS - DAY_MS + 1000) == pytest.approx(2)


def test_who_has_just_begun_counts_as_having_had_a_minute() -> None:
    shares = Shares(WEEKS)
    shares.begin(ALICE, 2000, NOW_MS)
    assert shares.share(ALICE, NOW_MS) == 2 * ADVANCE_S
    assert shares.share(BOB, NOW_MS) == 0


def test_specs_without_a_user_are_roots() -> None:
    assert JobSpec(b"x").uid == 0
    state = shared(A, CPUS)
    submit(state)
    assert [*state.shares.accounts] == [0]

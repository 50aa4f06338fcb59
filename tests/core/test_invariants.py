"""Each invariant is shown to fire: a check that cannot fail checks nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec import structs

from gpud.core.invariants import check_invariants
from gpud.core.lifecycle import ContradictionError
from gpud.core.links import nobody_knows
from gpud.core.model import After, JobId, JobState, LeasePart, Outcome, RetryPolicy, Span
from gpud.core.ready import Ready
from gpud.core.state import State
from gpud.core.times import Times

from .build import A, ended, happens, ready, submit

DELAYED, ACTIVE, WAITS, HELD, NOBODY = map(JobId, range(1, 6))


def lively() -> State:
    """One job in each place; the active one has the lease on `a`."""
    state = ready(A)
    assert submit(state, retry=RetryPolicy(1)) == DELAYED
    happens(state, ended(state, DELAYED, exit_code=1))
    assert [submit(state), submit(state), submit(state, held=True)] == [ACTIVE, WAITS, HELD]
    return state


BREAKS: list[tuple[str, Callable[[State], None]]] = []


def breaks(message: str) -> Callable[[Callable[[State], None]], Callable[[State], None]]:
    def register(act: Callable[[State], None]) -> Callable[[State], None]:
        BREAKS.append((message, act))
        return act

    return register


def lease(state: State, *parts: LeasePart) -> None:
    """The active attempt has another lease, and the pool knows."""
    state.pool.give_back(state.attempts[ACTIVE].lease)
    state.attempts[ACTIVE].lease = parts
    state.pool.take(parts)


# -- capacity --------------------------------------------------------------------------------------


@breaks("stands under job 3")
def an_attempt_under_another_job(state: State) -> None:
    state.attempts[WAITS] = state.attempts.pop(ACTIVE)


@breaks("is live without a lease")
def an_attempt_without_a_lease(state: State) -> None:
    lease(state)


@breaks("leases a device twice")
def a_device_twice(state: State) -> None:
    lease(state, LeasePart("a", 500), LeasePart("a", 500))


@breaks("the pool counts {}, leases {'a': 1000}")
def a_lease_that_the_pool_forgot(state: State) -> None:
    state.pool.leased.clear()


@breaks("the pool counts {'a': 1000, 'b': 1000}, leases {'a': 1000}")
def a_lease_that_leaked(state: State) -> None:
    state.pool.leased["b"] = 1000


@breaks("device a is leased to 1500 thousandths")
def more_than_the_whole(state: State) -> None:
    lease(state, LeasePart("a", 1500))


# -- jobs ------------------------------------------------------------------------------------------


@breaks("stands under id 3")
def a_job_under_another_id(state: State) -> None:
    state.jobs[WAITS] = state.jobs[HELD]


@breaks("stands under id 4")
def an_id_that_was_never_given_out(state: State) -> None:
    state.next_id = HELD


@breaks("job 3 is done and still in memory")
def a_done_job_in_memory(state: State) -> None:
    state.jobs[WAITS].state = JobState.DONE


@breaks("job 2 is active without an attempt")
def an_active_job_without_an_attempt(state: State) -> None:
    state.pool.give_back(state.attempts.pop(ACTIVE).lease)


@breaks("has the attempt")
def another_number_than_the_attempt(state: State) -> None:
    state.jobs[ACTIVE].attempt = 7


@breaks("is live and has an outcome")
def a_live_attempt_with_an_outcome(state: State) -> None:
    state.attempts[ACTIVE].outcome = Outcome.FAILED


@breaks("job 2 is queued and has the attempt")
def a_queued_job_with_an_attempt(state: State) -> None:
    state.jobs[ACTIVE].state = JobState.QUEUED


@breaks("job 4 is held and has the outcome failed")
def a_held_job_with_an_outcome(state: State) -> None:
    state.jobs[HELD].outcome = Outcome.FAILED


@breaks("has impossible retries")
def retries_below_zero(state: State) -> None:
    state.jobs[WAITS].retries_left = -1


@breaks("has impossible retries")
def more_retries_than_the_policy(state: State) -> None:
    state.jobs[DELAYED].retries_left = 2


# -- indices ---------------------------------------------------------------------------------------


@breaks("an attempt of no known job is live")
def an_attempt_of_nobody(state: State) -> None:
    attempt = structs.replace(state.attempts[ACTIVE], job=NOBODY, lease=(LeasePart("b", 1000),))
    state.attempts[NOBODY] = attempt
    state.pool.take(attempt.lease)


@breaks("job 3 waits, and will not be offered capacity")
def a_ready_job_in_no_queue(state: State) -> None:
    state.ready = Ready(state.jobs, state.pool)


@breaks("job 3 waits, and will not be offered capacity")
def a_ready_job_under_another_rank(state: State) -> None:
    state.jobs[WAITS].priority = 1


@breaks("job 3 waits, and will not be offered capacity")
def a_ready_job_in_another_place(state: State) -> None:
    state.jobs[WAITS].place = 2.5


@breaks("stands behind what is submitted later")
def a_place_behind_the_next_id(state: State) -> None:
    state.jobs[HELD].place = NOBODY


@breaks("these wait for one another: {3, 4}")
def a_circle(state: State) -> None:
    for job, before in ((WAITS, HELD), (HELD, WAITS)):
        state.come_after(state.jobs[job], After((Span(before, before),)), nobody_knows)


@breaks("job 1 is delayed, but not in the queue of delays")
def a_delayed_job_in_no_queue(state: State) -> None:
    state.delayed = Times(lambda job: 0)


# -- all of them -----------------------------------------------------------------------------------


def test_the_state_that_is_broken_below_is_whole() -> None:
    check_invariants(lively())


@pytest.mark.parametrize(
    ("message", "act"), BREAKS, ids=[act.__name__.replace("_", " ") for _, act in BREAKS]
)
def test_a_broken_state_is_noticed(message: str, act: Callable[[State], None]) -> None:
    state = lively()
    act(state)
    with pytest.raises(ContradictionError) as caught:
        check_invariants(state)
    assert message in str(caught.value)


def test_the_check_of_some_jobs_looks_at_those_and_the_capacity() -> None:
    state = lively()
    a_held_job_with_an_outcome(state)
    check_invariants(state, [WAITS, DELAYED])
    with pytest.raises(ContradictionError, match="job 4"):
        check_invariants(state, [HELD])
    a_lease_that_the_pool_forgot(state)
    with pytest.raises(ContradictionError, match="the pool counts"):
        check_invariants(state, [])


def test_a_done_job_must_not_have_a_live_attempt() -> None:
    state = lively()
    an_attempt_of_nobody(state)
    with pytest.raises(ContradictionError, match="job 5 is done and has a live attempt"):
        check_invariants(state, [NOBODY])


def test_an_attempt_that_leaves_without_an_outcome_is_a_contradiction() -> None:
    state = lively()
    with pytest.raises(ContradictionError, match=r"job 2 leaves attempt .* without an outcome"):
        state.finish(state.jobs[ACTIVE], Outcome.FAILED, "", 1)


def test_a_gpu_is_not_leased_twice_under_two_groupings() -> None:
    state = lively()
    lease(state, LeasePart("gone", 1000))
    check_invariants(state)
    lease(state, LeasePart("gone", 1000), LeasePart("gone,other", 1000))
    with pytest.raises(ContradictionError, match="GPU gone is leased to 2000 thousandths"):
        check_invariants(state)

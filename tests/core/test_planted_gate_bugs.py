"""Bugs in gates and fair shares, planted in the core: crowds.py must notice each of them.

As in test_planted_bugs.py; what is broken here is what queues get wrong that many share.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import pytest
from msgspec import structs

from gpud.core import attempts, gating, heads, requests, shares, watching
from gpud.core import state as state_module
from gpud.core.actions import Action
from gpud.core.events import GateRequested, ReleaseRequested, RulesChanged
from gpud.core.gates import Gate, Gates
from gpud.core.lifecycle import ContradictionError
from gpud.core.model import Attempt, Job, JobState, Outcome
from gpud.core.ready import Ready, is_ready
from gpud.core.rules import EVERY_USER, Kept, Rule
from gpud.core.shares import Account, Shares
from gpud.core.state import State

from .crowds import live
from .planting import Bugs, plant

MOST_DAYS = 300

BUGS: Bugs = {}
bug = partial(plant, BUGS)


# -- limits ---------------------------------------------------------------------------------------


@bug(Gate, "is_full")
def a_limit_lets_one_more_in(right):
    return property(lambda gate: gate.limit is not None and gate.running > gate.limit)


@bug(Gate, "is_full")
def a_limit_of_nothing_is_no_limit(right):
    return property(lambda gate: bool(gate.limit) and right.fget(gate))


@bug(Gate, "is_full")
def who_waits_for_gpus_has_no_place_kept(right):
    return property(lambda gate: gate.limit is not None and gate.running >= gate.limit)


@bug(Gates, "count")
def ended_jobs_are_counted_on(right):
    return lambda gates, belongs, by: right(gates, belongs, max(0, by))


@bug(State, "load")
def a_restart_forgets_who_runs(right):
    def load(state: State, jobs: list[Job], attempts: list[Attempt], *more: object) -> None:
        right(state, jobs, attempts, *more)
        state.gates.renew([])

    return load


@bug(Gates, "of")
def only_the_first_gate_is_asked(right):
    return lambda gates, belongs: right(gates, belongs)[:1]


@bug(Gates, "_rule")
def the_rule_of_every_user_goes_before_that_of_one(right):
    def _rule(gates: Gates, key: str) -> Rule:
        every = gates.rules.gates.get(EVERY_USER)
        return every if every and key.startswith("user:") else right(gates, key)

    return _rule


@bug(Gates, "_rule")
def labels_have_no_gates(right):
    return lambda gates, key: Rule() if key.startswith("label:") else right(gates, key)


@bug(Ready, "reopen")
def a_gate_that_opens_calls_nobody(right):
    return lambda ready, gate: None


@bug(State, "_give_place")
def an_end_opens_no_gate(right):
    def _give_place(state: State, job: Job, attempt: Attempt) -> None:
        reopen, state.ready.reopen = state.ready.reopen, lambda gate: None
        right(state, job, attempt)
        state.ready.reopen = reopen

    return _give_place


@bug(Ready, "_meet")
def a_pile_gives_back_its_first_alone(right):
    def _meet(ready: Ready, pile, now_ms: int) -> None:
        right(ready, pile, now_ms)
        pile.heap.clear()

    return _meet


@bug(gating, "on_rules_changed")
def other_rules_are_for_new_jobs_alone(right):
    def on_rules_changed(state: State, event: RulesChanged, now_ms: int) -> Sequence[Action]:
        rebuild, state.ready.rebuild = state.ready.rebuild, lambda by_user: None
        actions = right(state, event, now_ms)
        state.ready.rebuild = rebuild
        return actions

    return on_rules_changed


# -- a person's word ------------------------------------------------------------------------------


@bug(Gate, "__init__")
def the_configuration_goes_before_a_word(right):
    def __init__(gate: Gate, key: str, rule: Rule, kept: Kept) -> None:
        limit = kept.limit if rule.limit is None else None
        right(gate, key, rule, structs.replace(kept, limit=limit))

    return __init__


@bug(gating, "_keep")
def a_word_is_forgotten_with_the_daemon(right):
    def _keep(state: State, key: str, kept: Kept) -> None:
        right(state, key, kept)
        del state.changes.gates[key]

    return _keep


@bug(gating, "_said")
def a_word_about_one_takes_back_the_other(right):
    return lambda word, before: right(word, None)


# -- windows --------------------------------------------------------------------------------------


def closed_by(gate: Gate, now_ms: int, *, silent: bool, late: bool, by_itself: bool) -> str:
    for provider in gate.names:
        window = gate.windows.get(provider)
        if window is None:
            is_open = silent
        elif window.open:
            is_open = late or now_ms < window.until_ms
        else:
            is_open = by_itself and now_ms >= window.until_ms
        if not is_open:
            return provider
    return ""


@bug(Gate, "closed_by")
def a_silent_provider_keeps_nothing_closed(right):
    return lambda gate, now: closed_by(gate, now, silent=True, late=False, by_itself=False)


@bug(Gate, "closed_by")
def a_window_stays_open_after_its_end(right):
    return lambda gate, now: closed_by(gate, now, silent=False, late=True, by_itself=False)


@bug(Gate, "closed_by")
def a_window_opens_by_itself(right):
    return lambda gate, now: closed_by(gate, now, silent=False, late=False, by_itself=True)


@bug(Gate, "admits")
def windows_are_not_looked_at(right):
    return lambda gate, now_ms: not gate.is_full


@bug(Gates, "tell")
def one_provider_takes_back_the_word_of_another(right):
    def tell(gates: Gates, provider: str, windows) -> None:
        gates.told.clear()
        right(gates, provider, windows)
        for gate in gates._gates.values():
            gates._show_windows(gate)

    return tell


@bug(watching, "outside_windows")
def gpus_have_no_windows(right):
    return lambda state, now_ms: {}


@bug(gating, "on_windows_turned")
def a_window_that_opens_calls_nobody(right):
    def on_windows_turned(state: State, event) -> Sequence[Action]:
        reopen_all, state.ready.reopen_all = state.ready.reopen_all, lambda: None
        actions = right(state, event)
        state.ready.reopen_all = reopen_all
        return actions

    return on_windows_turned


# -- fails ----------------------------------------------------------------------------------------


@bug(gating, "note_end")
def nothing_counts_as_a_fail(right):
    return lambda state, job, attempt, outcome, now_ms: None


@bug(gating, "note_end")
def a_cancel_counts_as_a_fail(right):
    def note_end(state: State, job: Job, attempt: Attempt, outcome: Outcome, now_ms: int) -> None:
        outcome = Outcome.FAILED if outcome is Outcome.CANCELLED else outcome
        right(state, job, structs.replace(attempt, stop_why=""), outcome, now_ms)

    return note_end


@bug(attempts, "end")
def a_fail_that_is_tried_again_counts(right):
    def end(state: State, attempt: Attempt, outcome: Outcome, why: str, now_ms: int) -> None:
        job = state.jobs[attempt.job]
        right(state, attempt, outcome, why, now_ms)
        if job.state is JobState.QUEUED:
            gating.note_end(state, job, attempt, attempt.outcome, now_ms)

    return end


@bug(gating, "_hold_all")
def the_rest_of_a_group_that_fails_goes_on(right):
    return lambda state, key, now_ms: None


@bug(gating, "_hold_all")
def only_what_is_ready_is_held(right):
    def _hold_all(state: State, key: str, now_ms: int) -> None:
        for job in [*state.jobs.values()]:
            if is_ready(job) and key in job.belongs:
                gating._hold(state, job, key, now_ms)

    return _hold_all


@bug(gating, "_hold_all")
def everything_is_held_when_one_group_fails(right):
    def _hold_all(state: State, key: str, now_ms: int) -> None:
        for job in [*state.jobs.values()]:
            if job.state is JobState.QUEUED:
                gating._hold(state, job, key, now_ms)

    return _hold_all


@bug(gating, "hold_if_tripped")
def what_comes_after_the_fails_is_not_held(right):
    return lambda state, job, now_ms: False


@bug(requests, "on_release")
def a_release_forgives_nothing(right):
    def on_release(state: State, event: ReleaseRequested, now_ms: int) -> Sequence[Action]:
        before = {key: kept.fails for key, kept in state.gates.kept.items()}
        actions = right(state, event, now_ms)
        for key, fails in before.items():
            if (kept := state.gates.kept.get(key)) is not None:
                gating._keep(state, key, structs.replace(kept, fails=fails))
        return actions

    return on_release


@bug(gating, "note_release")
def any_release_forgives(right):
    def note_release(state: State, job: Job) -> None:
        for key, kept in [*state.gates.kept.items()]:
            gating._keep(state, key, structs.replace(kept, fails=0))

    return note_release


@bug(gating, "on_gate_requested")
def a_new_number_counts_old_fails(right):
    def on_gate_requested(state: State, event: GateRequested) -> Sequence[Action]:
        before = state.gates.kept.get(event.key, Kept())
        actions = right(state, event)
        after = state.gates.kept.get(event.key, Kept())
        gating._keep(state, event.key, structs.replace(after, fails=before.fails))
        return actions

    return on_gate_requested


# -- fair share -----------------------------------------------------------------------------------


@bug(heads.Heads, "_order")
def nobody_takes_turns(right):
    return lambda heads, rank, bay: (rank[0], 0.0, rank)


@bug(heads.Heads, "_order")
def who_has_used_less_goes_before_who_is_urgent(right):
    def _order(heads, rank, bay):
        _, share, rank = right(heads, rank, bay)
        return 0, share, rank

    return _order


@bug(heads.Heads, "_order")
def who_has_used_more_goes_first(right):
    def _order(heads, rank, bay):
        priority, share, rank = right(heads, rank, bay)
        return priority, -share, rank

    return _order


@bug(heads.Heads, "has_had")
def a_start_does_not_end_a_turn(right):
    return lambda heads, uid: None


@bug(shares, "ADVANCE_S")
def a_start_costs_nothing_at_first(right):
    return 0.0


@bug(Shares, "weight")
def everybody_weighs_the_same(right):
    return lambda shares, uid: 1.0


@bug(Shares, "_used_s")
def what_runs_is_not_counted(right):
    def _used_s(shares: Shares, account: Account, now_ms: int) -> float:
        idle = Account(account.used_s, account.at_ms)
        return right(shares, idle, now_ms)

    return _used_s


@bug(Shares, "_used_s")
def usage_never_fades(right):
    def _used_s(shares: Shares, account: Account, now_ms: int) -> float:
        return account.used_s + account.milli * max(0, now_ms - account.at_ms) / 1e6

    return _used_s


@bug(State, "keep_usage")
def usage_is_forgotten_with_the_daemon(right):
    return lambda state, uid: None


@bug(state_module, "gpu_milli")
def a_pair_of_gpus_counts_as_one(right):
    return lambda lease: sum(part.milli for part in lease if part.device != "cpu")


@bug(state_module, "gpu_milli")
def the_lane_counts_as_a_gpu(right):
    return lambda lease: sum(part.milli * (part.device.count(",") + 1) for part in lease)


@bug(Shares, "end")
def an_end_that_is_told_late_is_charged_until_then(right):
    def end(shares: Shares, uid: int, milli: int, since_ms: int, at_ms: int) -> None:
        right(shares, uid, milli, since_ms, max(at_ms, shares.accounts[uid].at_ms) + 10_000)

    return end


# -- words -----------------------------------------------------------------------------------------


@bug(Gates, "why")
def nobody_is_told_of_gates(right):
    def why(gates: Gates, keys: Iterable[str], now_ms: int) -> str:
        return ""

    return why


# -- all of them -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[name](monkeypatch)
    with pytest.raises((AssertionError, ContradictionError)):
        live_all()


def live_all() -> None:
    for seed in range(MOST_DAYS):
        live(seed)

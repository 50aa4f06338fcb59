"""Gates and fair shares, worked out afresh: from rules, people's words, fails and attempts alone.

Used by tests/core/turns.py and starts.py, without core/gates.py, core/gating.py and core/shares.py.
What a window, a limit and a share mean is written down here a second time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from math import log

from gpud.core.explain import explain
from gpud.core.model import Attempt, Job, JobId, JobSpec, JobState, Outcome
from gpud.core.ready import is_ready
from gpud.core.rules import DEFAULT, NONE, Rule, Rules, Window
from gpud.core.state import State

from .edited import rank
from .promises import Ledger

FAILED = (Outcome.FAILED, Outcome.KILLED, Outcome.TIMED_OUT, Outcome.LOST)
ADVANCE_S = 60
NOT_SURE_S = 2.5  # GPU-seconds: one is forgotten each half-life at most, and there is rounding

Told = Mapping[str, Mapping[str, Window]]  # provider -> key -> window


def keys_of(spec: JobSpec) -> list[str]:
    keys = [f"group:{spec.group}"] if spec.group else []
    keys.append(f"user:{spec.uid}")
    keys += [f"source:{spec.source}"] if spec.source else []
    return keys + [f"label:{label}" for label in spec.labels]


def rule_of(key: str, rules: Rules, ledger: Ledger) -> Rule:
    """As configured, but for what people said."""
    found = rules.gates.get(key)
    if found is None:
        found = rules.gates.get("user:*", Rule()) if key.startswith("user:") else Rule()
    limit, max_fails = found.limit, found.max_fails
    said_limit, said_fails = ledger.said.get(key, (DEFAULT, DEFAULT))
    if said_limit != DEFAULT:
        limit = None if said_limit == NONE else said_limit
    if said_fails != DEFAULT:
        max_fails = 0 if said_fails == NONE else said_fails
    return Rule(limit, max_fails, found.windows)


def has_tripped(key: str, rules: Rules, ledger: Ledger) -> bool:
    most = rule_of(key, rules, ledger).max_fails
    return most > 0 and ledger.fails.get(key, 0) >= most


def is_open(key: str, rule: Rule, told: Told, now_ms: int) -> bool:
    for provider in rule.windows:
        said = told.get(provider, {})
        window = said.get(key, said.get("user:*") if key.startswith("user:") else None)
        if window is None or not window.open or now_ms >= window.until_ms:
            return False
    return True


class Holds:
    """In the middle of a dispatch: who may start, and in which order."""

    def __init__(
        self,
        rules: Rules,
        ledger: Ledger,
        told: Told,
        specs: Mapping[JobId, JobSpec],
        attempts: Iterable[Attempt],
        now_ms: int,
    ) -> None:
        self.rules, self.ledger, self.told, self.specs = rules, ledger, told, specs
        self.now_ms = now_ms
        self.running: dict[str, int] = {}
        self.holds: dict[int, float] = {}  # uid -> GPUs
        self.used: dict[int, float] = {}
        for attempt in attempts:
            if attempt.outcome is None:
                self.start(attempt)
            self._use(attempt)

    def start(self, attempt: Attempt) -> None:
        spec = self.specs[attempt.job]
        for key in keys_of(spec):
            self.running[key] = self.running.get(key, 0) + 1
        self.holds[spec.uid] = self.holds.get(spec.uid, 0) + gpus_of(attempt)

    def _use(self, attempt: Attempt) -> None:
        """What it comes to by now, each moment halved every half-life since."""
        life_s = self.rules.half_life_ms / 1000
        if not life_s:
            return
        end_ms = attempt.ended_at_ms if attempt.outcome is not None else self.now_ms
        ages_s = [(self.now_ms - at) / 1000 for at in (end_ms, attempt.dispatched_at_ms)]
        mean = life_s / log(2)
        used = gpus_of(attempt) * mean * (0.5 ** (ages_s[0] / life_s) - 0.5 ** (ages_s[1] / life_s))
        uid = self.specs[attempt.job].uid
        self.used[uid] = self.used.get(uid, 0) + used

    # -- gates -------------------------------------------------------------------------------------

    def closed(self, job: JobId, kept_for: Collection[JobId] = ()) -> list[str]:
        """Its gates that let nobody through. `kept_for`: these stand before it, and have places in
        their gates."""
        found = []
        kept = [key for other in kept_for if other != job for key in keys_of(self.specs[other])]
        for key in keys_of(self.specs[job]):
            rule = rule_of(key, self.rules, self.ledger)
            running = self.running.get(key, 0) + kept.count(key)
            full = rule.limit is not None and running >= rule.limit
            if full or not is_open(key, rule, self.told, self.now_ms):
                found.append(key)
        return found

    # -- whose turn it is ------------------------------------------------------------------------

    def share(self, uid: int) -> float:
        weight = self.rules.weights.get(uid, self.rules.weight)
        return (self.used.get(uid, 0) + ADVANCE_S * self.holds.get(uid, 0)) / weight

    def shares(self) -> dict[int, float]:
        if not self.rules.half_life_ms:
            return {}
        return {uid: self.share(uid) for uid in {spec.uid for spec in self.specs.values()}}

    def is_before(self, one: Job, other: Job, *, lane: bool) -> bool:
        """For sure, as things stand now."""
        return self.was_before(one, other, self.shares(), self.shares(), lane=lane)

    def was_before(
        self,
        one: Job,
        other: Job,
        its: Mapping[int, float],
        others: Mapping[int, float],
        *,
        lane: bool,
    ) -> bool:
        """The same by the shares of one moment for the one, and of another for the other."""
        if one.priority != other.priority:
            return one.priority > other.priority
        uid, uid_ = self.specs[one.id].uid, self.specs[other.id].uid
        if self.rules.half_life_ms and uid != uid_ and not lane:
            weight = min([self.rules.weight, *self.rules.weights.values()])
            return its[uid] + NOT_SURE_S / weight < others[uid_]
        return rank(one) < rank(other)


def gpus_of(attempt: Attempt) -> float:
    return sum(
        part.milli / 1000 * len(part.device.split(","))
        for part in attempt.lease
        if part.device != "cpu"
    )


def check(holds: Holds, state: State) -> None:
    """Between turns: who is behind a gate says so, and what users have had is counted."""
    for job in state.jobs.values():
        kept = state.reservation
        if not is_ready(job) or (kept is not None and kept.job == job.id):
            continue
        if job.id in state.claims:
            continue
        why = explain(state, job.id, holds.now_ms)
        closed = holds.closed(job.id, [*state.claims, *([kept.job] if kept is not None else [])])
        names = [state.gates.label(key) for key in closed] + ["nights", "clean power"]
        said = [name for name in names if name in why]
        if not any(why.startswith(word) for word in ("waits for the GPUs", "jobs", "the pool")):
            surely = holds.closed(job.id)
            earlier = "needs" in why or "asks for" in why or " more: " in why
            assert said or earlier or not surely, f"{job} is behind {surely}, and is told: {why}"
    if holds.rules.half_life_ms:
        for uid in {*holds.used, *state.shares.accounts}:
            model, told = holds.used.get(uid, 0), state.shares.used_s(uid, holds.now_ms)
            assert abs(model - told) < NOT_SURE_S + model / 1000, f"{uid}: {told}, truly {model}"


# -- fails -----------------------------------------------------------------------------------------


def note_ends(
    ended: Iterable[Attempt],
    state: State,
    rules: Rules,
    ledger: Ledger,
    specs: Mapping[JobId, JobSpec],
) -> None:
    """Jobs that are done, and have failed by themselves, count in their gates."""
    for attempt in ended:
        own = (attempt.job, attempt.no) not in ledger.stopped
        if attempt.job in state.jobs or attempt.outcome not in FAILED or not own:
            continue
        for key in keys_of(specs[attempt.job]):
            if rule_of(key, rules, ledger).max_fails:
                ledger.fails[key] = ledger.fails.get(key, 0) + 1


def note_held(
    before: Iterable[JobId],
    state: State,
    rules: Rules,
    ledger: Ledger,
    specs: Mapping[JobId, JobSpec],
) -> None:
    """In a gate that has tripped nothing waits but what a person wanted to; nothing else is held
    that was not before."""
    held = {job.id for job in state.jobs.values() if job.state is JobState.HELD}
    ledger.freed -= held | state.attempts.keys()
    for job in state.jobs.values():
        tripped = [key for key in keys_of(specs[job.id]) if has_tripped(key, rules, ledger)]
        if job.state is JobState.QUEUED and tripped:
            assert job.id in ledger.freed, f"{job} waits, and {tripped} have tripped"
        if job.id in held - {*before} - ledger.held:
            assert tripped, f"{job} is held, and nobody wanted that"
            ledger.held.add(job.id)
    for key, kept in state.gates.kept.items():
        assert kept.fails == ledger.fails.get(key, 0), f"{key}: {kept}, {ledger.fails}"
    counted = {key for key, fails in ledger.fails.items() if fails}
    assert counted <= state.gates.kept.keys(), f"{counted} have fails"


def note_release(job: JobId, rules: Rules, ledger: Ledger, spec: JobSpec) -> None:
    for key in keys_of(spec):
        if has_tripped(key, rules, ledger):
            ledger.fails[key] = 0

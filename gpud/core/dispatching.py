"""Which waiting job gets which slot now: one pass over those that may be next.

Theory of operation:

Rule 1: level-triggered: nothing is started "because something ended". Free capacity and queued
    jobs are looked at afresh each time, in the total order of rank (-priority, place, id).
Rule 2: who stands behind a gate that is closed (core/gates.py) is not there. The others are offered
    capacity by rank, with fair share by the users' shares before the places (core/heads.py).
Rule 3: a job whose request does not fit now is passed by those behind it that do fit, but the first
    such job keeps what it needs (core/reservation.py): nobody waits for ever.
Rule 4: an urgent job that does not fit claims what those leave who can save their state
    (core/preemption.py); who is not urgent is not offered that.
Rule 5: nothing is started on a GPU that can be looked at and was not looked at lately
    (core/watching.py).

Called by the engine and in `step` (core/scheduler.py), after the events of a turn. Pure.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from itertools import chain

from gpud.amounts import URGENT
from gpud.core import deadlines, watching
from gpud.core.actions import Action, StartAttempt
from gpud.core.heads import Heads, Room
from gpud.core.model import Attempt, Job, JobId, Phase, Request
from gpud.core.placement import most_mib, place, rule_of
from gpud.core.pool import Lease, Pool
from gpud.core.preemption import Claims
from gpud.core.ready import is_ready, rank_of
from gpud.core.reservation import NEVER, Reservation, reserve
from gpud.core.shelves import First, Rank
from gpud.core.state import State

GPUS, LANE = True, False  # for what a request can be meant
FIRST: Rank = (-URGENT - 1, 0.0, JobId(0))
NOTHING: frozenset[str] = frozenset()


def dispatch(state: State, now_ms: int) -> list[Action]:
    """Pair queued jobs with free slots, in rank order, until nothing that waits fits."""
    deadlines.expire(state, now_ms)
    state.make_due(now_ms)
    if state.shortage.until_ms <= now_ms:
        state.shortage.until_ms = 0
    state.look_at_ms, state.claims = 0, {}
    if state.draining or state.runner_problem or state.shortage.until_ms:
        return []
    return _Pass(state, now_ms).run()


class _Pass:
    """`kept` is for the first job that has no room, `claims` for the urgent ones."""

    def __init__(self, state: State, now_ms: int) -> None:
        self.state, self.now_ms = state, now_ms
        self.actions: list[Action] = []
        self.room = Room()
        self.kept: Reservation | None = None
        self.kept_rank = FIRST  # nobody who is offered something later stands before it
        self.claims: Claims | None = None
        self.claimed = NOTHING  # devices
        for gate in state.gates.take_back():
            state.ready.reopen(gate)
        state.drop_tiny_usage(now_ms)
        self.heads = Heads(state.ready, state.shares, now_ms)
        self._look()
        self.before = _kept_before(state, now_ms)

    def _look(self) -> None:
        state, pool, heads = self.state, self.state.pool, self.heads
        if pool.watched:
            for_gpus = heads.anybody(lambda bay: bay.on_gpus)
            for_memory = for_gpus and heads.anybody(lambda bay: bay.names_memory)
            self.actions += watching.prepare(
                state, self.now_ms, for_gpus=for_gpus, for_memory=for_memory
            )
        elif pool.has_gates:
            pool.block(watching.outside_windows(state, self.now_ms), set(), {})

    def run(self) -> list[Action]:
        heads, room = self.heads, self.room
        self._note_what_is_full()
        if GPUS not in room.full:
            self.state.reservation = None
        if urgent := heads.are_urgent():  # they look for room where there is none
            room.full.clear()
        while len(room.full) < 2 and (head := heads.next(room)) is not None:
            if urgent and not _is_urgent(head):
                urgent = False
                self._note_what_is_full()
                heads.go_on(head, room.below(head[-1].row))  # it is offered what there is
            else:
                self._offer(head)
        if self.claims is not None:
            self.actions += self.claims.ask(self.now_ms)
        return self.actions

    def _note_what_is_full(self) -> None:
        pool = self.state.pool
        for lane in (GPUS, LANE):
            if pool.is_full(gpus=lane, but=self.claimed):
                self.room.full.add(lane)

    def _offer(self, head: First) -> None:
        state, pool, heads, room = self.state, self.state.pool, self.heads, self.room
        (*_, job_id), mib, shelf = head
        row, bay = shelf.row, shelf.row.bay
        into_gap, request = room.into_gap(row), state.ready.asks(head)
        avoid = self._claimed_before(head)
        if self.kept is not None and not into_gap and head[0] > self.kept_rank:
            avoid |= self.kept.devices
        lease = place(pool, request, avoid)
        if lease is not None:
            self.actions.append(_start(state, job_id, request, lease, self.now_ms))
            heads.has_had(bay.user)
            if not _is_urgent(head):
                nobodys = self.kept.devices if self.kept is not None and not room.gap_s else NOTHING
                if pool.is_full(gpus=bay.on_gpus, but=nobodys | self.claimed):
                    room.full.add(bay.on_gpus)
            heads.go_on(head, room.below(row))
            return
        if _is_urgent(head) and self.claims is None:
            self.claims = Claims(state, self.now_ms, self._keep_for_urgent)
            state.claims, self.claimed = self.claims.of, self.claims.devices
        if bay.names_memory:
            mib = min(mib, most_mib(pool, request, avoid) + 1)
        room.least[bay.kind, into_gap] = mib
        heads.go_on(head, mib)
        claims = job_id in state.claims
        element = state.spoken(job_id)
        if self.kept is None and bay.on_gpus and not claims and self._is_needed(element):
            self._keep(element, request, pool, self.claimed)
            if self.kept is not None:
                state.gates.promise(state.gates.of(state.jobs[job_id].belongs))

    def _is_needed(self, job_id: JobId) -> bool:
        """To keep something for this job: others wait; or will, and then it is to be the same."""
        kept_before = self.before is not None and self.before.job == job_id
        return kept_before or self.heads.more(self.room)

    def _claimed_before(self, head: First) -> frozenset[str]:
        """By those that stand before it."""
        if self.claims is None or not _is_urgent(head):
            return self.claimed
        jobs = self.state.jobs
        before = (each for job, each in self.claims.of.items() if rank_of(jobs[job]) < head[0])
        return NOTHING.union(*chain.from_iterable(before))

    def _keep_for_urgent(
        self, job: Job, element: JobId, pool: Pool, claimed: frozenset[str]
    ) -> Collection[str] | None:
        """Before the turn of those urgent ones that stand before it and have room."""
        if pool.wanted(job.request) != 0:
            self._keep(element, job.request, pool, claimed)
            self.kept_rank = rank_of(job)
        return self.kept.devices if self.kept is not None else None

    def _keep(self, job_id: JobId, request: Request, pool: Pool, claimed: frozenset[str]) -> None:
        state, before = self.state, self.before
        self.kept = state.reservation = reserve(
            pool,
            state.attempts.values(),
            job_id,
            request,
            partial(end_ms, state, self.now_ms),
            before.devices if before is not None and before.job == job_id else (),
            claimed,
        )
        self.room.gap_s = _gap_s(self.kept, self.now_ms)


def _is_urgent(head: First) -> bool:
    return head[0][0] <= -URGENT


def _kept_before(state: State, now_ms: int) -> Reservation | None:
    """The last reservation, if its job still waits, and for room alone."""
    before, gates = state.reservation, state.gates
    if before is not None:
        job = state.find(before.job)
        if job is None or not is_ready(job) or gates.closed(gates.of(job.belongs), now_ms):
            before = state.reservation = None
    return before


def _gap_s(kept: Reservation | None, now_ms: int) -> int:
    """For so long what is kept may be used by others; 0 where nobody knows."""
    if kept is None or kept.at_ms == NEVER:
        return 0
    return max(0, kept.at_ms - now_ms) // 1000


def _start(
    state: State, job_id: JobId, request: Request, lease: Lease, now_ms: int
) -> StartAttempt:
    rule = rule_of(state.pool, request, lease)
    job = state.jobs[job_id]
    if job.rest:
        job = state.split(job, JobId(job.rest[0][0]))
    attempt = state.activate(job, lease, now_ms)
    detail: dict[str, object] = {
        "lease": {state.pool.label(part.device): part.milli for part in lease}
    }
    if rule:
        detail["rule"] = rule
    state.tell(job.id, attempt.no, "dispatched", now_ms, **detail)
    return StartAttempt(job.id, attempt.no, lease, job.retry_args, job.resume)


def end_ms(state: State, now_ms: int, attempt: Attempt) -> int:
    """When its payload is gone at the latest, by its limit; NEVER where nobody knows."""
    within_s = state.jobs[attempt.job].within_s
    if not within_s or attempt.phase is Phase.PAUSED:
        return NEVER
    ran_from_ms = (attempt.started_at_ms or now_ms) + attempt.paused_ms
    return max(now_ms, ran_from_ms + 1000 * within_s)

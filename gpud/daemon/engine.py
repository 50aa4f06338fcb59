"""The engine: the one owner of the state. Events in, commits, actions out.

    event -> handle(state, event, now) -> commit -> perform(actions) -> events

Theory of operation:

Rule 1: everything else posts events; only a turn touches the state. A turn drains the mailbox,
    handles all of it, dispatches once, commits once (group commit), and then performs.
Rule 2: nothing is performed, answered or shown before its commit.
Rule 3: a disk that cannot be read or written undoes the turn: who asked is told, nothing is
    started, and once the disk works again the state is loaded afresh and the runner is met. So
    nothing is ever done on the strength of what the disk does not hold.
Rule 4: after a bug there is no further turn: a broken state is not written down.

Called by daemon/app.py. Commits and queries run on the loop, which is why they are short.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import assert_never

from msgspec import structs

from gpud.core.actions import (
    Action,
    Answer,
    CheckpointAttempt,
    ContinueAttempt,
    ForgetAttempt,
    LookAtGpus,
    PauseAttempt,
    Refuse,
    StartAttempt,
    StopAttempt,
)
from gpud.core.changes import Audit, By, Changes
from gpud.core.dispatching import dispatch
from gpud.core.events import (
    DevicesChanged,
    DiskFull,
    Event,
    GpuBroke,
    RulesChanged,
)
from gpud.core.invariants import check_invariants
from gpud.core.model import JobId, JobSpec, JobState
from gpud.core.numbering import Numbering
from gpud.core.pool import Pool
from gpud.core.rules import NO_RULES, Rules
from gpud.core.scheduler import handle, next_deadline
from gpud.core.spans import spans_of
from gpud.core.state import State
from gpud.daemon.past import with_past
from gpud.daemon.strikes import Strikes
from gpud.errors import GpudError
from gpud.ports import Executor, Launch, StorageError, Store
from gpud.protocol.replies import EventView

STORAGE_RETRY_S = 1.0
LONGEST_SLEEP_S = 60.0
IDLE_CHECK_S = 5.0  # everything is checked once, when nothing has happened for this long

Listener = Callable[[Sequence[EventView]], None]


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Engine:
    """See the rules above. `meet_runner` makes the executor repeat what it knows, `tell_windows`
    the providers of windows what they said, `on_commit` is told how long each commit took."""

    def __init__(
        self,
        store: Store,
        devices: DevicesChanged,
        rules: Rules = NO_RULES,
        *,
        clock: Callable[[], int] = wall_ms,
        strikes: Strikes | None = None,
        warn: Callable[..., None] = lambda event, **values: None,
    ) -> None:
        self.store = store
        self.now_ms = clock
        self.storage_problem = ""
        self.executor: Executor | None = None
        self.meet_runner: Callable[[], None] = lambda: None
        self.tell_windows: Callable[[], None] = lambda: None
        self.on_commit: Callable[[float], None] = lambda seconds: None
        self._warn = warn
        self._strikes = strikes
        self.set_aside = strikes.set_aside() if strikes else {}
        self.look: Callable[[bool], None] = lambda afresh: None
        self.disk_full: Callable[[], str] = lambda: ""  # why no job may start, as a clause
        self.devices = devices
        self.rules = rules
        self._loop = asyncio.get_running_loop()
        self._mailbox: list[Event] = []
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self._asked_by: dict[int, By] = {}
        self._last_request = 0
        self._started_now: dict[JobId, JobSpec] = {}  # within one turn
        self._listeners: list[Listener] = []
        self._turn_handle: asyncio.Handle | None = None
        self._tick_handle: asyncio.TimerHandle | None = None
        self._idle_handle: asyncio.TimerHandle | None = None
        self._turns = self._turns_checked = 0
        self._closed = False
        self.state = self._loaded_state()

    def _loaded_state(self) -> State:
        loaded = self.store.load()
        pool = self.devices
        state = State(Pool(pool.devices, pool.unknown), pool.policy, self.rules)
        state.next_id = loaded.next_id
        state.draining = loaded.draining
        state.stopped_sources = set(loaded.stopped_sources)
        state.pool.usual_mib = dict(loaded.usual_mib)
        state.numbering = Numbering(loaded.arrays)
        state.load(
            loaded.jobs,
            loaded.attempts,
            loaded.quarantines,
            loaded.outcomes.get,
            loaded.gates,
            loaded.usage,
        )
        check_invariants(state)
        for job_id in self.set_aside:
            job = state.jobs.get(JobId(job_id))
            if job is not None and job.state is JobState.QUEUED:
                state.hold(job)
                state.tell(job.id, job.attempt, "set-aside", self.now_ms())
        return state

    # -- the mailbox -------------------------------------------------------------------------

    def post(self, event: Event) -> None:
        """Never blocks; handled in the next turn."""
        if not self.storage_problem or is_told_once(event):
            self._mailbox.append(event)
        if self._closed or self.storage_problem:
            return
        if self._turn_handle is None:
            self._turn_handle = self._loop.call_soon(self._turn)

    def deliver(self, events: Sequence[Event]) -> None:
        """Post many, and take the turn at once: one round of the loop less on the way of an end
        to the next start. Not for those who are called within a turn."""
        if self._closed or self.storage_problem:
            for event in events:
                self.post(event)
            return
        self._mailbox += events
        if self._turn_handle is not None:
            self._turn_handle.cancel()
        self._turn()

    async def ask(self, make: Callable[[int], Event], by: By | None = None) -> Answer:
        """Post a request; its answer, after the commit. Raises GpudError when it is refused. `by`:
        who is to be written down for what it changes."""
        if self._closed:
            raise _stopping()
        if self.storage_problem:
            raise StorageError(self.storage_problem)
        self._last_request += 1
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._asked[self._last_request] = answer
        if by is not None:
            self._asked_by[self._last_request] = by
        self.post(make(self._last_request))
        return await answer

    def spec(self, job: JobId) -> JobSpec:
        """What was submitted. Of jobs that this turn has started, without a query."""
        return self._started_now.get(job) or self.store.spec(job)

    def change_devices(self, devices: DevicesChanged) -> None:
        """Another pool, for now and for every state loaded later."""
        self.devices = devices
        self.post(devices)

    def change_rules(self, rules: Rules) -> None:
        """Other rules, for now and for every state loaded later."""
        self.rules = rules
        self.post(RulesChanged(rules))

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def close(self) -> None:
        """No further turn; who still waits for an answer is told."""
        self._closed = True
        for pending in (self._turn_handle, self._tick_handle, self._idle_handle):
            if pending is not None:
                pending.cancel()
        self._refuse_all(_stopping())

    # -- the turn ------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._turn_handle = None
        if self._closed or self.storage_problem:
            return  # asked for before rule 3 or rule 4 came into force
        batch, self._mailbox = self._mailbox, []
        try:
            actions, committed = self._decide(batch)
        except StorageError as error:
            self._undo(error, batch)
            return
        except BaseException:
            self._closed = True
            raise
        trouble = self._perform(actions)
        for listener in tuple(self._listeners) if committed else ():
            listener(committed)
        self._started_now.clear()
        if trouble is not None:
            self._undo(trouble)
            return
        self._turns += 1
        self._arm()

    def _decide(self, batch: Sequence[Event]) -> tuple[list[Action], list[EventView]]:
        now_ms = self.now_ms()
        actions: list[Action] = []
        for event in batch:
            actions += self._handle(event, now_ms)
        may_start = self.state.ready and self.state.shortage.until_ms <= now_ms
        if may_start and (why := self.disk_full()):
            actions += self._handle(DiskFull(why), now_ms)
        actions += dispatch(self.state, now_ms)
        changes = self.state.take_changes()
        check_invariants(self.state, changes.jobs)
        return actions, self._commit(changes) if changes else []

    def _commit(self, changes: Changes) -> list[EventView]:
        began_s = time.perf_counter()
        committed = self.store.commit(changes)
        self.on_commit(time.perf_counter() - began_s)
        return committed

    def _handle(self, event: Event, now_ms: int) -> Sequence[Action]:
        job = getattr(event, "job", 0)
        if job in self.set_aside:
            return ()
        whole = with_past(event, self.state, self.store, self.spec)
        try:
            actions = handle(self.state, whole, now_ms)  # type: ignore[arg-type]
        except Exception:
            if job and self._strikes is not None:
                self._strikes.record(job, type(event).__name__, now_ms)
            raise
        if (by := self._asked_by.pop(getattr(event, "request", 0), None)) is not None:
            self.state.changes.audit += audits(by, event, actions, now_ms)
        return actions

    def _perform(self, actions: Sequence[Action]) -> StorageError | None:
        """All of them. A start whose spec cannot be read is made good when we meet the runner."""
        trouble: StorageError | None = None
        forget: list[tuple[JobId, int]] = []
        for action in actions:
            match action:
                case StartAttempt():
                    try:
                        self._start(action)
                    except StorageError as error:
                        trouble = error
                case StopAttempt() | PauseAttempt() | ContinueAttempt() | CheckpointAttempt():
                    self._ask(action)
                case ForgetAttempt(job=job, attempt=attempt):
                    forget.append((job, attempt))
                case LookAtGpus():
                    self.look(action.afresh)
                case Answer():
                    if (future := self._take_asked(action.request)) is not None:
                        future.set_result(action)
                case Refuse():
                    if (future := self._take_asked(action.request)) is not None:
                        future.set_exception(
                            GpudError(action.message, kind=action.kind, hint=action.hint)
                        )
                case _:
                    assert_never(action)  # type: ignore[arg-type]
        if self.executor is not None:
            if forget:
                self.executor.forget(forget)
            self.executor.flush()
        return trouble

    def _start(self, action: StartAttempt) -> None:
        if self.executor is None:
            return
        devices = self.state.pool.devices
        leased = [found for part in action.lease if (found := devices.get(part.device))]
        spec = self._started_now[action.job] = self.store.spec(action.job)
        if action.retry_args is not None:
            spec = structs.replace(spec, retry_args=action.retry_args)
        self.executor.start(Launch(action, spec, tuple(leased)))

    def _ask(
        self, action: StopAttempt | PauseAttempt | ContinueAttempt | CheckpointAttempt
    ) -> None:
        if self.executor is None:
            return
        match action:
            case StopAttempt():
                self.executor.stop(action)
            case PauseAttempt():
                self.executor.pause(action)
            case ContinueAttempt():
                self.executor.unpause(action)
            case CheckpointAttempt():
                self.executor.checkpoint(action)

    def _take_asked(self, request: int) -> asyncio.Future[Answer] | None:
        future = self._asked.pop(request, None)
        return future if future is not None and not future.done() else None

    def _refuse_all(self, error: GpudError) -> None:
        asked, self._asked, self._asked_by = self._asked, {}, {}
        for future in asked.values():
            if not future.done():
                future.set_exception(error)

    # -- time ------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """One timer for the state's next deadline, one for the check when idle."""
        if self._tick_handle is not None:
            self._tick_handle.cancel()
            self._tick_handle = None
        deadline = next_deadline(self.state)
        if deadline is not None:
            # The loop's clock stands still while the machine sleeps: the time is looked at again.
            delay_s = min(max(0, deadline - self.now_ms()) / 1000, LONGEST_SLEEP_S)
            self._tick_handle = self._loop.call_later(delay_s, self._tick)
        if self._idle_handle is None:
            self._idle_handle = self._loop.call_later(IDLE_CHECK_S, self._check_all)

    def _tick(self) -> None:
        self._tick_handle = None
        if self._turn_handle is None and not self.storage_problem:
            self._turn_handle = self._loop.call_soon(self._turn)

    def _check_all(self) -> None:
        """Once after each burst of work, not in the middle of it."""
        self._idle_handle = None
        if self._turns != self._turns_checked:
            self._turns_checked = self._turns
            self._idle_handle = self._loop.call_later(IDLE_CHECK_S, self._check_all)
        elif not self._closed and not self.storage_problem:
            check_invariants(self.state)

    # -- a disk that does not work ---------------------------------------------------------------

    def _undo(self, error: StorageError, batch: Sequence[Event] = ()) -> None:
        """Rule 3. Until the disk works, the state in memory only answers questions. `batch`: what
        the turn had taken from the mailbox, if nothing of it is written."""
        self._mailbox = [event for event in (*batch, *self._mailbox) if is_told_once(event)]
        self.storage_problem = error.message
        self._warn("storage_problem", why=error.message, again_in_s=STORAGE_RETRY_S)
        self._refuse_all(error)
        self.state.runner_problem = error.message
        self._loop.call_later(STORAGE_RETRY_S, self._try_storage)

    def _try_storage(self) -> None:
        if self._closed:
            return
        try:
            state = self._loaded_state()
            self.store.commit(Changes(draining=state.draining))
        except StorageError as error:
            self.storage_problem = error.message
            self._loop.call_later(STORAGE_RETRY_S, self._try_storage)
            return
        self._warn("storage_works_again")
        self.state = state
        self.storage_problem = ""
        self.tell_windows()
        self._tick()
        self.meet_runner()


def audits(by: By, event: Event, actions: Sequence[Action], now_ms: int) -> list[Audit]:
    """What there is to write down of a request: nothing where nothing has changed."""
    answer = next((action for action in actions if isinstance(action, Answer)), None)
    if answer is None or answer.again:
        return []
    if answer.jobs and answer.count:
        first = int(answer.jobs[0])
        return [Audit(now_ms, by, ((first, first + answer.count - 1),))]
    if answer.jobs:
        return [Audit(now_ms, by, spans_of(sorted(answer.jobs)))]
    about_jobs = hasattr(event, "jobs") or hasattr(event, "edits")
    return [] if about_jobs else [Audit(now_ms, by)]


def is_told_once(event: Event) -> bool:
    """An Xid is. Other facts come again: the runner repeats its own, and looks are taken anew."""
    return isinstance(event, GpuBroke)


def _stopping() -> GpudError:
    return GpudError("cannot answer: gpud is stopping", kind="unreachable")

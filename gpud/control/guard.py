"""One caller and what it may do: every request passes here, and every answer.

Made by control/server.py for each connection, called by control/session.py. Rule 1: `check` is
asked before anything of a request is done; what it gives back is the daemon as this caller may use
it, and the verbs get no other. Rule 2: that one looks once more at every change on its way to the
core, whatever the verb has made of the request. Rule 3: what a refusal says names the owner, and
every refusal is told to the log. Rule 4: it decides nothing itself: control/access.py does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from msgspec import Struct, structs

from gpud.config.belonging import user_name
from gpud.control import access, sights
from gpud.control.access import Caller, Policy
from gpud.control.link import Warn
from gpud.control.meter import Meter
from gpud.core.actions import Answer
from gpud.core.changes import By
from gpud.core.events import (
    EditRequested,
    Event,
    JobsSubmitted,
    MoveRequested,
    RetryRequested,
)
from gpud.core.indices import size
from gpud.core.model import JobId, JobState
from gpud.core.ready import rank_of
from gpud.core.spans import count
from gpud.errors import GpudError
from gpud.ports import Controlled, Store
from gpud.protocol.replies import EventView
from gpud.protocol.requests import ChangeBase, RequestBase, Submit, Swap
from gpud.protocol.selectors import Selection

MOST_OWNERS = 10_000  # that are remembered for followers


class Guard:
    def __init__(
        self, daemon: Controlled, policy: Policy, caller: Caller, meter: Meter, warn: Warn
    ) -> None:
        self.caller = caller
        self.about: dict[str, object] = {"uid": caller.uid, "pid": caller.pid}
        self._daemon = daemon
        self._policy = policy
        self.shared = policy.system
        self._meter = meter
        self._warn = warn
        self._owners: dict[int, int] = {}
        self.is_administrator = access.is_administrator(policy, caller)
        self.max_submit_bytes = 0 if self.is_administrator else policy.max_submit_bytes

    def check(self, request: RequestBase) -> Controlled:
        """The daemon for this request. Raises GpudError (refused)."""
        verb = verb_of(request)
        if not access.may(self._policy, self.caller, request):
            raise self.refused(f"cannot {words_of(request)}: only administrators may")
        if isinstance(request, Submit) and not self.is_administrator:
            try:
                self._meter.submit(self.caller.uid)
            except GpudError as error:
                raise self.refused(error.message, error.hint) from error
        return cast(Controlled, Guarded(self, self._daemon, request, verb))

    def refused(self, why: str, hint: str = "") -> GpudError:
        self._warn("request_refused", why=why, **self.about)
        return GpudError(why, kind="refused", hint=hint)

    def shown(self, reply: Struct) -> Struct:
        """The reply, without what is not for this caller."""
        if not self._policy.system:
            return reply
        return sights.shown(reply, self)

    def events(self, events: Sequence[EventView]) -> list[EventView]:
        if not self._policy.system:
            return list(events)
        owners = self.owners([event.job for event in events])
        return sights.events(events, lambda job: self.sees(owners.get(job, access.ROOT)))

    # -- whose they are ----------------------------------------------------------------------

    def sees(self, owner: int) -> bool:
        return access.may_see(self._policy, self.caller, owner)

    def is_own(self, owner: int) -> bool:
        return owner == self.caller.uid

    def name_of(self, uid: int) -> str:
        return self._daemon.state.gates.rules.users.get(uid) or user_name(uid)

    def owners(self, jobs: Iterable[int]) -> dict[int, int]:
        """Of those that exist."""
        known, find = self._owners, self._daemon.state.find
        found: dict[int, int] = {}
        missing: list[int] = []
        for job in dict.fromkeys(jobs):
            if job in known:
                found[job] = known[job]
            elif job > 0 and (record := find(JobId(job))) is not None:
                found[job] = record.uid
            elif job > 0:
                missing.append(job)
        if missing:
            found |= self._daemon.store.owners(missing)
        if len(known) > MOST_OWNERS:
            known.clear()
        known.update(found)
        return found

    def others(self, request: RequestBase, jobs: Iterable[int]) -> dict[int, int]:
        """Those that the caller may not do this with, and whose they are."""
        owners = self.owners(jobs).items()
        may = {
            uid: access.may(self._policy, self.caller, request, uid)
            for uid in {u for _, u in owners}
        }
        return {job: owner for job, owner in owners if not may[owner]}

    def means_own(self, request: RequestBase) -> bool:
        """Whether what falls under something is only meant as far as it is the caller's."""
        return self._policy.system and isinstance(request, ChangeBase) and not request.all_users

    # -- what is on its way to the core ---------------------------------------------------------

    def look_over(self, request: RequestBase, event: Event) -> Event:
        """Rule 2: the event as the core may have it. Raises GpudError."""
        if not self._policy.system:
            return event
        if isinstance(event, JobsSubmitted):
            self._check_submit(event)
            return structs.replace(event, key=self._key(event.key))
        jobs = [*getattr(event, "jobs", ()), *(edit.job for edit in getattr(event, "edits", ()))]
        for job, owner in self.others(request, jobs).items():
            raise self.refused(f"cannot {verb_of(request)} job {job}: {self.whose(owner)}")
        if self.is_administrator:
            return event
        if isinstance(event, EditRequested):
            for edit in event.edits:
                if edit.becomes.priority != edit.was.priority:
                    self._check_priority(edit.becomes.priority, f"edit job {edit.job}")
        elif isinstance(event, MoveRequested):
            self._check_move(event)
        elif isinstance(event, RetryRequested):
            self._meter.queue(self.caller.uid, len(event.jobs), self._count)
        return event

    def whose(self, owner: int) -> str:
        return f"it belongs to {self.name_of(owner)}"

    def _key(self, key: str) -> str:
        """Of each user its own."""
        return f"{self.caller.uid}:{key}" if key else ""

    def _check_submit(self, event: JobsSubmitted) -> None:
        if any(new.spec.uid != self.caller.uid for new in event.jobs):
            raise AssertionError("a submit for another user")
        if self.is_administrator:
            return
        self._check_priority(max(new.spec.priority for new in event.jobs), "submit")
        many = sum(size(a.indices) if (a := new.spec.array) else 1 for new in event.jobs)
        again = event.key and self._daemon.store.submission(self._key(event.key)) is not None
        if not again:
            self._meter.queue(self.caller.uid, many, self._count)

    def _check_priority(self, priority: int, what: str) -> None:
        most = self._policy.max_priority
        if priority > most:
            raise self.refused(
                f"cannot {what}: only administrators may give a priority above {most}"
            )

    def _check_move(self, event: MoveRequested) -> None:
        """Nobody else's job is passed."""
        if event.to == "last":
            return
        state, me = self._daemon.state, self.caller.uid
        moved = [job for n in event.jobs if (job := state.find(n)) is not None]
        target = state.find(event.beside) if event.beside else None
        last = max(map(rank_of, moved), default=None)
        for job in state.jobs.values():
            if job.uid == me or job.state is JobState.ACTIVE or last is None:
                continue
            rank = rank_of(job)
            if rank < last and (target is None or rank_of(target) < rank):
                raise self.refused(
                    f"cannot move {'job' if len(moved) == 1 else 'jobs'} "
                    f"{', '.join(str(n) for n in event.jobs[:5])}: job {state.spoken(job.id)} of "
                    f"{self.name_of(job.uid)} would be passed"
                )

    def _count(self) -> int:
        """The jobs of this user that are not done."""
        jobs, uid = self._daemon.state.jobs.values(), self.caller.uid
        return sum(count(job.rest) or 1 for job in jobs if job.uid == uid)


class Guarded:
    """The daemon as one caller may use it, for one request: gpud/ports.py, Controlled."""

    def __init__(self, guard: Guard, daemon: Controlled, request: RequestBase, verb: str) -> None:
        self._guard = guard
        self._daemon = daemon
        self._request = request
        self._by = By(verb, guard.caller.uid, guard.caller.pid)
        self.submits_as = daemon.submits_as
        self.store = daemon.store
        if guard.shared:
            self.submits_as = guard.caller.uid
            self.store = cast(Store, OwnStore(guard, daemon.store, request))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._daemon, name)

    async def ask(self, make: Callable[[int], Event], by: By | None = None) -> Answer:
        event = self._guard.look_over(self._request, make(0))
        return await self._daemon.ask(
            lambda number: structs.replace(event, request=number), self._by
        )

    async def switch_source(self, name: str, *, stopped: bool, by: By | None = None) -> None:
        await self._daemon.switch_source(name, stopped=stopped, by=self._by)


class OwnStore:
    """The store, which for a change selects what the caller may change: what falls under something
    only if it is the caller's, and what is named by itself or refused. `@` is the caller's own."""

    def __init__(self, guard: Guard, store: Store, request: RequestBase) -> None:
        self._guard = guard
        self._store = store
        self._request = request

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def select(self, selection: Selection) -> list[JobId]:
        guard, request = self._guard, self._request
        if selection.last:
            selection = structs.replace(selection, last_of=guard.caller.uid)
        found = self._store.select(selection)
        if not isinstance(request, ChangeBase | Swap):
            return found
        named = Selection(
            ids=selection.ids,
            elements=selection.elements,
            last=selection.last,
            last_of=selection.last_of,
        )
        single = found if named == selection else []
        if not single and (named.ids or named.elements or named.last):
            single = self._store.select(named)
        for job, owner in guard.others(request, single).items():
            raise guard.refused(f"cannot select job {job}: {guard.whose(owner)}")
        by_user = any(tag.startswith("user:") for tag in selection.tags)
        if not guard.means_own(request) or (by_user and guard.is_administrator):
            return found
        me, owners, kept = guard.caller.uid, guard.owners(found), set(single)
        own = [job for job in found if job in kept or owners.get(job) == me]
        if found and not own:
            job = found[0]
            raise guard.refused(
                f"cannot select jobs: none of these is yours, job {job} belongs to "
                f"{guard.name_of(owners[job])}",
                "--all-users, for administrators" if guard.is_administrator else "",
            )
        return own


def verb_of(request: RequestBase) -> str:
    return str(type(request).__struct_config__.tag)


def words_of(request: RequestBase) -> str:
    """What is asked for, after "cannot"."""
    verb = verb_of(request)
    if getattr(request, "all_users", False):
        return f"{verb} jobs of all users"
    return {
        "group": "change a group",
        "source-stop": "stop a source",
        "source-start": "start a source",
        "heal": "heal GPUs",
    }.get(verb, verb)

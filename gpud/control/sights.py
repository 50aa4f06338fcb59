"""What a caller sees of others' jobs: that they are there, whose, where they stand and how they
ended; not what they run, where, with what environment, and what is said of that.

Called by control/guard.py for every answer of a daemon that several users share. A reply type with
jobs in it that is not named here is a bug that tests/control/test_access.py finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from msgspec import UNSET, Struct, structs

from gpud.protocol.replies import (
    ArrayView,
    AttemptView,
    EventView,
    JobDetail,
    JobsReply,
    JobView,
    Reasons,
    ReasonView,
    Shown,
    StatusReply,
)

# Of an event's detail: what says nothing of a command, a path or a program.
PLAIN = frozenset(
    ("outcome", "exit_code", "signal", "lease", "retry_at_ms", "rule", "reason", "grace_s", "gpu")
)


class Eyes(Protocol):
    """control/guard.py, Guard."""

    def sees(self, owner: int) -> bool: ...
    def owners(self, jobs: Iterable[int]) -> dict[int, int]: ...
    def is_own(self, owner: int) -> bool: ...
    def name_of(self, uid: int) -> str: ...


def shown(reply: Struct, eyes: Eyes) -> Struct:
    match reply:
        case JobsReply():
            return structs.replace(reply, jobs=_jobs(reply.jobs, eyes))
        case StatusReply():
            return structs.replace(
                reply, running=_jobs(reply.running, eyes), recent=_jobs(reply.recent, eyes)
            )
        case Shown():
            arrays = reply.arrays
            if arrays is not UNSET:
                arrays = tuple(_array(array, eyes) for array in arrays)
            jobs = tuple(_detail(detail, eyes) for detail in reply.jobs)
            return structs.replace(reply, jobs=jobs, arrays=arrays)
        case Reasons():
            owners = eyes.owners(reason.job for reason in reply.reasons)
            reasons = tuple(
                reason if eyes.sees(owners.get(reason.job, 0)) else _reason(reason)
                for reason in reply.reasons
            )
            return structs.replace(reply, reasons=reasons)
        case _:
            return reply


def events(found: Iterable[EventView], sees: Callable[[int], bool]) -> list[EventView]:
    return [event if event.job <= 0 or sees(event.job) else _event(event) for event in found]


def _jobs(jobs: tuple[JobView, ...], eyes: Eyes) -> tuple[JobView, ...]:
    owners = eyes.owners(job.id for job in jobs)
    return tuple(_job(job, owners.get(job.id, 0), eyes) for job in jobs)


def _job(job: JobView, owner: int, eyes: Eyes) -> JobView:
    job = structs.replace(job, user=eyes.name_of(owner), foreign=not eyes.is_own(owner))
    if eyes.sees(owner):
        return job
    return structs.replace(job, command="", where="", why="", hidden=True)


def _detail(detail: JobDetail, eyes: Eyes) -> JobDetail:
    owner = detail.uid
    detail = structs.replace(detail, job=_job(detail.job, owner, eyes))
    if eyes.sees(owner):
        return detail
    return structs.replace(
        detail,
        argv=None,
        shell=(),
        setup="",
        cwd="",
        env_names=(),
        retry_args="",
        attempts=tuple(map(_attempt, detail.attempts)),
        story=tuple(map(_event, detail.story)),
        audit=(),
    )


def _array(array: ArrayView, eyes: Eyes) -> ArrayView:
    return structs.replace(array, example=_detail(array.example, eyes))


def _attempt(attempt: AttemptView) -> AttemptView:
    return structs.replace(attempt, why="", log="")


def _event(event: EventView) -> EventView:
    detail = {key: value for key, value in event.detail.items() if key in PLAIN}
    return structs.replace(event, detail=detail)


def _reason(reason: ReasonView) -> ReasonView:
    """Of a job that is done, without the clause about its end, which may name a path."""
    text = reason.reason
    if text.startswith("done: "):
        text = ": ".join(text.split(": ")[:2])
    return structs.replace(reason, reason=text, attempts=tuple(map(_attempt, reason.attempts)))

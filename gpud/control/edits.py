"""The verbs that change what waits: edit, move and swap.

Called by control/verbs.py. An edit is made here from what the job says now, checked by itself, and
handed to the core as a whole new spec. From the first to the last of that there is no pause, so
nothing can have been committed in between.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from msgspec import UNSET, structs

from gpud.config.jobs import spec_of
from gpud.control.afters import Named, laid_over, named, says_nothing
from gpud.control.choice import choose, choose_apart
from gpud.control.differences import told
from gpud.control.fields import Environments, lay_over
from gpud.core import events
from gpud.core.actions import Answer
from gpud.core.model import JobId, JobSpec, JobState
from gpud.core.state import State
from gpud.errors import GpudError
from gpud.ports import Controlled
from gpud.protocol.replies import Edited, Moved, PriorityView, RefusedView, Swapped
from gpud.protocol.requests import Edit, JobFields, Move, Selector, Swap

PAGE = 1000  # jobs; between two pages others have their turn

# Of the fields of JobFields, those that concern later attempts alone (core/edits.py).
OF_LATER_ATTEMPTS = frozenset(
    ("priority", "retries", "backoff_s", "backoff_max_s", "retry_on", "retry_args")
)


async def edit(daemon: Controlled, request: Edit) -> Edited:
    """Each job is changed or refused by itself, PAGE of them in one go. Raises GpudError for what
    no job could be made."""
    change = request.change
    _check(daemon, change)
    single, under = choose_apart(daemon.store, "edit", request.jobs)
    fields = {name for name in change.__struct_fields__ if getattr(change, name) is not UNSET}
    running_too = fields <= OF_LATER_ATTEMPTS
    applicable = (job for job in under if _is_open(daemon.state, job, active=running_too))
    jobs = sorted({*single, *applicable})
    try:
        said = named(change, daemon.store, there=True)
    except GpudError as error:
        raise GpudError(f"cannot edit: {error.message}", kind=error.kind) from error
    changed: list[JobId] = []
    refused: list[RefusedView] = []
    for start in range(0, len(jobs), PAGE):
        try:
            answer = await _edit_page(daemon, jobs[start : start + PAGE], change, said, refused)
        except GpudError as error:
            done = f" ({len(changed)} jobs were changed before that)" if changed else ""
            raise GpudError(error.message + done, kind=error.kind, hint=error.hint) from error
        changed += answer.jobs
        refused += (RefusedView(job, why) for job, why in answer.refused)
    return Edited(id=request.id, jobs=tuple(changed), refused=tuple(refused))


async def _edit_page(
    daemon: Controlled,
    jobs: Sequence[JobId],
    change: JobFields,
    said: Named,
    refused: list[RefusedView],
) -> Answer:
    """What is wrong with one of these whatever the core says of it is added to `refused`."""
    edits = []
    environments: Environments = {}
    for job in jobs:
        was = _as_it_is(daemon, job)
        try:
            becomes = _changed(was, change, said, environments)
        except GpudError as error:
            refused.append(RefusedView(job, f"cannot edit job {job}: {error.message}"))
        else:
            edits.append(events.Edit(job, was, becomes, told(was, becomes)))
    if not edits:
        return Answer(0)
    return await daemon.ask(lambda number: events.EditRequested(number, tuple(edits)))


async def move(daemon: Controlled, request: Move) -> Moved:
    """Raises GpudError when there is nobody who waits where they are to stand."""
    to, beside = _where(daemon, request)
    single, under = choose_apart(daemon.store, "move", request.jobs)
    applicable = (job for job in under if job != beside and _is_open(daemon.state, job))
    jobs = tuple(sorted({*single, *applicable}))
    if not jobs:
        return Moved(id=request.id, jobs=())
    answer = await daemon.ask(lambda number: events.MoveRequested(number, jobs, to, beside))
    refused = tuple(RefusedView(job, why) for job, why in answer.refused)
    priorities = tuple(PriorityView(*got) for got in answer.priorities)
    return Moved(id=request.id, jobs=answer.jobs, refused=refused, priorities=priorities)


async def swap(daemon: Controlled, request: Swap) -> Swapped:
    """Both or none: raises GpudError."""
    single, under = choose_apart(daemon.store, "swap", request.jobs)
    if under or len(single) != 2:
        raise GpudError("cannot swap: it takes two jobs", kind="usage", hint="gpuctl swap 42 17")
    one, other = single
    answer = await daemon.ask(lambda number: events.SwapRequested(number, (one, other)))
    priorities = tuple(PriorityView(*got) for got in answer.priorities)
    return Swapped(id=request.id, jobs=answer.jobs, priorities=priorities)


# -- edits -----------------------------------------------------------------------------------------


def _check(daemon: Controlled, change: JobFields) -> None:
    """Raises GpudError for what is wrong with it whatever the job."""
    if change.held is not UNSET:
        hint = "gpuctl hold, gpuctl release"
        raise GpudError("cannot edit whether a job is held", kind="usage", hint=hint)
    if change == JobFields():
        raise GpudError("cannot edit: nothing is said to be changed", kind="usage")
    plain = spec_of(daemon.defaults, uid=os.geteuid())
    try:
        lay_over(plain, change, {})
    except GpudError as error:
        raise GpudError(f"cannot edit: {error.message}", kind="usage") from error


def _changed(was: JobSpec, change: JobFields, said: Named, environments: Environments) -> JobSpec:
    spec = lay_over(was, change, environments)
    if says_nothing(change):
        return spec
    after = laid_over(was.after, change, said)
    return spec if after == was.after else structs.replace(spec, after=after)


def _as_it_is(daemon: Controlled, job: JobId) -> JobSpec:
    """What it says now; of a job that is done as far as that is of use."""
    spec, record = daemon.store.spec(job), daemon.state.jobs.get(job)
    if record is None:
        return spec
    args = spec.retry_args if record.retry_args is None else record.retry_args
    return structs.replace(spec, priority=record.priority, after=record.after, retry_args=args)


# -- order -----------------------------------------------------------------------------------------


def _where(daemon: Controlled, request: Move) -> tuple[events.Place, JobId]:
    said = [place for place in (request.before, request.after, request.to) if place is not None]
    if len(said) != 1:
        hint = "before a job, after a job, first or last"
        raise GpudError("cannot move: it takes one place", kind="usage", hint=hint)
    if request.before is not None:
        return "before", _only(daemon, "before", request.before)
    if request.after is not None:
        return "after", _only(daemon, "after", request.after)
    return request.to or "last", JobId(0)


def _only(daemon: Controlled, to: str, where: Selector) -> JobId:
    found = choose(daemon.store, f"move {to}", [where])
    if len(found) != 1:
        raise GpudError(f"cannot move {to} {where}: that is {len(found)} jobs", kind="usage")
    return found[0]


def _is_open(state: State, job: JobId, *, active: bool = False) -> bool:
    """Not done, and not active unless that is fine."""
    record = state.jobs.get(job)
    return record is not None and (active or record.state is not JobState.ACTIVE)

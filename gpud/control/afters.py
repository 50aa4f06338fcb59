"""What a submit's jobs come after: selectors, turned into spans of ids.

Called by control/jobs.py. A job that is named is not looked for here: the core knows whether it is
there, and whether it can still be come after.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import UNSET, UnsetType, structs

from gpud.core.model import After, JobId, Span
from gpud.errors import GpudError
from gpud.ports import Store
from gpud.protocol import selectors
from gpud.protocol.requests import JobFields, Selector
from gpud.protocol.selectors import Selection

Named = tuple[list[Span] | None, list[Span] | None]  # None: not said


def come_after(base: After, fields: JobFields, store: Store) -> After:
    """`base` with what `fields` say. `@` becomes "the one before". Raises GpudError."""
    if says_nothing(fields):
        return base
    return laid_over(base, fields, named(fields, store))


def says_nothing(fields: JobFields) -> bool:
    return fields.after is fields.after_any is fields.after_failed is UNSET


def named(fields: JobFields, store: Store, *, there: bool = False) -> Named:
    """Jobs that must have succeeded, and jobs that must have ended. `there`: all of them are there
    already, and `@` is the last one. Raises GpudError."""
    return (
        _spans(store, fields.after, ended=False, there=there),
        _spans(store, fields.after_any, ended=True, there=there),
    )


def laid_over(base: After, fields: JobFields, said: Named) -> After:
    succeeded, ended = said
    if succeeded is None:
        succeeded = [span for span in base.spans if not span.ended]
    if ended is None:
        ended = [span for span in base.spans if span.ended]
    patient = base.patient if fields.after_failed is UNSET else fields.after_failed == "wait"
    return After((*succeeded, *ended), patient)


def seen_from(after: After, later: int) -> After:
    """The same for a job that is so many behind the one for which it was said."""
    if not later or all(span.first > 0 for span in after.spans):
        return after
    spans = [
        span if span.first > 0 else Span(span.first - later, span.last - later, span.ended)
        for span in after.spans
    ]
    return structs.replace(after, spans=tuple(spans))


def _spans(
    store: Store, chosen: Sequence[Selector] | UnsetType, *, ended: bool, there: bool
) -> list[Span] | None:
    if chosen is UNSET:
        return None
    try:
        wanted = selectors.parse(chosen)
        return (
            _together(store.select(wanted), ended=ended) if there else _found(store, wanted, ended)
        )
    except GpudError as error:
        message = error.message.replace("cannot select", "it cannot come after", 1)
        raise GpudError(message, kind=error.kind, hint=error.hint) from error


def _found(store: Store, wanted: Selection, ended: bool) -> list[Span]:
    spans = [Span(job, store.array_at(JobId(job)) or job, ended) for job in wanted.ids]
    spans += [Span(first, last, ended) for first, last in wanted.ranges]
    spans += [Span(-1 - back, -1 - back, ended) for back in wanted.last]
    rest = structs.replace(wanted, ids=(), ranges=(), last=())
    if rest != Selection():
        spans += _together(store.select(rest), ended=ended)
    return spans


def _together(jobs: Iterable[JobId], *, ended: bool) -> list[Span]:
    """Spans of ids that follow one another."""
    found: list[Span] = []
    for job in jobs:
        if found and found[-1].last + 1 == job:
            found[-1] = Span(found[-1].first, job, ended)
        else:
            found.append(Span(job, job, ended))
    return found

"""Who comes after whom: an index over the jobs that are not done.

Owned by core/state.py. Each job that is not done stands under all jobs it comes after, those that
are done already too: a person's retry of one of these makes it wait again. Of such done ones the
outcome is kept here, since nothing else in memory knows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from gpud.core.model import Job, JobId, Outcome, Span
from gpud.core.numbering import Numbering

Edge = tuple[JobId, bool]  # the other job, and whether it is enough that the earlier one has ended
OutcomeOf = Callable[[JobId], Outcome | None]  # of a done job; None: it is not done, or not known


def nobody_knows(job: JobId) -> Outcome | None:
    return None


class Links:
    def __init__(self) -> None:
        self.dependents: dict[JobId, dict[Edge, None]] = {}  # earlier job -> those after it
        self.outcomes: dict[JobId, Outcome] = {}  # of done jobs that others come after

    def join(self, job: Job, outcome_of: OutcomeOf) -> int:
        """Enter it; gives back how many of the jobs it comes after keep it waiting. `outcome_of`
        knows the done ones that are not known here."""
        waits = 0
        for before, ended in edges(job):
            self.dependents.setdefault(before, {})[job.id, ended] = None
            if before not in self.outcomes and (outcome := outcome_of(before)) is not None:
                self.outcomes[before] = outcome
            waits += not is_met(self.outcomes.get(before), ended)
        return waits

    def leave(self, job: Job) -> None:
        """It is done: nothing holds it back any more."""
        for before, ended in edges(job):
            dependents = self.dependents[before]
            del dependents[job.id, ended]
            if not dependents:
                del self.dependents[before]
                self.outcomes.pop(before, None)

    def after(self, job: JobId) -> list[Edge]:
        return [*self.dependents.get(job, ())]

    def broken(self, job: Job) -> JobId | None:
        """The first of those that it comes after that is done and will not do."""
        for before, ended in edges(job):
            outcome = self.outcomes.get(before)
            if outcome is not None and not is_met(outcome, ended):
                return before
        return None

    def waited_for(self, job: Job) -> list[JobId]:
        """Those that are not done."""
        return [before for before, _ in edges(job) if before not in self.outcomes]


def edges(job: Job) -> Iterator[Edge]:
    for span in job.after.spans:
        for before in range(span.first, span.last + 1):
            yield JobId(before), span.ended


def is_met(outcome: Outcome | None, ended: bool) -> bool:
    """Whether a job with this outcome (None: it is not done) keeps nobody waiting."""
    return outcome is Outcome.SUCCEEDED or (ended and outcome is not None)


def with_ids(spans: Iterable[Span], job: JobId, numbering: Numbering) -> tuple[Span, ...]:
    """Ids in the place of "so many before", each only once."""

    def ids(span: Span) -> tuple[bool, int, int]:
        first, last = span.first, span.last
        low = first if first > 0 else numbering.before(job, -first)[0]
        high = last if last > 0 else numbering.before(job, -last)[1]
        return span.ended, low, high

    found: list[Span] = []
    for ended, first, last in sorted(map(ids, spans)):
        if found and found[-1].ended == ended and first <= found[-1].last + 1:
            found[-1] = Span(found[-1].first, max(last, found[-1].last), ended)
        else:
            found.append(Span(first, last, ended))
    return tuple(found)

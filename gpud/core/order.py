"""Where a job stands among those of its priority, and how it gets another place there.

A place is a number; of a job that was never moved it is its id. What is moved gets numbers between
those of its new neighbours. All are less than the next id, so what is submitted later stands
behind. Where there is no room between two numbers any more, as many neighbours as it takes get new
ones: nothing is ever refused for that.

Rule 1: who is put beside a job gets its priority, since else it would not stand there.
Rule 2: the order of all others among themselves stays as it was.
Rule 3: elements of an array that share a record stand at their ids; those stay, and what is put
    between two of them has room there.

Called by core/scheduler.py.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from itertools import groupby, pairwise
from math import ceil, floor

from msgspec import Struct

from gpud.core.actions import Action, Answer, Refuse
from gpud.core.events import MoveRequested, SwapRequested
from gpud.core.model import Job, JobId, JobState
from gpud.core.ready import rank_of
from gpud.core.requests import absent, place_word
from gpud.core.shelves import Rank
from gpud.core.spans import Spans, spans_of, without
from gpud.core.state import State


def on_move(state: State, event: MoveRequested, now_ms: int) -> Sequence[Action]:
    moved, refused = [], []
    for job_id in dict.fromkeys(event.jobs):
        if why := not_waiting(state, job_id):
            refused.append((job_id, f"cannot move job {job_id}: {why}"))
        elif job_id == event.beside:
            refused.append((job_id, f"cannot move job {job_id} {event.to} itself"))
        else:
            moved.append(_rank(state, job_id))
    moved.sort()
    if event.beside and (why := not_waiting(state, event.beside)):
        message = f"cannot move jobs {event.to} job {event.beside}: {why}"
        return (Refuse(event.request, "refused", message),)
    if event.beside:
        beside: Rank | None = _rank(state, event.beside)
    else:
        beside = _outermost(state, {rank[-1] for rank in moved}, first=event.to == "first")
    jobs = tuple(rank[-1] for rank in moved)
    got: tuple[tuple[JobId, int], ...] = ()
    if beside is not None and moved:
        gap = _gap(state, {*jobs}, beside, behind=event.to in ("after", "last"))
        if not gap.has(moved):
            got = tuple((job, gap.priority) for rank, _, job in moved if -rank != gap.priority)
            _put(state, jobs, gap)
            detail = {"beside": event.beside} if event.beside else {}
            for job in jobs:
                attempt = state.jobs[job].attempt
                state.tell(job, attempt, "moved", now_ms, to=event.to, **detail)
    return (Answer(event.request, jobs, refused=tuple(refused), priorities=got),)


def on_swap(state: State, event: SwapRequested, now_ms: int) -> Sequence[Action]:
    """Both stand where the other one stood, or nothing is changed."""
    one, other = event.jobs
    if one == other:
        return (Refuse(event.request, "refused", f"cannot swap job {one} with itself"),)
    for job_id in event.jobs:
        if why := not_waiting(state, job_id):
            return (Refuse(event.request, "refused", f"cannot swap job {job_id}: {why}"),)
    a, b = state.own(one), state.own(other)
    for priority in {a.priority, b.priority}:
        _tell_apart(state, priority)
    (a_rank, a_place, _), (b_rank, b_place, _) = rank_of(a), rank_of(b)
    got = [(a.id, -b_rank), (b.id, -a_rank)] if a_rank != b_rank else []
    for job, rank, place, with_ in ((a, b_rank, b_place, b), (b, a_rank, a_place, a)):
        job.priority, job.place = -rank, place
        state.enter_again(job)
        state.tell(job.id, job.attempt, "swapped", now_ms, beside=with_.id)
    return (Answer(event.request, event.jobs, priorities=tuple(got)),)


def not_waiting(state: State, job_id: JobId) -> str:
    """Why a job has no place in the queue; "" when it has one."""
    job = state.find(job_id)
    if job is None:
        return absent(state, job_id)
    return f"it is {place_word(state, job_id)}" if job.state is JobState.ACTIVE else ""


def _rank(state: State, job_id: JobId) -> Rank:
    """Of an element that shares its record, too."""
    job = state.find(job_id)
    assert job is not None
    return (-job.priority, job_id, job_id) if job.rest else rank_of(job)


def _outermost(state: State, but: set[JobId], *, first: bool) -> Rank | None:
    """The first or the last of the others that wait."""
    taken = spans_of(but)
    found: list[Rank] = []
    for job in state.jobs.values():
        if rest := without(job.rest, taken):
            element = JobId(rest[0][0] if first else rest[-1][1])
            found.append((-job.priority, element, element))
        elif job.state is not JobState.ACTIVE and not job.rest and job.id not in but:
            found.append(rank_of(job))
    return (min if first else max)(found, default=None)


# -- a place between others ------------------------------------------------------------------------


class Gap(Struct):
    """`row` are all of this priority that have records of their own and stand between the same two
    elements that have none, in their order: `low` (None: no such one) and `high`. What is put here
    comes before `row[index]`."""

    priority: int
    row: list[Job]
    index: int
    low: float | None
    high: float

    def has(self, moved: Sequence[Rank]) -> bool:
        """Whether these, and nobody else, stand here already."""
        before = rank_of(self.row[self.index - 1]) if self.index else None
        after = rank_of(self.row[self.index]) if self.index < len(self.row) else None
        first, last = moved[0], moved[-1]
        return (
            {rank[0] for rank in moved} == {-self.priority}
            and (before is None or before < first)
            and (after is None or last < after)
            and (self.low is None or self.low < first[1])
            and last[1] < self.high
        )


def _gap(state: State, moved: Collection[JobId], beside: Rank, *, behind: bool) -> Gap:
    priority, place, job_id = -beside[0], beside[1], beside[2]
    shared = _sharing(state, priority, moved)
    is_one = job_id not in state.jobs  # an element that shares its record
    low = _last_below(shared, place, with_it=is_one and behind)
    high = _first_above(shared, place, with_it=is_one and not behind)
    row = [job for job in _of_priority(state, priority) if job.id not in moved]
    places = [rank_of(job)[1] for job in row]
    start = 0 if low is None else bisect_right(places, low)
    stop = len(row) if high is None else bisect_left(places, high)
    at_end = start if behind else stop
    index = at_end if is_one else row.index(state.jobs[job_id]) + behind
    end = state.next_id if high is None else high
    return Gap(priority, row[start:stop], index - start, low, end)


def _put(state: State, moved: Sequence[JobId], gap: Gap) -> None:
    row, index = [*gap.row], gap.index
    places = [rank_of(job)[1] for job in row]
    start, numbers = with_room(places, index, len(moved), gap.low, gap.high)
    row[index:index] = [state.own(job) for job in moved]
    for job, number in zip(row[start : start + len(numbers)], numbers, strict=True):
        job.priority, job.place = gap.priority, number
        state.enter_again(job)


def _tell_apart(state: State, priority: int) -> None:
    """New places, if two have the same and only their ids say who is first: one was done when the
    other was moved, and was retried."""
    row = _of_priority(state, priority)
    if all(rank_of(a)[1] < rank_of(b)[1] for a, b in pairwise(row)):
        return
    shared = _sharing(state, priority, ())
    for low, jobs in groupby(row, lambda job: _last_below(shared, rank_of(job)[1])):
        some = [*jobs]
        high = _first_above(shared, rank_of(some[-1])[1]) or state.next_id
        for job, number in zip(some, between(low, high, len(some)), strict=True):
            job.place = number
            state.enter_again(job)


def _of_priority(state: State, priority: int) -> list[Job]:
    """Those with records of their own in their order; those that are active, too: they may come
    back."""
    jobs = (job for job in state.jobs.values() if job.priority == priority and not job.rest)
    return sorted(jobs, key=rank_of)


def _sharing(state: State, priority: int, but: Collection[JobId]) -> list[Spans]:
    """Elements of this priority that share a record."""
    taken = spans_of(but)
    jobs = (job for job in state.jobs.values() if job.priority == priority and job.rest)
    return [without(job.rest, taken) for job in jobs]


def _last_below(shared: Sequence[Spans], place: float, *, with_it: bool = False) -> int | None:
    most = floor(place) if with_it else ceil(place) - 1
    found = (min(last, most) for spans in shared for first, last in spans if first <= most)
    return max(found, default=None)


def _first_above(shared: Sequence[Spans], place: float, *, with_it: bool = False) -> int | None:
    least = ceil(place) if with_it else floor(place) + 1
    found = (max(first, least) for spans in shared for first, last in spans if last >= least)
    return min(found, default=None)


# -- numbers ---------------------------------------------------------------------------------


def with_room(
    places: Sequence[float], index: int, count: int, least: float | None, end: float
) -> tuple[int, list[float]]:
    """`count` are inserted before `places[index]`: (start, numbers) are the new places from
    position `start` on, of these and of as few others as will do. `least` is less than all (None:
    there is no end), `end` is more."""
    reach = 0
    while True:
        start, stop = max(0, index - reach), min(len(places), index + reach)
        low = places[start - 1] if start else least
        high = places[stop] if stop < len(places) else end
        numbers = between(low, high, stop - start + count)
        row = [*numbers, high] if low is None else [low, *numbers, high]
        if all(a < b for a, b in pairwise(row)) or (start, stop) == (0, len(places)):
            return start, numbers
        reach = 2 * reach or 1


def between(low: float | None, high: float, count: int) -> list[float]:
    """So many numbers between the two (`low` None: there is no end there), none of them 0. They
    rise as long as there is room for them."""
    if low is None:
        start = min(high, 0) - count
        return [start + n for n in range(count)]
    step = (high - low) / (count + 1)
    return [low + step * n or step / 2 for n in range(1, count + 1)]

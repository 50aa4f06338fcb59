"""Where a job stands among those of its priority, and how it gets another place there.

A place is a number; of a job that was never moved it is its id. What is moved gets numbers between
those of its new neighbours. All are less than the next id, so what is submitted later stands
behind. Where there is no room between two numbers any more, as many neighbours as it takes get new
ones: nothing is ever refused for that.

Rule 1: who is put beside a job gets its priority, since else it would not stand there.
Rule 2: the order of all others among themselves stays as it was.

Called by core/scheduler.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from gpud.core.actions import Action, Answer, Refuse
from gpud.core.events import MoveRequested, SwapRequested
from gpud.core.model import Job, JobId, JobState
from gpud.core.ready import rank_of
from gpud.core.requests import absent, place_word
from gpud.core.state import State


def on_move(state: State, event: MoveRequested, now_ms: int) -> Sequence[Action]:
    moved, refused = [], []
    for job_id in dict.fromkeys(event.jobs):
        if why := not_waiting(state, job_id):
            refused.append((job_id, f"cannot move job {job_id}: {why}"))
        elif job_id == event.beside:
            refused.append((job_id, f"cannot move job {job_id} {event.to} itself"))
        else:
            moved.append(state.own(job_id))
    moved.sort(key=rank_of)
    if event.to in ("before", "after"):
        if why := not_waiting(state, event.beside):
            message = f"cannot move jobs {event.to} job {event.beside}: {why}"
            return (Refuse(event.request, "refused", message),)
        beside: Job | None = state.own(event.beside)
    else:
        beside = _outermost(state, {job.id for job in moved}, first=event.to == "first")
    got = []
    if beside is not None and moved and not _stand_there(state, moved, beside, event.to):
        detail = {"beside": event.beside} if event.beside else {}
        got = [(job.id, beside.priority) for job in moved if job.priority != beside.priority]
        _put(state, moved, beside, behind=event.to in ("after", "last"))
        for job in moved:
            state.tell(job.id, job.attempt, "moved", now_ms, to=event.to, **detail)
    jobs = tuple(job.id for job in moved)
    return (Answer(event.request, jobs, refused=tuple(refused), priorities=tuple(got)),)


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


def _outermost(state: State, but: set[JobId], *, first: bool) -> Job | None:
    """The first or the last of the others that wait."""
    others = [
        job for job in state.jobs.values() if job.state is not JobState.ACTIVE and job.id not in but
    ]
    return (min if first else max)(others, key=rank_of, default=None)


def _stand_there(state: State, moved: Sequence[Job], beside: Job, to: str) -> bool:
    """Whether nothing but these stands between the first of them and `beside`."""
    row = [*moved, beside] if to in ("before", "first") else [beside, *moved]
    if any(job.priority != beside.priority for job in moved) or row != sorted(row, key=rank_of):
        return False
    low, high = rank_of(row[0]), rank_of(row[-1])
    return sum(low <= rank_of(job) <= high for job in state.jobs.values()) == len(row)


def _put(state: State, moved: Sequence[Job], beside: Job, *, behind: bool) -> None:
    but = {job.id for job in moved}
    row = [job for job in _of_priority(state, beside.priority) if job.id not in but]
    index = row.index(beside) + behind
    places = [rank_of(job)[1] for job in row]
    start, numbers = with_room(places, index, len(moved), state.next_id)
    row[index:index] = moved
    for job, number in zip(row[start : start + len(numbers)], numbers, strict=True):
        job.priority, job.place = beside.priority, number
        state.enter_again(job)


def _tell_apart(state: State, priority: int) -> None:
    """New places for all, if two have the same and only their ids say who is first: one was done
    when the other was moved, and was retried."""
    row = _of_priority(state, priority)
    if all(rank_of(a)[1] < rank_of(b)[1] for a, b in pairwise(row)):
        return
    for job, number in zip(row, between(None, state.next_id, len(row)), strict=True):
        job.place = number
        state.enter_again(job)


def _of_priority(state: State, priority: int) -> list[Job]:
    """In their order, those that are active included: they may come back."""
    return sorted((j for j in state.jobs.values() if j.priority == priority), key=rank_of)


# -- numbers ---------------------------------------------------------------------------------


def with_room(
    places: Sequence[float], index: int, count: int, end: float
) -> tuple[int, list[float]]:
    """`count` are inserted before `places[index]`: (start, numbers) are the new places from
    position `start` on, of these and of as few others as will do. `end` is more than all."""
    reach = 0
    while True:
        start, stop = max(0, index - reach), min(len(places), index + reach)
        low = places[start - 1] if start else None
        high = places[stop] if stop < len(places) else end
        numbers = between(low, high, stop - start + count)
        row = [*numbers, high] if low is None else [low, *numbers, high]
        if all(a < b for a, b in pairwise(row)):
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

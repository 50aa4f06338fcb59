"""What of the past goes: done jobs by age and number, logs by age and size, the oldest first.

Called by the daemon's housekeeping, page by page; it knows neither the store nor the files. Pure.

Rule 1: what ended less than YOUNGEST_MS ago stays, whatever the limits say: who submits with a key
or asks for the log of a job that has just ended finds it.
Rule 2: the oldest goes first, and nothing goes while something older may go in its place. What is
needed (a job that waits comes after it) stays, and counts.
Rule 3: no limit is passed by more than what rules 1 and 2 keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct

from gpud.core.model import JobId

YOUNGEST_MS = 3_600_000
DAY_MS = 86_400_000


class Limits(Struct, frozen=True):
    """0: none. `logs_bytes`: of all logs together, as they lie on the disk."""

    jobs_ms: int = 0
    jobs: int = 0
    logs_ms: int = 0
    logs_bytes: int = 0


class Ended(Struct, frozen=True):
    """A job that is done. `log_bytes`: of the logs of all of its attempts."""

    ended_at_ms: int
    job: JobId
    log_bytes: int = 0


class Choice(Struct, frozen=True):
    """`go`: oldest first. `left`: jobs, or bytes of logs, that there are then. `over`: all that
    come later stay. `next_ms`: when the first of these may go by its age; 0: it never does."""

    go: tuple[JobId, ...]
    left: int
    over: bool
    next_ms: int = 0


def jobs_to_go(
    oldest_first: Iterable[Ended],
    there_are: int,
    limits: Limits,
    now_ms: int,
    is_needed: Callable[[JobId], bool],
) -> Choice:
    """Of these done jobs. `there_are`: of all done jobs, those that a page before has chosen not
    counted any more."""
    left = there_are
    go: list[JobId] = []
    for one in oldest_first:
        age_ms = now_ms - one.ended_at_ms
        old = 0 < limits.jobs_ms < age_ms
        many = 0 < limits.jobs < left
        if age_ms < YOUNGEST_MS or not (old or many):
            return Choice(tuple(go), left, True, _due_ms(one, limits.jobs_ms, many))
        if not is_needed(one.job):
            go.append(one.job)
            left -= 1
    return Choice(tuple(go), left, False)


def logs_to_go(
    oldest_first: Iterable[Ended], there_are: int, limits: Limits, now_ms: int
) -> Choice:
    """The same for the logs of these done jobs; `there_are`: bytes, of all logs."""
    left = there_are
    go: list[JobId] = []
    for one in oldest_first:
        age_ms = now_ms - one.ended_at_ms
        old = 0 < limits.logs_ms < age_ms
        many = 0 < limits.logs_bytes < left
        if age_ms < YOUNGEST_MS or not (old or many):
            return Choice(tuple(go), left, True, _due_ms(one, limits.logs_ms, many))
        go.append(one.job)
        left -= one.log_bytes
    return Choice(tuple(go), left, False)


def _due_ms(first_that_stays: Ended, longest_ms: int, many: bool) -> int:
    """Just past the limit; what goes since there are too many only has to be old enough."""
    ended = first_that_stays.ended_at_ms
    if many:
        return ended + YOUNGEST_MS
    return ended + max(longest_ms + 1, YOUNGEST_MS) if longest_ms else 0

"""The shape of a job: what decides in which queue of ready jobs it stands. Pure arithmetic."""

from __future__ import annotations

from math import ceil

from gpud.core.model import Job, Request

Shape = tuple[Request, int]  # what is asked for, and `Job.within_s` rounded up


def within_s(time_limit_s: float | None, grace_s: float, linger_s: float | None) -> int:
    """How long after a start a payload is gone at the latest, rounded up; 0: nobody knows."""
    if time_limit_s is None or linger_s is None:
        return 0
    return ceil(time_limit_s + grace_s + linger_s)


def last_start_ms(deadline_ms: int, time_limit_s: float | None) -> int:
    """When a job must have started to be done by its deadline; 0: it has none."""
    return max(1, deadline_ms - round(1000 * (time_limit_s or 0))) if deadline_ms else 0


def shape_of(job: Job) -> Shape:
    """Times are rounded up to four steps per doubling: few queues, and no promise broken."""
    bound = job.within_s
    if bound > 8:
        step = 1 << (bound.bit_length() - 3)
        bound = -(-bound // step) * step
    return job.request, bound


def longest_within(seconds: int) -> int:
    """The longest time that `shape_of` does not round up past this."""
    if seconds <= 8:
        return seconds
    step = 1 << (seconds.bit_length() - 3)
    return seconds // step * step

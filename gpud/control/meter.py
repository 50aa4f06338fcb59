"""What each user may use of gpud itself: submits in a second, jobs in the queue.

Made by control/server.py, one for all connections; asked by control/guard.py. Administrators are
not counted. Rule: how many jobs a user has is known as an upper bound (jobs that end are not
noticed); where that reaches the limit they are counted, once a second at most, since a count
walks the queue.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from gpud.control.access import Policy
from gpud.errors import GpudError

BURST_S = 10.0  # over so long the rate is a mean
COUNT_AGAIN_S = 1.0
MOST_KNOWN = 10_000  # users; who has been quiet is forgotten first


class Meter:
    def __init__(self, policy: Policy, clock: Callable[[], float] = monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._tokens: dict[int, tuple[float, float]] = {}  # uid -> (tokens, at)
        self._queued: dict[int, tuple[int, float]] = {}  # uid -> (at most so many, counted at)

    def submit(self, uid: int) -> None:
        """One more submit. Raises GpudError when it comes too fast."""
        rate = self._policy.max_submits_per_s
        if not rate:
            return
        now, most = self._clock(), max(1.0, rate * BURST_S)
        tokens, at = self._tokens.pop(uid, (most, now))
        tokens = min(most, tokens + (now - at) * rate)
        self._tokens[uid] = (tokens - 1 if tokens >= 1 else tokens, now)
        _keep_few(self._tokens)
        if tokens < 1:
            raise GpudError(
                f"cannot submit: more than {rate:g} submits a second",
                hint="many jobs go in one submit: gpuctl submit --jobs FILE",
            )

    def queue(self, uid: int, new: int, count: Callable[[], int]) -> None:
        """So many more jobs. Raises GpudError past the limit; `count` says how many there are."""
        most = self._policy.max_queued
        if not most:
            return
        now = self._clock()
        at_most, counted = self._queued.pop(uid, (most, -COUNT_AGAIN_S))
        if at_most + new > most and now - counted >= COUNT_AGAIN_S:
            at_most, counted = count(), now
        fits = at_most + new <= most
        self._queued[uid] = (at_most + new if fits else at_most, counted)
        _keep_few(self._queued)
        if not fits:
            raise GpudError(
                f"cannot queue {new} more {'job' if new == 1 else 'jobs'}: a user may have {most} "
                "that are not done"
            )


def _keep_few(known: dict[int, tuple[float, float]] | dict[int, tuple[int, float]]) -> None:
    if len(known) > MOST_KNOWN:
        del known[next(iter(known))]

"""Which ids belong to arrays, and what "the job before" means: an array counts as one.

Owned by core/state.py. Ids are given out in ascending order, so arrays are added in that order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable


class Numbering:
    """Spans of ids, first and last included."""

    def __init__(self, arrays: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._places: list[int] = []  # of each array, as if each array were one job
        for first, last in arrays:
            self.add(first, last)

    def add(self, first: int, last: int) -> None:
        place = self._place(first)
        self._firsts.append(first)
        self._lasts.append(last)
        self._places.append(place)

    def copy(self) -> Numbering:
        return Numbering(zip(self._firsts, self._lasts, strict=True))

    def array_of(self, job: int) -> tuple[int, int] | None:
        """The array that has this element."""
        which = bisect_right(self._firsts, job) - 1
        if which >= 0 and job <= self._lasts[which]:
            return self._firsts[which], self._lasts[which]
        return None

    def before(self, job: int, back: int) -> tuple[int, int]:
        """What stands so many before the job: a job or a whole array. Not positive: nothing."""
        place = self._place(job) - back
        which = bisect_right(self._places, place) - 1
        if which < 0:
            return place, place
        if self._places[which] == place:
            return self._firsts[which], self._lasts[which]
        found = self._lasts[which] + place - self._places[which]
        return found, found

    def _place(self, job: int) -> int:
        which = bisect_right(self._firsts, job) - 1
        if which < 0:
            return job
        return self._places[which] + max(0, job - self._lasts[which])

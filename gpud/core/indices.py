"""The indices of an array: 0-99, or 0,2,5-9, or 0-98:2. Pure.

The k-th element of an array has the k-th index and the id `first + k`. How people write them is in
config/arrays.py.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate

from gpud.core.model import Indices

MOST = 1_000_000  # elements of an array


def size(indices: Indices) -> int:
    return sum(map(_length, indices))


def nth(indices: Indices, place: int) -> int:
    """The index of the element at this place, from 0 on. Raises IndexError."""
    ends = list(accumulate(map(_length, indices)))
    which = bisect_right(ends, place)
    first, _, step = indices[which]
    return first + step * (place - (ends[which - 1] if which else 0))


def place_of(indices: Indices, index: int) -> int | None:
    """Where the element with this index stands; None: there is none."""
    before = 0
    for part in indices:
        first, last, step = part
        if first <= index <= last and (index - first) % step == 0:
            return before + (index - first) // step
        before += _length(part)
    return None


def among(indices: Indices, low: int, high: int) -> Iterator[int]:
    """The indices from `low` to `high`."""
    for first, last, step in indices:
        begin = first + max(0, -((first - low) // step)) * step
        yield from range(begin, min(high, last) + 1, step)


def part(indices: Indices, low: int, high: int) -> Indices:
    """Those at the places from `low` to `high`."""
    found = []
    before = 0
    for first, last, step in indices:
        length = (last - first) // step + 1
        begin, end = max(low - before, 0), min(high - before, length - 1)
        if begin <= end:
            found.append((first + step * begin, first + step * end, step))
        before += length
    return tuple(found)


def shown(indices: Indices) -> str:
    """As people write them: "0,2,5-9"."""
    return ",".join(_shown(*run) for run in indices)


def _shown(first: int, last: int, step: int) -> str:
    if first == last:
        return str(first)
    return f"{first}-{last}" if step == 1 else f"{first}-{last}:{step}"


def _length(run: tuple[int, int, int]) -> int:
    first, last, step = run
    return (last - first) // step + 1

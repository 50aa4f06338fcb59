"""Sets of ids as ascending spans without gaps or touch: (3, 5), (9, 9) is 3, 4, 5 and 9. Pure.

An array has a hundred thousand elements that are all alike; what is alike stands together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Span = tuple[int, int]  # first and last, both included
Spans = tuple[Span, ...]


def spans_of(ids: Iterable[int]) -> Spans:
    """Of ids in any order."""
    found: list[Span] = []
    for n in sorted(ids):
        if found and n <= found[-1][1] + 1:
            found[-1] = found[-1][0], n
        else:
            found.append((n, n))
    return tuple(found)


def count(spans: Spans) -> int:
    return sum(last - first + 1 for first, last in spans)


def holds(spans: Spans, n: int) -> bool:
    return any(first <= n <= last for first, last in spans)


def each(spans: Spans) -> Iterator[int]:
    for first, last in spans:
        yield from range(first, last + 1)


def common(spans: Spans, others: Spans) -> Spans:
    """What is in both."""
    found: list[Span] = []
    i = j = 0
    while i < len(spans) and j < len(others):
        first, last = max(spans[i][0], others[j][0]), min(spans[i][1], others[j][1])
        if first <= last:
            found.append((first, last))
        if spans[i][1] < others[j][1]:
            i += 1
        else:
            j += 1
    return tuple(found)


def without(spans: Spans, others: Spans) -> Spans:
    """What is in the first alone."""
    found: list[Span] = []
    left = list(reversed(others))
    for first, last in spans:
        while left and left[-1][1] < first:
            left.pop()
        while left and left[-1][0] <= last:
            low, high = left[-1]
            if first < low:
                found.append((first, low - 1))
            first = high + 1
            if high >= last:
                break
            left.pop()
        if first <= last:
            found.append((first, last))
    return tuple(found)

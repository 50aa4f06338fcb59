"""The least value among those under keys below a bound, kept up to date as values change.

A binary tree over the bits of the keys, in which each node knows the least value below it; nodes
without any are not there. With n keys of b bits a change and a question cost b steps at most,
whatever n is.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

V = TypeVar("V", bound=tuple[Any, ...])


class Minima(Generic[V]):
    """Keys are numbers of at most `bits` bits. With 0 bits there is one key, 0."""

    def __init__(self, bits: int) -> None:
        self._top = 1 << bits
        self._least: dict[int, V] = {}  # node -> value; node 1 is the root, 2n and 2n + 1 below n

    def set(self, key: int, value: V | None) -> None:
        """Another value under this key, or none."""
        least, node = self._least, self._top | key
        while node:
            if value is None:
                least.pop(node, None)
            else:
                least[node] = value
            beside = least.get(node ^ 1) if node > 1 else None
            if beside is not None and (value is None or beside < value):
                value = beside
            node >>= 1

    def least(self, below: int) -> V | None:
        """The least value under keys less than `below`, or None."""
        if below >= self._top:
            return self._least.get(1)
        found, node = None, self._top | below
        while node > 1:
            if node & 1:
                value = self._least.get(node - 1)
                if value is not None and (found is None or value < found):
                    found = value
            node >>= 1
        return found

"""Bugs, planted on purpose: a table of them, filled by a decorator.

Used by the tests named test_planted_*, and by test_array_order.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

Function = TypeVar("Function", bound=Callable[..., object])
Bugs = dict[str, Callable[[pytest.MonkeyPatch], None]]


def plant(bugs: Bugs, owner: object, name: str) -> Callable[[Callable[[Function], Function]], None]:
    """Registers what the decorated function makes of the right one, in the place of `owner.name`.
    The name of the function, with spaces, is the name of the bug."""

    def register(breaks: Callable[[Function], Function]) -> None:
        def set_in(patch: pytest.MonkeyPatch) -> None:
            patch.setattr(owner, name, breaks(getattr(owner, name)))

        bugs[breaks.__name__.replace("_", " ")] = set_in

    return register

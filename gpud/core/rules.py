"""What holds back jobs that have something in common, as it was configured or said: no state yet.

Jobs belong to keys: "group:lr", "label:sweep=lr", "user:1000", "source:nightly". A rule for a key
makes a gate of it (core/gates.py). Imports the model only and decides nothing.
"""

from __future__ import annotations

from functools import lru_cache

from msgspec import Struct

from gpud.core.model import JobId, JobSpec

GROUP, LABEL, USER, SOURCE, GPU = "group:", "label:", "user:", "source:", "gpu:"
ARRAY = "array:"  # with the id of its first element
EVERY_USER = USER + "*"  # the rule of users who have none of their own
# Said by a person in the place of a number: no limit, whatever is configured; as configured.
NONE, DEFAULT = -1, -2


class Rule(Struct, frozen=True):
    """`windows`: who says when jobs may start here, and what people call it: {"clock": "the window
    nights"}. Until that one has spoken, nothing starts."""

    limit: int | None = None  # of running jobs
    max_fails: int = 0  # after so many the rest is held; 0: never
    windows: dict[str, str] = {}

    def __bool__(self) -> bool:
        return self.limit is not None or self.max_fails > 0 or bool(self.windows)


class Rules(Struct, frozen=True):
    """All that is configured, at once. `users` are the names of those it knows."""

    gates: dict[str, Rule] = {}
    users: dict[int, str] = {}
    half_life_ms: int = 0  # of what users have used; 0: no fair share
    weights: dict[int, float] = {}
    weight: float = 1.0  # of those who have none of their own


class Kept(Struct, frozen=True):
    """What people said of a gate, and how many of its jobs have failed since it was released: kept
    in the store. None: not said, as configured. `NONE`: no limit; for `max_fails`, never."""

    limit: int | None = None
    max_fails: int | None = None
    fails: int = 0

    def __bool__(self) -> bool:
        return self.limit is not None or self.max_fails is not None or self.fails > 0


class Window(Struct, frozen=True):
    """What a provider says of one gate. Its word lasts to `until_ms`: after that an open window
    counts as closed, and a closed one does not open by itself."""

    open: bool
    until_ms: int
    why: str = ""  # of a closed one, a clause: "which opens at 22:00"


NO_RULE, NO_RULES, NOTHING_KEPT = Rule(), Rules(), Kept()


def belongs_of(spec: JobSpec, array: JobId) -> tuple[str, ...]:
    """The keys of a job, in the order in which they are asked; equal ones are one object. `array`:
    the id of the first element, or 0."""
    return keys_of(spec.group, spec.uid, spec.source, spec.labels, array)


@lru_cache(maxsize=4096)
def keys_of(
    group: str, uid: int, source: str, labels: tuple[str, ...], array: int = 0
) -> tuple[str, ...]:
    return (
        *([GROUP + group] if group else []),
        f"{USER}{uid}",
        *([SOURCE + source] if source else []),
        *(LABEL + label for label in labels),
        *([f"{ARRAY}{array}"] if array else []),
    )

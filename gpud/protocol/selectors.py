"""Job selectors: `42`, `3-9`, `@` (last), `@~2`, `name:…`, `state:failed`, `source:…`, `group:…`,
`label:k=v`, `user:alice`, `all`; of an array `42` is all of it, and `42[7]` and `42[3-9]` are the
elements with these indices.

Pure: text to a struct that the store turns into a query. `state:` takes the state of a job, the
phase of an active one, the outcome of one that is done, or a word for several of them (`GROUPS`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from gpud.core.model import JobState, Outcome, Phase
from gpud.errors import GpudError

HINT = (
    "selectors: 42, 42[7], 3-9, @ (last), @~2, name:NAME, state:failed, source:NAME, group:NAME, "
    "label:KEY=VALUE, user:NAME, all"
)
TAGS = ("group:", "label:", "user:")
STATES = tuple(JobState) + tuple(Phase) + tuple(Outcome)
# Ended, and not as anybody wanted: what a person looks at in the morning, and tries again.
BAD = (
    Outcome.FAILED,
    Outcome.KILLED,
    Outcome.TIMED_OUT,
    Outcome.NOT_STARTED,
    Outcome.LOST,
)
GROUPS: dict[str, tuple[str, ...]] = {"bad": BAD}


class Selection(Struct, frozen=True):
    """A union: a job matches when any part does. `last` holds the n of each `@~n`."""

    ids: tuple[int, ...] = ()  # of an array's first: all of it
    elements: tuple[tuple[int, int, int], ...] = ()  # array, and its indices from, to
    ranges: tuple[tuple[int, int], ...] = ()
    last: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    states: tuple[str, ...] = ()  # values of JobState, Phase or Outcome
    sources: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()  # "group:lr", "label:sweep=lr", "user:alice" or "user:1000"
    everything: bool = False
    last_of: int | None = None  # `last` counts the jobs of this uid alone


def parse(selectors: Sequence[int | str]) -> Selection:
    """Raises GpudError (usage) with one sentence about the first selector that is none."""
    found: dict[str, list[object]] = {
        "ids": [], "elements": [], "ranges": [], "last": [],
        "names": [], "states": [], "sources": [], "tags": [],
    }  # fmt: skip
    everything = False
    for selector in selectors:
        text = str(selector).strip()
        if text == "all":
            everything = True
        elif re.fullmatch(r"[0-9]{1,18}", text):
            found["ids"].append(int(text))
        elif match := re.fullmatch(r"([0-9]{1,18})-([0-9]{1,18})", text):
            low, high = int(match[1]), int(match[2])
            if low > high:
                raise GpudError(
                    f'cannot select "{text}": {low} is greater than {high}', kind="usage", hint=HINT
                )
            found["ranges"].append((low, high))
        elif match := re.fullmatch(r"([0-9]{1,18})\[([0-9]{1,18})(?:-([0-9]{1,18}))?\]", text):
            first, low, high = int(match[1]), int(match[2]), int(match[3] or match[2])
            if low > high:
                raise GpudError(
                    f'cannot select "{text}": {low} is greater than {high}', kind="usage", hint=HINT
                )
            found["elements"].append((first, low, high))
        elif match := re.fullmatch(r"@(?:~([0-9]{1,9}))?", text):
            found["last"].append(int(match[1] or 0))
        elif text.startswith("name:") and len(text) > 5:
            found["names"].append(text[5:])
        elif text.startswith("source:") and len(text) > 7:
            found["sources"].append(text[7:])
        elif text.startswith(TAGS) and not text.endswith(":"):
            if text.startswith("label:") and "=" not in text:
                raise GpudError(
                    f'cannot select "{text[:60]}": a label is KEY=VALUE', kind="usage", hint=HINT
                )
            found["tags"].append(text)
        elif text.startswith("state:"):
            word = text[6:]
            if word not in STATES and word not in GROUPS:
                raise GpudError(
                    f'cannot select "{text[:60]}": no such state or outcome',
                    kind="usage",
                    hint="states: " + ", ".join((*STATES, *GROUPS)),
                )
            found["states"] += GROUPS.get(word, (word,))
        else:
            shown = text if len(text) <= 60 else text[:60] + "…"
            raise GpudError(f'cannot select "{shown}": not a selector', kind="usage", hint=HINT)
    return Selection(everything=everything, **{k: tuple(v) for k, v in found.items()})  # type: ignore[arg-type]

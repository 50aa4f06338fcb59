"""When a job that waits will start, in words: what `gpuctl why` says below the reason.

Pure, but for the clock of the `Screen` and the time zone. Takes a ReasonView of
gpud/protocol/replies.py as plain values; what there is nothing to say of is left out of it.
"""

from __future__ import annotations

import time

from gpud.ctl.render import Screen, duration
from gpud.ctl.words import listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

AT_ONCE_MS = 60_000  # so near that no more need be said
WEEK_MS = 7 * 86_400_000
MOST_NAMED = 3  # jobs

PEOPLE = {"release": "it is released", "undrain": "the pool is undrained"}
TIMES = {
    (): "",
    ("limits",): ", if time limits are used up",
    ("usual",): ", if jobs take as long as usual",
    ("limits", "usual"): ", if jobs take as long as usual, or else their whole time limits",
}


def would_start(reason: dict[str, Any]) -> str:
    """ "could start now with 2 GPUs, or with a time limit of 25m: gpuctl edit 42"; "" where nothing
    helps."""
    found: Sequence[str] = reason.get("starts_now", ())
    return f"could start now {', or '.join(found)}: gpuctl edit {reason['job']}" if found else ""


def when(reason: dict[str, Any], on: Screen) -> str:
    """A clause; "" where there is nothing to say. Of elements of an array that stand together it is
    about the first."""
    first = "the first of them " if reason.get("count", 1) > 1 else ""
    assumes = reason.get("assumes", ())
    people = [words for assumed, words in PEOPLE.items() if assumed in assumes]
    if_people = f"if {' and '.join(people)} now: " if people else ""
    if_times = TIMES[tuple(assumed for assumed in assumes if assumed in ("limits", "usual"))]
    if start_ms := reason.get("start_ms"):
        return f"{if_people}{first}starts {_about(start_ms, on)}{_after(reason)}{if_times}"
    if later_ms := reason.get("later_than_ms"):
        return f"{if_people}{first}starts later than {_moment(later_ms, on)}{if_times}"
    if unknown := reason.get("unknown"):
        return f"nobody knows when {first or 'it '}starts: {unknown}"
    if never := reason.get("never"):
        return f"{if_people}{first}will not start: {never}{if_times}"
    return ""


def _about(at_ms: int, on: Screen) -> str:
    left_ms = at_ms - on.now_ms
    if left_ms < AT_ONCE_MS:
        return "at any moment"
    return f"about {_moment(at_ms, on)} (in {duration(round(left_ms / 60_000) * 60)})"


def _moment(at_ms: int, on: Screen) -> str:
    """ "03:40", "03:40 tomorrow", "03:40 on Sunday", "03:40 on 2026-11-29"."""
    at, today = time.localtime(at_ms / 1000), time.localtime(on.now_ms / 1000)
    clock = time.strftime("%H:%M", at)
    if at[:3] == today[:3]:
        return clock
    tomorrow = time.localtime(time.mktime((*today[:2], today[2] + 1, 12, 0, 0, 0, 0, -1)))
    if at[:3] == tomorrow[:3]:
        return f"{clock} tomorrow"
    near = at_ms - on.now_ms < WEEK_MS and at[6] != today[6]
    return f"{clock} on {time.strftime('%A' if near else '%Y-%m-%d', at)}"


def _after(reason: dict[str, Any]) -> str:
    jobs = [str(job) for job in reason.get("after", ())]
    if not jobs:
        return ""
    if len(jobs) > MOST_NAMED:
        jobs = [*jobs[:MOST_NAMED], f"{len(jobs) - MOST_NAMED} more"]
    return f", after {'job' if len(jobs) == 1 else 'jobs'} {listed(jobs)}"

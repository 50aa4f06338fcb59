"""The clock as a provider of windows: it tells the core which gates are open, and until when.

Owned by daemon/app.py. Looks at the time at each change and at least once a minute, so that a clock
that is set, or a machine that was asleep, is noticed; what it said before counts no longer than to
the change it was said for (core/rules.py, Window). Without windows it does nothing at all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import tzinfo

from gpud.config.limits import LAST_MS
from gpud.config.rules import CLOCK
from gpud.config.windows import AHEAD_DAYS, Windows, in_words
from gpud.core.events import Event, WindowsTurned
from gpud.core.rules import Window

LOOK_AGAIN_S = 60.0


class Clock:
    """`now_s`: the time, for tests; `zone`: that of the machine where none is given."""

    def __init__(
        self,
        post: Callable[[Event], None],
        *,
        now_s: Callable[[], float] = time.time,
        zone: tzinfo | None = None,
    ) -> None:
        self._post = post
        self._now_s = now_s
        self._zone = zone
        self._windows: Mapping[str, Windows] = {}
        self._told: dict[str, Window] = {}
        self._timer: asyncio.TimerHandle | None = None

    def set(self, windows: Mapping[str, Windows]) -> None:
        """These from now on, by the keys of their gates."""
        self._windows = windows
        self.look()

    def tell_again(self) -> None:
        """To a state that has just been loaded."""
        self._told = {}
        self.look()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._windows = {}

    def look(self) -> None:
        """What time is it?"""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_s = self._now_s()
        found: dict[Windows, Window] = {}
        for windows in self._windows.values():
            if windows not in found:
                found[windows] = self._window(windows, now_s)
        told = {key: found[windows] for key, windows in self._windows.items()}
        if told != self._told:
            self._told = told
            self._post(WindowsTurned(CLOCK, told))
        if told:
            next_ms = min(window.until_ms for window in told.values())
            delay_s = max(0.0, min(LOOK_AGAIN_S, next_ms / 1000 - now_s))
            self._timer = asyncio.get_running_loop().call_later(delay_s, self.look)

    def _window(self, windows: Windows, now_s: float) -> Window:
        is_open = windows.is_open(now_s, self._zone)
        change_s = windows.next_change(now_s, self._zone)
        until_ms = LAST_MS if change_s is None else round(1000 * change_s)
        if is_open:
            return Window(True, until_ms)
        if change_s is None:
            return Window(False, until_ms, f"which does not open within {AHEAD_DAYS} days")
        return Window(False, until_ms, f"which opens {in_words(change_s, now_s, self._zone)}")

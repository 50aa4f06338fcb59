"""When the machine is short of something at a start: no start for a while, longer each time."""

from __future__ import annotations

from msgspec import Struct

FIRST_MS, MAX_MS = 1_000, 60_000


class Shortage(Struct):
    why: str = ""  # what was short at the last start that failed for it, or was not tried
    until_ms: int = 0  # no start before; 0 again once it is over
    pause_ms: int = 0  # the last pause; the next one is twice as long

    failed: bool = False  # a start was tried

    def begin(self, why: str, now_ms: int, *, failed: bool = True) -> None:
        if self.until_ms <= now_ms:
            self.until_ms = 0
        if not self.until_ms:  # several starts fail at once: one shortage
            self.pause_ms = min(max(2 * self.pause_ms, FIRST_MS), MAX_MS)
            self.until_ms = now_ms + self.pause_ms
        self.why, self.failed = why, failed

    def end(self) -> None:
        """A start has succeeded."""
        self.why, self.until_ms, self.pause_ms, self.failed = "", 0, 0, False

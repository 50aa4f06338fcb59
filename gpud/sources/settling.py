"""How long a file may be in between: changed and not yet at rest, or away while it is replaced.

Owns those times and the one judgement: an editor that empties a file and writes it again must not
be taken for somebody who empties it. Used by reader.py. Pure: it is told the time.
"""

from __future__ import annotations

from msgspec import Struct

from gpud.sources.file_sight import Stamp


class Timing(Struct, frozen=True):
    settle_s: float = 0.3
    settle_max_s: float = 10.0  # a file that never rests is decided upon all the same
    away_s: float = 2.0  # a file that is missing for a shorter time is only being replaced
    answer_s: float = 15.0  # a file system that takes longer gets a sentence


class Settling:
    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._stamp: Stamp | None = None  # of the last look, while the file is suspected
        self._since = self._stamp_since = 0.0

    @property
    def under_way(self) -> bool:
        return self._stamp is not None

    def left_s(self, stamp: Stamp, now: float) -> float:
        """How long a file that is not as before must stay like this; 0: it is at rest."""
        if self._stamp is None:
            self._since = now
        if self._stamp != stamp:
            self._stamp, self._stamp_since = stamp, now
        if now - self._since >= self._timing.settle_max_s:
            return 0.0
        return max(0.0, self._stamp_since + self._timing.settle_s - now)

    def over(self) -> None:
        self._stamp = None

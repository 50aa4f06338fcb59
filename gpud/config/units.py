"""Durations between people and seconds: "90s", "10m", "2h30m", "1d".

Called wherever a person writes or reads a duration (configuration, `#gpud:` options, gpuctl).
Pure, standard library only.
"""

from __future__ import annotations

import math
import re

from gpud.errors import GpudError

HINT = 'durations: seconds, or text like "90s", "10m", "2h30m", "1d", "500ms"'
MS_OF_UNIT = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,15})?"
_PARTS = re.compile(r"\s*".join(rf"(?:({_NUMBER})\s*{unit}(?![a-z]))?" for unit in MS_OF_UNIT))


def parse_duration_s(text: str) -> float:
    """Seconds. A bare number is seconds; units go from the large to the small, each once.

    Raises GpudError (usage) with one sentence.
    """
    clean = text.strip()
    if re.fullmatch(_NUMBER, clean):
        return float(clean)
    match = _PARTS.fullmatch(clean)
    if not clean or match is None:
        raise GpudError(
            f'cannot read "{text}" as a duration: write seconds, or text like 90s, 10m, 2h30m, 1d',
            kind="usage",
            hint=HINT,
        )
    parts = zip(match.groups(), MS_OF_UNIT.values(), strict=True)
    return math.fsum(float(number) * ms for number, ms in parts if number) / 1000


def format_duration(seconds: float) -> str:
    """To the millisecond, as short as can be and readable by `parse_duration_s`."""
    left = round(abs(seconds) * 1000)
    parts = []
    for unit, ms in MS_OF_UNIT.items():
        if unit == "s" and left >= 1000 and left % 1000:
            parts.append(f"{left / 1000:.3f}".rstrip("0") + "s")  # 1.5s, not 1s500ms
            break
        count, left = divmod(left, ms)
        if count:
            parts.append(f"{count}{unit}")
    return ("-" if seconds < 0 else "") + "".join(parts) if parts else "0s"

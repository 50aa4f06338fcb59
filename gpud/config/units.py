"""Durations and memory between people and numbers: "90s", "2h30m"; "12G", "800M".

Called wherever a person writes one (configuration, `#gpud:` options, gpuctl). How memory is shown
is in gpud/amounts.py. Pure, standard library only.
"""

from __future__ import annotations

import math
import re

from gpud.errors import GpudError

HINT = 'durations: seconds, or text like "90s", "10m", "2h30m", "1d", "500ms"'
MS_OF_UNIT = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,15})?"
_PARTS = re.compile(r"\s*".join(rf"(?:({_NUMBER})\s*{unit}(?![a-z]))?" for unit in MS_OF_UNIT))

SIZE_HINT = 'memory: text like "12G", "800M" or "1.5G" (as everywhere on GPUs, G is GiB: 1024 MiB)'
MIB_OF_UNIT = {"m": 1, "g": 1024, "t": 1024 * 1024}
_SIZE = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,15}))?\s*([mgt])(?:i?b)?", re.ASCII | re.IGNORECASE)


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


def parse_size_mib(text: str) -> int:
    """MiB, rounded up, at least 1. Units are powers of 1024 however they are spelled.

    A bare number is refused: one person's 12 is another's 12000. Raises GpudError (usage) with
    one sentence.
    """
    clean = text.strip()
    match = _SIZE.fullmatch(clean)
    if match is None:
        if re.fullmatch(_NUMBER, clean) and not float(clean):
            raise _nothing(text)
        if re.fullmatch(_NUMBER, clean):
            why = f"say of what, {clean}G or {clean}M"
        else:
            why = "write text like 12G, 800M or 1.5G"
        message = f'cannot read "{text}" as an amount of memory: {why}'
        raise GpudError(message, kind="usage", hint=SIZE_HINT)
    whole, decimals, unit = match[1], match[2] or "", match[3].lower()
    scale: int = 10 ** len(decimals)
    mib = -(-int(whole + decimals) * MIB_OF_UNIT[unit] // scale)  # exact, and up
    if mib == 0:
        raise _nothing(text)
    return mib


def _nothing(text: str) -> GpudError:
    message = f'cannot use "{text}" as an amount of memory: it must be more than nothing'
    return GpudError(message, kind="usage", hint=SIZE_HINT)

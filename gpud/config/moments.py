"""Points in time as people write them: `22:00`, `+2h`, `tomorrow 9:30`, `2026-11-22 09:30`.

Used by gpuctl and by the options of entries. Read in local time, and made absolute at once: a clock
that is changed later moves nothing. Raises GpudError with a clause. Standard library only: gpuctl
starts fast.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from gpud.config.limits import LAST_MS
from gpud.config.units import parse_duration_s
from gpud.errors import GpudError

HINT = "22:00, tomorrow 9:30, 2026-11-22 09:30, or +2h"
_TIME = re.compile(r"(?:(tomorrow)[ T])?([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?", re.ASCII)
_DAY = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[ T]([0-9:.]+))?(Z|[+-][0-9:]+)?", re.ASCII)


def read_moment(text: str, now_s: float) -> int:
    """Milliseconds since 1970. A time of day is the next one; a day alone is its first moment."""
    try:
        found = _read(text, now_s)
    except (OverflowError, OSError):
        found = -1
    if not 0 <= found <= LAST_MS:
        raise GpudError(f'"{text}" is too far away')
    return found


def _read(text: str, now_s: float) -> int:
    if text.startswith("+"):
        return round(1000 * (now_s + parse_duration_s(text[1:])))
    if match := _TIME.fullmatch(text):
        return _ms(_next(match, now_s))
    if _DAY.fullmatch(text):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise GpudError(f'"{text}" is no time that there is ({error})') from error
        return _ms(moment)
    raise GpudError(f'"{text[:40]}" is no point in time: write {HINT}')


def _next(match: re.Match[str], now_s: float) -> datetime:
    tomorrow, *parts = match.groups()
    hour, minute, second = (int(part or 0) for part in parts)
    now = datetime.fromtimestamp(now_s)  # noqa: DTZ006 (local time is what people write)
    try:
        found = now.replace(hour=hour, minute=minute, second=second, microsecond=0)
    except ValueError as error:
        raise GpudError(f'"{match[0]}" is no time of day: they go from 0:00 to 23:59') from error
    if tomorrow or found <= now:
        found += timedelta(days=1)
    return found


def _ms(moment: datetime) -> int:
    seconds = moment.timestamp()
    back = datetime.fromtimestamp(seconds)  # noqa: DTZ006
    if moment.tzinfo is None and back != moment:
        raise GpudError(
            f"there is no {moment:%H:%M} on {moment:%Y-%m-%d}: the clock is put forward then"
        )
    return round(1000 * seconds)

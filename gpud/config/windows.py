"""Windows of time as people write them: `22:00-07:00 Mon-Fri, all day Sat-Sun`.

Each part is a span of times of day and the days on which it begins, every day where none is said;
one that ends before it begins ends on the day after. What counts is what the clock on the wall
shows: when it is put back a time of day comes twice, and so does what lies in it; one that is
skipped does not come at all. Pure but for the time zone of the machine. Raises GpudError with a
clause.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo

from gpud.errors import GpudError

EXAMPLE = "22:00-07:00 Mon-Fri, all day Sat-Sun"
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
LONG_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
WHOLE_DAY = 24 * 60  # minutes
AHEAD_DAYS = 16  # a window that has not changed by then, with all that clocks do, never does
HOUR_S = 3600

_TIME = r"([0-9]{1,2}:[0-9]{2})"
_SPAN = re.compile(rf"{_TIME}-{_TIME}(?![0-9:])\s*(.*)", re.ASCII)
_ALL_DAY = re.compile(r"all day\b\s*(.*)", re.IGNORECASE)


@dataclass(frozen=True)
class Span:
    """From minute `begin` of each of these days (0 is Monday) to minute `end`, of the day after
    where that is not later."""

    days: frozenset[int]
    begin: int
    end: int

    def has(self, day: int, minute: int) -> bool:
        if self.begin < self.end:
            return day in self.days and self.begin <= minute < self.end
        if minute >= self.begin:
            return day in self.days
        return minute < self.end and (day - 1) % 7 in self.days


@dataclass(frozen=True)
class Windows:
    """Open while any of its spans is."""

    spans: tuple[Span, ...]

    def is_open(self, at_s: float, zone: tzinfo | None = None) -> bool:
        """`zone`: that of the machine where none is given."""
        there = datetime.fromtimestamp(at_s, zone)
        minute = there.hour * 60 + there.minute
        return any(span.has(there.weekday(), minute) for span in self.spans)

    def next_change(self, after_s: float, zone: tzinfo | None = None) -> float | None:
        """The first moment after this one at which it opens or closes; None: it never does."""
        was_open = self.is_open(after_s, zone)
        today = datetime.fromtimestamp(after_s, zone).date()
        those_of_today = set(self._moments(today, zone))
        for ahead in range(1, AHEAD_DAYS):
            # Where the clock is put back to midnight that day begins before this one is over.
            those_of_next = set(self._moments(today + timedelta(ahead), zone))
            for at_s in sorted(those_of_today | those_of_next):
                if at_s > after_s and self.is_open(at_s, zone) != was_open:
                    return at_s
            those_of_today = those_of_next
        return None

    def _moments(self, day: date, zone: tzinfo | None) -> Iterator[float]:
        """When it might change on this day: at the ends of its spans, which may come twice, and
        when the clock is put forward or back."""
        midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
        for minute in {0, *(m for span in self.spans for m in (span.begin, span.end))}:
            there = midnight + timedelta(minutes=minute)
            yield from {there.replace(fold=fold).timestamp() for fold in (0, 1)}
        first_s = midnight.timestamp()
        for hour in range(25):
            yield from _put_between(first_s + hour * HOUR_S, first_s + (hour + 1) * HOUR_S, zone)


def _put_between(one_s: float, other_s: float, zone: tzinfo | None) -> Iterator[float]:
    """The second at which the clock is put forward or back between two moments, if it is."""
    before = _offset_s(one_s, zone)
    if _offset_s(other_s, zone) == before:
        return
    low, high = round(one_s), round(other_s)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset_s(middle, zone) == before:
            low = middle
        else:
            high = middle
    yield float(high)


def _offset_s(at_s: float, zone: tzinfo | None) -> float:
    there = datetime.fromtimestamp(at_s, zone)
    return there.replace(tzinfo=UTC).timestamp() - at_s


def in_words(at_s: float, now_s: float, zone: tzinfo | None = None) -> str:
    """ "at 22:00", "tomorrow at 07:00", "on Monday at 22:00", "on 2026-11-22 at 09:30"."""
    there, here = (datetime.fromtimestamp(moment, zone) for moment in (at_s, now_s))
    days = (there.date() - here.date()).days
    if days == 0:
        day = ""
    elif days == 1:
        day = "tomorrow "
    elif 1 < days < 7:
        day = f"on {LONG_DAYS[there.weekday()]} "
    else:
        day = f"on {there:%Y-%m-%d} "
    return f"{day}at {there:%H:%M}"


# -- what people write -----------------------------------------------------------------------------


def read_windows(text: str) -> Windows:
    clean = re.sub(r"\s*[-\u2013]\s*", "-", text.strip())
    if not clean:
        raise GpudError(f'it says no time: write text like "{EXAMPLE}"')
    return Windows(tuple(_span(" ".join(part.split())) for part in clean.split(",")))


def _span(part: str) -> Span:
    if match := _ALL_DAY.fullmatch(part):
        return Span(_days(match[1]), 0, WHOLE_DAY)
    match = _SPAN.fullmatch(part)
    if match is None:
        raise GpudError(_no_span(part))
    begin, end = _minute(match[1]), _minute(match[2])
    if begin == WHOLE_DAY:
        raise GpudError(f'"{match[1]}" is the end of a day: a window begins at 0:00')
    if begin == end:
        raise GpudError(f'"{match[1]}-{match[2]}" ends when it begins: write "all day"')
    return Span(_days(match[3]), begin, end)


def _no_span(part: str) -> str:
    """What is wrong with it."""
    shown = part if len(part) <= 40 else part[:40] + "\u2026"
    if not part:
        return f'there is nothing between two commas: write text like "{EXAMPLE}"'
    if re.fullmatch(rf"{_TIME}(\s.*)?", part):
        return f'"{shown}" has no end: write text like "22:00-07:00"'
    try:
        _days(part)
    except GpudError:
        return f'"{shown}" is no window of time: write text like "{EXAMPLE}"'
    return f'"{shown}" says no times: write "all day {shown}", or "22:00-07:00 {shown}"'


def _minute(text: str) -> int:
    hour, _, minute = text.partition(":")
    found = int(hour) * 60 + int(minute)
    if int(minute) > 59 or found > WHOLE_DAY:
        raise GpudError(f'"{text}" is no time of day: they go from 0:00 to 24:00')
    return found


def _days(text: str) -> frozenset[int]:
    """ "Mon-Wed Fri"; "": every day."""
    found: set[int] = set()
    for word in text.split():
        first, dash, last = word.partition("-")
        begin = _day(first)
        end = _day(last) if dash else begin
        found.update((begin + ahead) % 7 for ahead in range((end - begin) % 7 + 1))
    return frozenset(found or range(7))


def _day(text: str) -> int:
    for names in (DAYS, LONG_DAYS):
        for number, name in enumerate(names):
            if text.lower() == name.lower():
                return number
    raise GpudError(f'"{text[:20]}" is no day: they are {", ".join(DAYS)}')

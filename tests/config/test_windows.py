"""Windows of time: what may be written, and when they open, held against the clock on the wall."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.config.windows import DAYS, Windows, in_words, read_windows
from gpud.errors import GpudError

BERLIN = ZoneInfo("Europe/Berlin")
# Changes by half an hour, at midnight, on other days than here; and none at all.
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Beirut",
    "America/Havana",
    "Africa/Casablanca",
    "Asia/Kolkata",
)
NIGHTS = "22:00-07:00 Mon-Fri, all day Sat-Sun"
ODD = "0:30-2:15 Sun Wed-Thu, 23:10-0:50, 1:45-3:05 Sat-Mon"
MINUTES = 7 * 24 * 60  # of a week


@lru_cache(maxsize=len(ZONES))
def wall(name: str) -> tuple[int, list[int]]:
    """A year in this zone: its first second, and for each of its minutes that of the week."""
    zone = ZoneInfo(name)
    begin = round(datetime(2026, 1, 1, tzinfo=zone).timestamp())
    end = round(datetime(2027, 1, 1, tzinfo=zone).timestamp())
    shown = (datetime.fromtimestamp(at, zone) for at in range(begin, end, 60))
    return begin, [t.weekday() * 1440 + t.hour * 60 + t.minute for t in shown]


@lru_cache(maxsize=len(ZONES))
def put(name: str) -> list[int]:
    """Minutes of the year at which the clock is put forward or back."""
    _, shown = wall(name)
    return [n for n in range(1, len(shown)) if (shown[n] - shown[n - 1]) % MINUTES != 1]


def minutes_of(windows: Windows) -> set[int]:
    """Minutes of the week, each span walked from its beginning to its end."""
    found = set()
    for span in windows.spans:
        for day in span.days:
            minute = day * 1440 + span.begin
            while True:
                found.add(minute % MINUTES)
                minute += 1
                if minute % 1440 == span.end % 1440:
                    break
    return found


def changes(name: str, windows: Windows, first: int, last: int) -> list[int]:
    """Between two minutes of the year, by looking at each."""
    begin, shown = wall(name)
    inside = minutes_of(windows)
    is_open = [minute in inside for minute in shown[first:last]]
    found = enumerate(pairwise(is_open), 1)
    return [begin + 60 * (first + n) for n, (a, b) in found if a != b]


def told(name: str, windows: Windows, first: int, last: int) -> list[int]:
    begin, _ = wall(name)
    at: float | None = begin + 60 * first
    found = []
    while at is not None and (at := windows.next_change(at, ZoneInfo(name))) is not None:
        if at >= begin + 60 * last:
            break
        found.append(round(at))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("text", [NIGHTS, ODD])
def test_it_changes_when_the_clock_on_the_wall_says_so_all_year(name: str, text: str) -> None:
    windows = read_windows(text)
    year = len(wall(name)[1])
    assert told(name, windows, 0, year) == changes(name, windows, 0, year)


times = st.builds("{}:{:02}".format, st.integers(0, 23), st.sampled_from([0, 1, 15, 30, 45, 59]))
days = st.lists(st.sampled_from([*DAYS, "Mon-Fri", "Sat-Sun", "Fri-Mon"]), max_size=2).map(" ".join)
spans = st.tuples(times, times | st.just("24:00"), days).filter(lambda s: s[0] != s[1])
texts = st.lists(
    st.builds("{0[0]}-{0[1]} {0[2]}".format, spans) | st.builds("all day {}".format, days),
    min_size=1,
    max_size=3,
).map(", ".join)


@given(
    text=texts, name=st.sampled_from(ZONES), near=st.sampled_from([0, 1]), off=st.integers(0, 8000)
)
def test_so_does_any_other_also_when_clocks_are_changed(
    text: str, name: str, near: int, off: int
) -> None:
    windows = read_windows(text)
    middle = put(name)[near] if put(name) else 100_000
    first = max(0, middle - off)
    last = min(len(wall(name)[1]), first + 8000)
    assert told(name, windows, first, last) == changes(name, windows, first, last)


def berlin(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


@pytest.mark.parametrize(
    ("at", "is_open"),
    [
        ("2026-11-20 21:59", False),  # a Friday
        ("2026-11-20 22:00", True),
        ("2026-11-21 06:59", True),
        ("2026-11-22 23:59", True),
        ("2026-11-23 00:00", False),  # the night of Sunday is none of Mon-Fri
        ("2026-11-23 22:00", True),
        ("2026-11-24 06:59", True),
        ("2026-11-24 07:00", False),
    ],
)
def test_nights_and_weekends(at: str, is_open: bool) -> None:
    assert read_windows(NIGHTS).is_open(berlin(at), BERLIN) == is_open


def test_a_time_that_is_skipped_does_not_come() -> None:
    lost = read_windows("2:10-2:50")  # on March 29 the clock goes from 2:00 to 3:00
    change = lost.next_change(berlin("2026-03-28 03:00"), BERLIN)
    assert change == berlin("2026-03-30 02:10")
    partly = read_windows("2:30-4:00")
    assert partly.next_change(berlin("2026-03-28 05:00"), BERLIN) == berlin("2026-03-29 03:00")


def test_a_midnight_that_comes_twice() -> None:
    """In Havana, on November 1, the clock goes from 1:00 to 0:00."""
    zone = ZoneInfo("America/Havana")
    evening = datetime(2026, 10, 31, 23, 59, tzinfo=zone)
    first = datetime(2026, 11, 1, tzinfo=zone).timestamp()
    minute = read_windows("0:00-0:01")
    found = [evening.timestamp()]
    for _ in range(4):
        found.append(minute.next_change(found[-1], zone) or 0)
    assert found[1:] == [first, first + 60, first + 3600, first + 3660]


@pytest.mark.parametrize("text", ["all day", "0:00-24:00", "0:00-12:00, 12:00-0:00"])
def test_what_is_always_open_never_changes(text: str) -> None:
    windows = read_windows(text)
    assert windows.is_open(berlin("2026-11-20 21:59"), BERLIN)
    assert windows.next_change(berlin("2026-11-20 21:59"), BERLIN) is None


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("new_york")
def test_without_a_zone_it_is_that_of_the_machine() -> None:
    windows, zone = read_windows(ODD), ZoneInfo("America/New_York")
    at = datetime(2026, 10, 30, tzinfo=zone).timestamp()
    for _ in range(30):  # over the night in which the clock is put back
        assert windows.is_open(at) == windows.is_open(at, zone)
        change = windows.next_change(at)
        assert change is not None
        assert change == windows.next_change(at, zone)
        at = change


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("22:00 \u2013 07:00  mon - fri", "22:00-7:00 Monday-Friday"),
        ("9:00-17:00", "9:00-17:00 Mon-Sun"),
        ("All Day sat-mon", "all day Sat Sun Mon"),
        ("12:00-24:00 Tue", "12:00-0:00 Tue"),
    ],
)
def test_it_may_be_written_in_other_ways(text: str, same: str) -> None:
    assert minutes_of(read_windows(text)) == minutes_of(read_windows(same))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it says no time: write text like"),
        ("nights", '"nights" is no window of time: write text like "22:00-07:00 Mon-Fri, all day'),
        ("Sat-Sun", '"Sat-Sun" says no times: write "all day Sat-Sun", or "22:00-07:00 Sat-Sun"'),
        ("22:00", '"22:00" has no end: write text like "22:00-07:00"'),
        ("22:00-25:00", '"25:00" is no time of day: they go from 0:00 to 24:00'),
        ("9:60-10:00", '"9:60" is no time of day'),
        ("24:00-3:00", '"24:00" is the end of a day: a window begins at 0:00'),
        ("8:00-8:00", '"8:00-8:00" ends when it begins: write "all day"'),
        ("22:00-7:00 Mo", '"Mo" is no day: they are Mon, Tue, Wed, Thu, Fri, Sat, Sun'),
        ("8:00-9:00, ", "there is nothing between two commas"),
        ("x" * 100, "is no window of time"),
    ],
)
def test_bad_input_gets_one_sentence(text: str, why: str) -> None:
    with pytest.raises(GpudError) as caught:
        read_windows(text)
    assert why in caught.value.message
    assert len(caught.value.message) < 150


@given(text=st.text(max_size=60))
def test_any_text_is_a_window_or_a_sentence(text: str) -> None:
    with suppress(GpudError):
        assert read_windows(text).spans


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("2026-11-20 22:00", "at 22:00"),
        ("2026-11-21 07:00", "tomorrow at 07:00"),
        ("2026-11-23 22:00", "on Monday at 22:00"),
        ("2026-11-30 22:00", "on 2026-11-30 at 22:00"),
    ],
)
def test_when_in_words(at: str, said: str) -> None:
    now = berlin("2026-11-20 12:00")
    assert in_words(berlin(at), now, BERLIN) == said
    assert in_words(now + timedelta(minutes=1).seconds, now, BERLIN) == "at 12:01"

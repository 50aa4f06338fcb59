"""Points in time as people write them, on ordinary days and on those when the clock is changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.config.moments import read_moment
from gpud.errors import GpudError

NO_POINT = "is no point in time: write 22:00, tomorrow 9:30, 2026-11-22 09:30, or +2h"
BERLIN = ZoneInfo("Europe/Berlin")
EVENING = datetime(2026, 3, 28, 20, 0, tzinfo=BERLIN)  # at 2:00 the clock is put forward


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def read(text: str, now: datetime = EVENING) -> str:
    found = read_moment(text, now.timestamp()) / 1000
    return f"{datetime.fromtimestamp(found, BERLIN):%Y-%m-%d %H:%M:%S}"


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("22:00", "2026-03-28 22:00:00"),
        ("9:30", "2026-03-29 09:30:00"),  # the next one
        ("20:00", "2026-03-29 20:00:00"),  # not now: that is past
        ("20:00:01", "2026-03-28 20:00:01"),
        ("tomorrow 22:00", "2026-03-29 22:00:00"),
        ("+2h", "2026-03-28 22:00:00"),
        ("+1d", "2026-03-29 21:00:00"),  # 24 hours, of a day that has 23
        ("2026-11-22", "2026-11-22 00:00:00"),
        ("2026-11-22 09:30", "2026-11-22 09:30:00"),
        ("2026-11-22T09:30:15", "2026-11-22 09:30:15"),
        ("2026-11-22T09:30Z", "2026-11-22 10:30:00"),
        ("2026-11-22 09:30-05:00", "2026-11-22 15:30:00"),
        ("2026-10-25 02:30", "2026-10-25 02:30:00"),  # there are two: the first
    ],
)
def test_what_people_write(text: str, when: str) -> None:
    assert read(text) == when


def test_of_two_equal_times_the_first_is_meant() -> None:
    first = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)
    assert read_moment("2026-10-25 02:30", EVENING.timestamp()) == 1000 * first.timestamp()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2026-03-29 02:30", "there is no 02:30 on 2026-03-29: the clock is put forward then"),
        ("2:30", "there is no 02:30 on 2026-03-29: the clock is put forward then"),
        ("24:00", '"24:00" is no time of day: they go from 0:00 to 23:59'),
        ("2026-13-01", '"2026-13-01" is no time that there is (month must be in 1..12)'),
        (
            "soon",
            '"soon" is no point in time: write 22:00, tomorrow 9:30, 2026-11-22 09:30, or +2h',
        ),
        ("", '"" is no point in time: write 22:00, tomorrow 9:30, 2026-11-22 09:30, or +2h'),
        ("22", '"22" is no point in time: write 22:00, tomorrow 9:30, 2026-11-22 09:30, or +2h'),
    ],
)
def test_what_is_no_time(text: str, why: str) -> None:
    with pytest.raises(GpudError) as caught:
        read(text)
    assert caught.value.message == why


@given(st.text(alphabet="0123456789:-+ TZtomrwhd.", max_size=20))
def test_whatever_is_written_it_is_a_time_or_a_sentence(text: str) -> None:
    try:
        found = read_moment(text, EVENING.timestamp())
    except GpudError:
        return
    assert found >= 0

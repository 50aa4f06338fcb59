"""Durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.config.units import format_duration, parse_duration_s
from gpud.errors import GpudError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0), ("10m", 600.0), ("2h30m", 9000.0), ("1d", 86400.0), ("90", 90.0),
        ("1.5h", 5400.0), ("500ms", 0.5), ("0", 0.0), (" 1h 30m ", 5400.0), ("0.25s", 0.25),
    ],
)  # fmt: skip
def test_reading(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "soon", "-5", "5x", "10 mins", "m", "5m5m", "1s2m", "1,5h", "inf", "1e3"]
)
def test_what_is_no_duration_gets_one_sentence(text: str) -> None:
    with pytest.raises(GpudError) as caught:
        parse_duration_s(text)
    assert caught.value.message.startswith("cannot ")
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (90, "1m30s"), (600, "10m"), (9000, "2h30m"), (86400, "1d"), (90061, "1d1h1m1s")],
)
def test_writing(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(milliseconds=st.integers(0, 10**13))
def test_what_is_written_can_be_read(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration_s(format_duration(seconds)) == pytest.approx(seconds, abs=1e-3)


@given(text=st.text(max_size=20))
def test_whatever_the_text_a_duration_or_a_sentence(text: str) -> None:
    try:
        assert parse_duration_s(text) >= 0
    except GpudError:
        pass

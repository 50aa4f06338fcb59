"""Durations and amounts of memory as people write them."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.amounts import format_size
from gpud.config.units import (
    format_duration,
    parse_duration_s,
    parse_size_mib,
)
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


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("12G", 12288), ("12GB", 12288), ("12GiB", 12288), ("512M", 512), ("24g", 24576),
        ("1.5G", 1536), ("800MiB", 800), (" 800 mb ", 800), ("1T", 1048576), ("0.1G", 103),
        ("0.0001M", 1), ("11.9 GiB", 12186), ("999999999T", 999999999 * 1048576),
    ],
)  # fmt: skip
def test_reading_an_amount_of_memory(text: str, mib: int) -> None:
    assert parse_size_mib(text) == mib


@pytest.mark.parametrize(
    "text",
    ["", " ", "much", "-5G", "0G", "0.0M", "12", "1.5", "12K", "12GG", "1,5G", "G", "12 G M", "5B",
     "1e3G", "inf", "٣G", "12G 500M", "1" * 40 + "G", "1.G", ".5G"],
)  # fmt: skip
def test_what_is_no_amount_of_memory_gets_one_sentence(text: str) -> None:
    with pytest.raises(GpudError) as caught:
        parse_size_mib(text)
    assert caught.value.message.startswith("cannot ")
    assert f'"{text}"' in caught.value.message
    assert caught.value.kind == "usage"
    assert "12G" in caught.value.hint


@pytest.mark.parametrize("text", ["0", "0.0", "0G", "0.0M"])
def test_nothing_is_no_amount_of_memory(text: str) -> None:
    with pytest.raises(GpudError, match=r"it must be more than nothing$"):
        parse_size_mib(text)


def test_a_bare_number_is_asked_back() -> None:
    with pytest.raises(GpudError, match=r"say of what, 12G or 12M$"):
        parse_size_mib("12")


@given(mib=st.integers(1, 2**40))
def test_what_is_written_of_memory_can_be_read(mib: int) -> None:
    text = format_size(mib)
    unit = {"MiB": 1, "GiB": 1024, "TiB": 1048576}[text.split()[1]]
    assert abs(parse_size_mib(text) - mib) <= unit // 20 + 1
    assert len(text) < 16


@given(
    hundredths=st.integers(1, 10**9),
    unit=st.sampled_from(["M", "mb", "MiB", "G", "gb", "GiB", "T", "tB", "tib"]),
    space=st.sampled_from(["", " "]),
)
def test_an_amount_is_exact_and_rounded_up(hundredths: int, unit: str, space: str) -> None:
    read = parse_size_mib(f"{hundredths // 100}.{hundredths % 100:02}{space}{unit}")
    exact = Fraction(hundredths, 100) * 1024 ** "mgt".index(unit[0].lower())
    assert 0 <= read - exact < 1


@given(
    text=st.text(max_size=20) | st.from_regex(r"[0-9.]{1,6} ?[kKmMgGtT]?i?[bB]?", fullmatch=True)
)
def test_whatever_the_text_an_amount_of_memory_or_a_sentence(text: str) -> None:
    try:
        assert parse_size_mib(text) > 0
    except GpudError:
        pass


def test_gpuctl_can_afford_it() -> None:
    code = "import sys, gpud.config.units; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert not {"msgspec", "decimal", "fractions", "json"} & set(loaded.stdout.split())

"""Amounts of memory and energy, as they are shown."""

from __future__ import annotations

import pytest

from gpud.amounts import format_energy, format_size, format_sizes


@pytest.mark.parametrize(
    ("mib", "text"),
    [
        (0, "0 MiB"), (800, "800 MiB"), (1023, "1023 MiB"), (1024, "1 GiB"), (12186, "11.9 GiB"),
        (12288, "12 GiB"), (81559, "79.6 GiB"), (102_400, "100 GiB"), (144_384, "141 GiB"),
        (1536 * 1024, "1.5 TiB"), (10**9, "953.7 TiB"), (10**13, "9536743.2 TiB"),
    ],
)  # fmt: skip
def test_writing_an_amount_of_memory(mib: int, text: str) -> None:
    assert format_size(mib) == text


@pytest.mark.parametrize(
    ("mib", "other", "texts"),
    [
        (24_576, 24_564, ("24576 MiB", "24564 MiB")),  # a GPU that is sold with 24 GiB
        (24_576, 24_576, ("24 GiB", "24 GiB")),
        (24_576, 12_288, ("24 GiB", "12 GiB")),
    ],
)
def test_two_amounts_that_differ_are_told_apart(
    mib: int, other: int, texts: tuple[str, str]
) -> None:
    assert format_sizes(mib, other) == texts


@pytest.mark.parametrize(
    ("joules", "text"),
    [
        (0, "0 J"), (340.4, "340 J"), (3599.4, "3599 J"), (3600, "1 Wh"), (7200, "2 Wh"),
        (35_280, "9.8 Wh"), (432_000, "120 Wh"), (3_600_000, "1.00 kWh"), (4_500_000, "1.25 kWh"),
    ],
)  # fmt: skip
def test_writing_energy(joules: float, text: str) -> None:
    assert format_energy(joules) == text

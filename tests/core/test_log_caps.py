"""What is cut out of a log: whole blocks of its middle, and only when it is too large."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from gpud.core.log_caps import LATEST_S, SOONEST_S, Room, cut_of, look_in_s

BLOCK = 4096
caps = st.integers(16, 1000).map(lambda n: n * BLOCK)


@given(caps, st.lists(st.integers(0, 5_000_000), min_size=1, max_size=20), st.data())
def test_a_log_that_grows(cap: int, growth: list[int], data: st.DataObject) -> None:
    size, cut = 0, None
    for grown in growth:
        size += grown
        taken = size - (cut[1] - cut[0] if cut else 0)
        new = cut_of(Room(size, taken, BLOCK), cap, cut)
        if taken <= cap:
            assert new is None
            continue
        assert new is not None
        first, end = new
        assert first % BLOCK == end % BLOCK == 0
        assert first >= cap // 4
        assert size - end >= cap // 4, "the last quarter stays"
        assert first + size - end <= cap // 2 + 2 * BLOCK
        assert cut is None or (first == cut[0] and end > cut[1]), "one hole, that only grows"
        cut = new


@given(caps, caps, st.integers(0, 10_000_000))
def test_another_cap_makes_one_hole_of_two(cap: int, other: int, size: int) -> None:
    cut = cut_of(Room(size, size, BLOCK), cap, None)
    if cut is None:
        return
    taken = size - (cut[1] - cut[0])
    again = cut_of(Room(size, taken, BLOCK), other, cut)
    assert again is None or (again[0] <= cut[0] and again[1] > cut[1])


def test_no_cap_and_files_with_holes_of_their_own() -> None:
    assert cut_of(Room(10**12, 10**12, BLOCK), 0, None) is None
    assert cut_of(Room(10**12, 4096, BLOCK), 10**6, None) is None


def test_when_to_look_again() -> None:
    assert look_in_s(10**9, 0, 30) == LATEST_S
    assert look_in_s(10**9, 10**8, 1) == 5
    assert look_in_s(10**9, 10**12, 1) == SOONEST_S
    assert look_in_s(-1, 0, 30) == SOONEST_S

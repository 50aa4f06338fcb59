"""Job selectors: what is one, and what is said about everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.ctl import words
from gpud.errors import GpudError
from gpud.protocol.selectors import BAD, STATES, Selection, parse

ids = st.integers(0, 10**18 - 1)


@pytest.mark.parametrize(
    ("selector", "selection"),
    [
        (42, Selection(ids=(42,))),
        ("42", Selection(ids=(42,))),
        (" 42 ", Selection(ids=(42,))),
        ("007", Selection(ids=(7,))),
        ("3-9", Selection(ranges=((3, 9),))),
        ("3-3", Selection(ranges=((3, 3),))),
        ("@", Selection(last=(0,))),
        ("@~2", Selection(last=(2,))),
        ("name:sweep", Selection(names=("sweep",))),
        ("name:a b:c", Selection(names=("a b:c",))),
        ("source:queue", Selection(sources=("queue",))),
        ("state:failed", Selection(states=("failed",))),
        ("state:queued", Selection(states=("queued",))),
        ("state:running", Selection(states=("running",))),
        ("state:bad", Selection(states=("failed", "killed", "timed-out", "not-started", "lost"))),
        ("all", Selection(everything=True)),
    ],
)
def test_a_selector(selector: int | str, selection: Selection) -> None:
    assert parse([selector]) == selection


def test_gpuctl_paints_the_same_ones_red() -> None:
    assert words.BAD == BAD


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("", 'cannot select "": not a selector'),
        ("-5", 'cannot select "-5": not a selector'),
        (-5, 'cannot select "-5": not a selector'),
        ("9-3", 'cannot select "9-3": 9 is greater than 3'),
        ("@~", 'cannot select "@~": not a selector'),
        ("name:", 'cannot select "name:": not a selector'),
        ("state:fine", 'cannot select "state:fine": no such state or outcome'),
        ("state:", 'cannot select "state:": no such state or outcome'),
        ("ALL", 'cannot select "ALL": not a selector'),
        ("٤٢", 'cannot select "٤٢": not a selector'),
        ("1" * 19, f'cannot select "{"1" * 19}": not a selector'),
        ("x" * 1000, f'cannot select "{"x" * 60}…": not a selector'),
    ],
)
def test_what_is_none(selector: int | str, message: str) -> None:
    with pytest.raises(GpudError) as caught:
        parse([selector])
    assert caught.value.message == message
    assert caught.value.kind == "usage"
    assert caught.value.hint


@given(
    st.lists(ids, max_size=5),
    st.lists(st.tuples(ids, ids).map(sorted).map(tuple), max_size=5),
    st.lists(st.integers(0, 10**9 - 1), max_size=5),
    st.lists(st.sampled_from(STATES), max_size=5),
    st.randoms(use_true_random=False),
)
def test_a_list_is_the_union_of_its_parts(
    singles: list[int],
    ranges: list[tuple[int, int]],
    last: list[int],
    states: list[str],
    random: object,
) -> None:
    selectors: list[int | str] = [
        *singles,
        *(f"{low}-{high}" for low, high in ranges),
        *(f"@~{back}" for back in last),
        *(f"state:{state}" for state in states),
    ]
    random.shuffle(selectors)  # type: ignore[attr-defined]
    found = parse(selectors)
    assert sorted(found.ids) == sorted(singles)
    assert sorted(found.ranges) == sorted(ranges)
    assert sorted(found.last) == sorted(last)
    assert sorted(found.states) == sorted(states)
    assert not found.everything


@given(st.lists(st.text(max_size=12) | st.integers(), max_size=4))
def test_any_text_is_a_selection_or_a_usage_error(selectors: list[str | int]) -> None:
    kind = "usage"
    try:
        parse(selectors)
    except GpudError as error:
        kind = error.kind
    assert kind == "usage"

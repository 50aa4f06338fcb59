"""Spans of ids are sets of ids."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpud.core.spans import Spans, common, count, each, holds, spans_of, without

ids = st.sets(st.integers(0, 40), max_size=25)


@given(some=ids, others=ids, n=st.integers(0, 40))
def test_spans_are_sets(some: set[int], others: set[int], n: int) -> None:
    spans, more = spans_of(some), spans_of(others)
    assert set(each(spans)) == some
    assert count(spans) == len(some)
    assert holds(spans, n) == (n in some)
    assert well_formed(common(spans, more)) == some & others
    assert well_formed(without(spans, more)) == some - others


def well_formed(spans: Spans) -> set[int]:
    found = list(each(spans))
    assert spans == spans_of(found), f"{spans} touch or are in no order"
    return set(found)

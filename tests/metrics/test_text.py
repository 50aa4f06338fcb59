"""The text: whatever stands in labels, a strict reader gets back what was put in."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.metrics.text import Family, Histogram, escaped, number, page

from .strict import parse

FREE = Family("a_free", "gauge", "Some.", ("one", "two"))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.dictionaries(st.tuples(TEXTS, TEXTS), st.floats(allow_nan=False)))
def test_what_labels_say_comes_back(values: dict[tuple[str, str], float]) -> None:
    found = parse(page([(FREE, values.items())]))["a_free"]
    wanted = {("", (("one", a), ("two", b))): value for (a, b), value in values.items()}
    assert found.samples == wanted


def test_nothing_in_a_label_makes_a_line_of_its_own() -> None:
    evil = 'x"} 1\n# EOF\ngpud_draining 1\\'
    text = page([(FREE, [((evil, "\udcff"), 1)])])
    assert text.count("\n") == 4
    assert parse(text)["a_free"].value(one=evil, two="?") == 1
    assert escaped('\\n"') == '\\\\n\\"'


def test_a_histogram_counts_up_to_each_bound() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.1, 0.05, 0.5, 1.5, -3.0):
        histogram.observe(value)
    seconds = Family("a_seconds", "histogram", "Some.", unit="seconds", bounds=(0.1, 1.0))
    found = parse(page([(seconds, [((), histogram)])]))["a_seconds"]
    assert [found.value("_bucket", le=le) for le in ("0.1", "1.0", "+Inf")] == [3, 4, 5]
    assert found.value("_count") == 5
    assert found.value("_sum") == pytest.approx(2.15)
    assert found.unit == "seconds"


def test_a_counter_has_its_suffix_and_a_family_without_samples_its_type() -> None:
    counter = Family("a_done", "counter", "Some.", ("how",))
    text = page([(counter, [(("well",), 3)]), (FREE, [])])
    assert 'a_done_total{how="well"} 3\n' in text
    assert parse(text)["a_free"].samples == {}


def test_numbers() -> None:
    assert [number(n) for n in (3, 0.5, 1e-05, math.inf, -math.inf)] == [
        "3", "0.5", "1e-05", "+Inf", "-Inf",
    ]  # fmt: skip


def test_a_real_parser_reads_the_same() -> None:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    histogram = Histogram((0.1,))
    histogram.observe(1)
    seconds = Family("a_seconds", "histogram", 'So "me".', unit="seconds", bounds=(0.1,))
    text = page([(FREE, [(('a"\n\\', "b"), 1.5)]), (seconds, [((), histogram)])])
    free, times = parser.text_string_to_metric_families(text)
    assert [(s.labels, s.value) for s in free.samples] == [({"one": 'a"\n\\', "two": "b"}, 1.5)]
    assert {s.name: s.value for s in times.samples if s.name != "a_seconds_bucket"} == {
        "a_seconds_count": 1, "a_seconds_sum": 1,
    }  # fmt: skip
    assert times.documentation == 'So "me".'

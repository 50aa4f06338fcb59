"""Traces as CSV: what may stand in one, and one clear sentence about everything that may not."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.core.model import Request
from gpud.errors import GpudError
from gpud.tools import trace_csv
from gpud.tools.trace import MOST_JOBS, TraceJob
from gpud.tools.trace_csv import TraceError, read_trace


def read(text: str) -> list[TraceJob]:
    return read_trace(io.StringIO(text, newline=""), "x.csv")


def problems(text: str) -> list[str]:
    with pytest.raises(TraceError) as caught:
        read(text)
    assert caught.value.message.startswith("cannot use the trace x.csv:\n  ")
    assert caught.value.exit_status == 1
    return caught.value.problems


def test_every_column() -> None:
    [job] = read("name,count,priority,limit,vram,gpus,duration,submit\nbig,1,-3,2h,12G,2,90,1m\n")
    expected = Request(gpus=2, vram_mib=12 * 1024)
    assert job == TraceJob(0, 90_000, expected, 7_200_000, -3, "big", line=2)


def test_a_duration_is_enough() -> None:
    assert read("duration\n1h30m\n") == [TraceJob(0, 5_400_000, line=2)]


def test_empty_cells_and_missing_ones_are_the_default() -> None:
    assert read("duration,gpus,limit\n5,,\n5\n") == [TraceJob(0, 5000, line=n) for n in (2, 3)]


def test_jobs_come_in_order_of_submit_and_equals_as_they_stand() -> None:
    jobs = read("submit,duration\n20,1\n10,2\n20,3\n10,4\n")
    assert [(job.submit_ms, job.duration_ms) for job in jobs] == [
        (0, 2000),
        (0, 4000),
        (10_000, 1000),
        (10_000, 3000),
    ]


def test_count_is_that_many_equal_jobs() -> None:
    assert read("duration,count\n5,3\n") == [TraceJob(0, 5000, line=2)] * 3


def test_submits_may_be_moments() -> None:
    jobs = read(
        "submit,duration\n2026-11-21T15:00:00Z,1\n2026-11-21T16:30:00+01:00,2\n,3\n"
        "2026-11-21 15:00:00.5+00:00,4\n"
    )
    assert [job.submit_ms for job in jobs] == [0, 0, 500, 1_800_000]
    assert [job.duration_ms for job in jobs] == [1000, 3000, 4000, 2000]


def test_an_empty_submit_is_the_start_not_the_first_time() -> None:
    assert [job.submit_ms for job in read("submit,duration\n50,1\n,2\n")] == [0, 50_000]
    assert [job.submit_ms for job in read("submit,duration\n50,1\n60,2\n")] == [0, 10_000]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_the_csv_of_other_programs(delimiter: str, ending: str) -> None:
    lines = ["\ufeffDuration , GPUs,name", ' 5 ,1,"a ""b"""', "", ",,", "6,0.5,c"]
    jobs = read(ending.join(line.replace(",", delimiter) for line in lines))
    assert [(job.name, job.gpus, job.line) for job in jobs] == [('a "b"', 1, 2), ("c", 0.5, 5)]


@pytest.mark.parametrize(
    ("cell", "request_", "shown"),
    [
        ("0", Request(gpus=0), 0),
        ("8", Request(gpus=8), 8),
        ("0.25", Request(gpus=1, share_milli=250), 0.25),
        (".5", Request(gpus=1, share_milli=500), 0.5),
        ("0.2999", Request(gpus=1, share_milli=299), 0.299),
        ("0.57", Request(gpus=1, share_milli=570), 0.57),
        ("", Request(), 1),
    ],
)
def test_gpus(cell: str, request_: Request, shown: float) -> None:
    [job] = read(f"duration,gpus\n1,{cell}\n")
    assert (job.request, job.gpus) == (request_, shown)


KNOWN = "submit, duration, gpus, vram, limit, priority, name, count"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [f"its first line must name the columns, of {KNOWN}"]),
        ("\n5\n", [f"its first line must name the columns, of {KNOWN}"]),
        ("duration\n", ["there is no job in it, only a header"]),
        ("duration\n\n , \n", ["there is no job in it, only a header"]),
        (
            "durations,memory\n5,6\n",
            [
                'line 1: unknown column "durations": did you mean duration?',
                f'line 1: unknown column "memory": there are {KNOWN}',
                "line 1: the column duration is missing: how long each job runs",
            ],
        ),
        (
            "duration,,duration\n5,6\n",
            [
                "line 1: the column duration stands there twice",
                f"line 1: a column without a name: there are {KNOWN}",
            ],
        ),
        ('duration\n5\n"6', ["it is not CSV: unexpected end of data"]),
        ("duration,name\n,a\n", ["line 2: duration: it must say how long the job runs"]),
        ("duration\n5,6\n", ["line 2: it has 2 cells, and the header 1"]),
        ('name,duration\n"a\nb",6\nc,x\n', ["line 2: name: ", "line 4: duration: "]),
    ],
)
def test_what_is_wrong_with_a_file(text: str, expected: list[str]) -> None:
    found = problems(text)
    assert len(found) == len(expected)
    for problem, start in zip(found, expected, strict=True):
        assert problem.startswith(start)
        assert problem == start or start.endswith(": ")


@pytest.mark.parametrize(
    ("column", "cell", "expected"),
    [
        ("submit", "soon", 'cannot read "soon" as a duration: write seconds, or text like 90s, '),
        ("submit", "-5", 'cannot read "-5" as a duration'),
        ("submit", "2026-13-01 10:00", 'cannot read "2026-13-01 10:00" as a moment: write it li'),
        ("submit", "0001-01-01 00:00", ""),
        ("duration", "1h30", 'cannot read "1h30" as a duration'),
        ("duration", "inf", 'cannot read "inf" as a duration'),
        ("duration", "4000d", '"4000d" is longer than ten years'),
        ("limit", "0", "a time limit must be more than nothing; without one, leave it empty"),
        ("gpus", "1.5", '"1.5" is neither a number of GPUs (0 to 1024) nor a share of one (0.001 '),
        ("gpus", "1025", '"1025" is neither'),
        ("gpus", "0.0009", '"0.0009" is neither'),
        ("gpus", "-1", '"-1" is neither'),
        ("gpus", "two", '"two" is neither'),
        ("vram", "12", 'cannot read "12" as an amount of memory: say of what, 12G or 12M'),
        ("priority", "1e3", '"1e3" is not a whole number from -1,000,000,000 to 1,000,000,000'),
        ("count", "0", '"0" is not a whole number from 1 to 1,000,000'),
        ("count", "٣", '"٣" is not a whole number'),
        ("name", "a\x07", "it cannot be the name of a job: it contains a control character"),
    ],
)
def test_what_is_wrong_with_a_cell(column: str, cell: str, expected: str) -> None:
    columns, cells = (
        ("duration", cell) if column == "duration" else (f"duration,{column}", f"1,{cell}")
    )
    if expected:
        [problem] = problems(f"{columns}\n{cells}\n")
        assert problem.startswith(f"line 2: {column}: {expected}")
    else:
        read(f"{columns}\n{cells}\n")


def test_a_trace_has_one_kind_of_times() -> None:
    later = ["5", "2026-01-01 10:00Z"]
    assert problems(
        "duration,submit\n1,2026-01-01 10:00\n" + "".join(f"1,{t}\n" for t in later)
    ) == [
        'line 3: submit: "5" stands below moments; a trace has one kind of times',
        'line 4: submit: "2026-01-01 10:00Z" stands below moments; a trace has one kind of times',
    ]


def test_too_many_jobs() -> None:
    text = f"duration,count\n1,{MOST_JOBS}\n1,1\n1,1\n"
    assert problems(text) == ["line 3: with it there are more than 1,000,000 jobs"]


def test_a_long_list_of_problems_is_cut() -> None:
    with pytest.raises(TraceError) as caught:
        read("duration\n" + "x\n" * 50)
    lines = caught.value.message.splitlines()
    assert (len(lines), lines[-1]) == (22, "  and 30 more")
    assert len(caught.value.problems) == 20


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("x", "line 1: it is longer than 300 characters"),
        ("duration,", "line 1: it is longer than 300 characters"),
        ("\n", "line 101: with it there are more than 100 lines"),
        ("5\n", "line 52: with it there are more than 50 jobs"),
        ("x\n", "line 52: with it there are more than 50 jobs"),
        ("5,6\n", "line 101: with it there are more than 100 lines"),
        ('","\n', "line 3: it is longer than 300 characters"),
    ],
)
def test_what_has_no_end_is_not_read_for_ever(
    monkeypatch: pytest.MonkeyPatch, line: str, sentence: str
) -> None:
    for name, most in {"LONGEST_ROW": 300, "MOST_LINES": 100, "MOST_JOBS": 50}.items():
        monkeypatch.setattr(trace_csv, name, most)
    monkeypatch.setattr(trace_csv, "MOST_SHOWN", 1000)
    first = "duration\n" if "\n" in line else ""
    if line == '","\n':  # each ends a cell and begins another
        first += '5\n"'
    file = io.TextIOWrapper(io.BufferedReader(Unending(first, line)), "utf-8", newline="")
    with pytest.raises(TraceError) as caught:
        read_trace(file, "x.csv")
    assert caught.value.problems[-1] == sentence


class Unending(io.RawIOBase):
    def __init__(self, first: str, line: str) -> None:
        self._first, self._line = first.encode(), line.encode()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        given, self._first = self._first or self._line, b""
        buffer[: len(given)] = given
        return len(given)


def test_many_columns_are_one_problem() -> None:
    [problem] = problems(",".join(f"c{number}" for number in range(101)) + "\n5\n")
    assert problem == f"line 1: it names 101 columns: there are {KNOWN}"


def test_a_problem_is_a_line_that_one_can_read() -> None:
    [problem] = problems('duration\n"\x1b[31m' + "x" * 5000 + '\na"\n')
    assert problem.startswith('line 2: duration: cannot read "?[31mxxx')
    assert len(problem) == 308
    assert problem.isprintable()
    assert problem.endswith("x…")


def test_what_is_no_text() -> None:
    file = io.TextIOWrapper(io.BytesIO(b"duration\n\xff\n"), "utf-8", newline="")
    with pytest.raises(TraceError, match="it is not UTF-8 text"):
        read_trace(file, "x.csv")


cells = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", "5", "1h", "2026-11-21", "2026-11-21 10:00", "9" * 15, "0.5", "12G", '"']),
)
headers = st.lists(
    st.sampled_from(["submit", "duration", "gpus", "vram", "limit", "priority", "name", "count"]),
    unique=True,
).map(lambda names: ",".join(names))


@given(header=st.one_of(headers, st.text()), rows=st.lists(st.lists(cells, max_size=9), max_size=5))
def test_whatever_it_is_it_is_read_or_refused_with_a_sentence(
    header: str, rows: list[list[str]]
) -> None:
    text = "\n".join([header, *map(",".join, rows)])
    refusal = ""
    try:
        jobs = read(text)
    except GpudError as error:
        refusal = error.message
    if refusal:
        assert refusal.startswith("cannot use the trace x.csv:\n  ")
    else:
        assert jobs[0].submit_ms == 0

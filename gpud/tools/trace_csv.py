"""A trace as a CSV file: a header that names columns, then a job, or several equal ones, a row.

Owns the file: header, rows, line numbers, and that everything wrong with it is said at once, one
sentence for each cell. What may stand in a cell is tools/trace_cells.py's. Called by
tools/simulate.py, which opens the file. Nothing is guessed, but the delimiter: a comma, a
semicolon or a tab, whichever the header has most of. A file without end is not read for ever: rows,
lines and jobs have their limits.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TextIO, TypeVar

from msgspec import structs

from gpud.core.model import ONE_SLOT
from gpud.errors import GpudError
from gpud.tools import trace_cells
from gpud.tools.trace import MOST_JOBS, TraceJob
from gpud.tools.trace_cells import COLUMNS

MOST_SHOWN = 20  # problems
LONGEST_PROBLEM = 300  # characters: what stands in a cell is shown
LONGEST_ROW = 1 << 20  # characters, with all lines of its quoted cells
MOST_LINES = 4 * MOST_JOBS  # empty ones are no jobs
MOST_COLUMNS = 100

Value = TypeVar("Value")
Told = Callable[[int], None]  # the number of the line that was read


class TraceError(GpudError):
    """`problems`: one sentence each, at least one; so many `more` are not told."""

    def __init__(self, shown: str, problems: Sequence[str], more: int = 0) -> None:
        self.problems = list(problems)
        lines = [f"\n  {problem}" for problem in self.problems]
        if more:
            lines.append(f"\n  and {more:,} more")
        super().__init__(f"cannot use the trace {shown}:{''.join(lines)}")


class TooMuch(Exception):
    """The rest is not read, from this line on. `why` is a clause."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(line, why)
        self.line = line
        self.why = why


class Lines:
    """The lines of a file, as csv.reader takes them. `row`: the line where the row begins that is
    being read. Raises TooMuch."""

    def __init__(self, file: TextIO, told: Told) -> None:
        self._file, self._told = file, told
        self._number = 0  # of the line before
        self.begin_row()

    def begin_row(self) -> None:
        self.row, self._left = self._number + 1, LONGEST_ROW

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(self._left + 1)
        if not line:
            raise StopIteration
        self._number += 1
        self._left -= len(line)
        if self._left < 0:
            raise TooMuch(self.row, f"it is longer than {LONGEST_ROW:,} characters")
        if self._number > MOST_LINES:
            raise TooMuch(self._number, f"with it there are more than {MOST_LINES:,} lines")
        self._told(self._number)
        return line


class Row(NamedTuple):
    line: int
    cells: dict[str, str]  # column -> text, without those that are empty


class Draft(NamedTuple):
    job: TraceJob
    submit_ms: int | None  # as it stands there; None: it does not say
    copies: int


def read_trace(file: TextIO, shown: str, told: Told = lambda line: None) -> list[TraceJob]:
    """The jobs in order of submit, equals as they stand in the file. `told` after each line.

    `file` is to be opened with newline="". Raises TraceError with everything that is wrong.
    """
    try:
        return Reading(shown).read(Lines(file, told))
    except csv.Error as error:
        raise TraceError(shown, [f"it is not CSV: {error}"]) from error
    except UnicodeDecodeError as error:
        raise TraceError(shown, ["it is not UTF-8 text"]) from error


class Reading:
    """The reading of one file: its problems, and what later rows must know of earlier ones."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.problems: list[str] = []
        self.more = 0  # problems that are only counted
        self.submits = trace_cells.Submits()

    def read(self, lines: Lines) -> list[TraceJob]:
        drafts: list[Draft] = []
        try:
            self._read_drafts(lines, drafts)
        except TooMuch as much:
            self._bad(much.line, much.why)
        if not drafts and not self.problems:
            self.problems.append("there is no job in it, only a header")
        self._raise_problems()
        return self._jobs(drafts)

    def _read_drafts(self, lines: Lines, drafts: list[Draft]) -> None:
        total = 0
        for row in self._rows(lines):
            drafts.append(self._draft(row))
            total += drafts[-1].copies
            if total > MOST_JOBS:
                raise TooMuch(row.line, f"with it there are more than {MOST_JOBS:,} jobs")

    def _jobs(self, drafts: Sequence[Draft]) -> list[TraceJob]:
        said = [draft.submit_ms for draft in drafts if draft.submit_ms is not None]
        start_ms = 0 if self.submits.since_start else min(said)
        times_ms = [start_ms if d.submit_ms is None else d.submit_ms for d in drafts]
        first_ms = min(times_ms)
        jobs: list[TraceJob] = []
        for draft, ms in zip(drafts, times_ms, strict=True):
            jobs += [structs.replace(draft.job, submit_ms=ms - first_ms)] * draft.copies
        jobs.sort(key=lambda job: job.submit_ms)
        return jobs

    def _rows(self, lines: Lines) -> Iterator[Row]:
        first = next(lines, "").removeprefix("\ufeff")
        delimiter = max(",;\t", key=first.count)  # the comma, where there is none at all
        names = self._header(next(csv.reader([first], delimiter=delimiter, strict=True), []))
        lines.begin_row()
        for cells in csv.reader(lines, delimiter=delimiter, strict=True):
            line = lines.row  # a quoted cell may hold line breaks
            lines.begin_row()
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(names):
                self._bad(line, f"it has {len(cells)} cells, and the header {len(names)}")
                continue
            filled = zip(names, (cell.strip() for cell in cells), strict=False)
            yield Row(line, {name: cell for name, cell in filled if cell})

    def _header(self, cells: Sequence[str]) -> list[str]:
        names = [cell.strip().lower() for cell in cells]
        known = ", ".join(COLUMNS)
        if not any(names):
            raise TraceError(self.shown, [f"its first line must name the columns, of {known}"])
        if len(names) > MOST_COLUMNS:
            raise TooMuch(1, f"it names {len(names):,} columns: there are {known}")
        for name in dict.fromkeys(names):
            if name not in COLUMNS:
                near = difflib.get_close_matches(name, COLUMNS, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {known}"
                what = f'unknown column "{name}"' if name else "a column without a name"
                self._bad(1, f"{what}: {hint}")
            elif names.count(name) > 1:
                self._bad(1, f"the column {name} stands there twice")
        if "duration" not in names:
            self._bad(1, "the column duration is missing: how long each job runs")
        self._raise_problems()  # the rows would say it again
        return names

    def _draft(self, row: Row) -> Draft:
        if "duration" not in row.cells:
            self._bad(row.line, "duration: it must say how long the job runs")
        request = self._cell(row, "vram", trace_cells.vram, ONE_SLOT)
        request = self._cell(row, "gpus", lambda t: trace_cells.gpus(t, request), request)
        job = TraceJob(
            submit_ms=0,
            duration_ms=self._cell(row, "duration", trace_cells.duration_ms, 0),
            request=request,
            limit_ms=self._cell(row, "limit", trace_cells.limit_ms, 0),
            priority=self._cell(row, "priority", trace_cells.priority, 0),
            name=self._cell(row, "name", trace_cells.name, ""),
            line=row.line,
        )
        submit_ms = self._cell(row, "submit", self._submit_ms, None)
        return Draft(job, submit_ms, self._cell(row, "count", trace_cells.count, 1))

    def _submit_ms(self, text: str) -> int | None:
        return self.submits.read_ms(text)

    def _cell(self, row: Row, column: str, read: Callable[[str], Value], default: Value) -> Value:
        text = row.cells.get(column)
        if text is None:
            return default
        try:
            return read(text)
        except GpudError as error:
            self._bad(row.line, f"{column}: {error}")
            return default

    def _bad(self, line: int, problem: str) -> None:
        if len(self.problems) == MOST_SHOWN:
            self.more += 1
            return
        text = "".join(c if c.isprintable() else "?" for c in problem[: LONGEST_PROBLEM + 1])
        if len(text) > LONGEST_PROBLEM:
            text = f"{text[: LONGEST_PROBLEM - 1]}…"
        self.problems.append(f"line {line}: {text}")

    def _raise_problems(self) -> None:
        if self.problems:
            raise TraceError(self.shown, self.problems, self.more)

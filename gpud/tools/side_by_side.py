"""The alternatives of `gpud simulate` beside each other, for people, in 80 columns.

Called by tools/simulate.py. Owns how things look and nothing else: figures come from
tools/figures.py. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from textwrap import fill
from typing import NamedTuple

from gpud.tools.figures import Figures, Waits

LINE = 80  # columns
LABEL, CELL, PAIRS = 26, 9, 3  # a label and three pairs of cells fill a line
MOST_REFUSED = 10  # sentences about refused jobs
UNITS = (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1))


class Alternative(NamedTuple):
    """One pool: its head ("8 GPUs"), both schedules' figures, and (job, sentence) refused."""

    head: str
    gpud: Figures
    fifo: Figures
    refused: Sequence[tuple[str, str]]


Cell = Callable[[Figures], str]


def as_text(alternatives: Sequence[Alternative]) -> Iterator[str]:
    """The lines: tables of up to three alternatives, then what was refused."""
    for first in range(0, len(alternatives), PAIRS):
        yield ""
        yield from _table(alternatives[first : first + PAIRS])
    for alternative in alternatives:
        yield from _refused(alternative)


def _table(alternatives: Sequence[Alternative]) -> Iterator[str]:
    figures = [figures for a in alternatives for figures in (a.gpud, a.fifo)]
    heads = "".join(f"{a.head:>{2 * CELL}}" for a in alternatives)
    yield f"{'':{LABEL}}{heads}"
    yield f"{'':{LABEL}}" + f"{'gpud':>{CELL}}{'FIFO':>{CELL}}" * len(alternatives)
    for label, cell in _rows(figures):
        cells = [cell(one) for one in figures]
        if any(text != "-" for text in cells):
            yield f"{label:{LABEL}}" + "".join(f"{text:>{CELL}}" for text in cells)


def _rows(figures: Sequence[Figures]) -> list[tuple[str, Cell]]:
    rows: list[tuple[str, Cell]] = [
        ("last job done after", lambda f: duration(f.makespan_s) if f.wait else "-"),
        ("wait, mean", lambda f: _wait(f.wait, "mean_s")),
        ("wait, median", lambda f: _wait(f.wait, "median_s")),
        ("wait, 95 % at most", lambda f: _wait(f.wait, "p95_s")),
        ("wait, longest", lambda f: _wait(f.wait, "longest_s")),
    ]
    widths = {width.gpus for one in figures for width in one.by_gpus}
    if len(widths) > 1:
        widest = max(widths)
        name = f"{widest:g}-GPU jobs, "
        rows.append((f"{name}mean wait", lambda f: _wait(_of(f, widest), "mean_s")))
        rows.append((f"{name}longest", lambda f: _wait(_of(f, widest), "longest_s")))
    rows += [
        ("GPUs in use till then", lambda f: _per_cent(f.utilisation)),
        ("  while jobs came", lambda f: _per_cent(f.utilisation_arriving)),
        ("stopped at their limit", lambda f: f"{f.timed_out:,}" if f.timed_out else "-"),
        ("refused", lambda f: f"{f.refused:,}" if f.refused else "-"),
    ]
    return rows


def _refused(alternative: Alternative) -> Iterator[str]:
    """By sentence: the first job it is about, and how many more."""
    if not alternative.refused:
        return
    sentences: dict[str, list[str]] = {}
    for job, why in alternative.refused:
        sentences.setdefault(why, []).append(job)
    total = len(alternative.refused)
    yield ""
    yield f"With {alternative.head}, {'1 job is' if total == 1 else f'{total:,} jobs are'} refused:"
    for why, jobs in list(sentences.items())[:MOST_REFUSED]:
        more = f" and {len(jobs) - 1:,} more" if len(jobs) > 1 else ""
        yield fill(
            f"{jobs[0]}{more}: {why}",
            LINE,
            initial_indent="  ",
            subsequent_indent="    ",
            break_on_hyphens=False,
        )
    if len(sentences) > MOST_REFUSED:
        yield f"  and for {len(sentences) - MOST_REFUSED} more reasons"


def _of(figures: Figures, gpus: float) -> Waits | None:
    return next((width.wait for width in figures.by_gpus if width.gpus == gpus), None)


def _wait(waits: Waits | None, field: str) -> str:
    return "-" if waits is None else duration(getattr(waits, field))


def _per_cent(part: float | None) -> str:
    return "-" if part is None else f"{100 * part:.1f} %"


def duration(seconds: float) -> str:
    """As gpuctl shows it: `0.4s`, `12s`, `3m12s`, `5m`, `1h02m`, `3d04h`."""
    if seconds < 1:
        return f"{max(seconds, 0):.1f}s" if seconds else "0s"
    whole = int(seconds)
    for unit, size, part, part_size in UNITS:
        if whole >= size:
            rest = whole % size // part_size
            return f"{whole // size}{unit}{rest:02}{part}" if rest else f"{whole // size}{unit}"
    return f"{whole}s"

"""How things look: width, colours, tables, durations, and text that may hold anything.

Used by every verb that shows something. Knows no jobs (words.py does) and writes nothing but
`print_json`. A `Screen` is all that the output depends on, so that tests can have any.

A column without content does not appear; on a terminal columns that may be dropped go when the
last one would get too narrow, and the last one is cut. A `steady` table in a pipe has all columns,
with "-" for what is empty, and nothing cut: what reads it finds every column at its place.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TextIO

COLOURS = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "dim": "2", "bold": "1"}
LEAST_LAST = 28  # columns that the last column of a table should have
GAP = "  "
UNITS = (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1))


class Screen:
    """`width` 0: unlimited, as in a pipe. `now_ms` is the moment that ages count to."""

    def __init__(
        self, *, width: int = 0, colour: bool = False, symbols: bool = True, now_ms: int = 0
    ) -> None:
        self.width, self.colour, self.symbols = width, colour, symbols
        self.now_ms = now_ms or int(time.time() * 1000)

    def paint(self, text: str, colour: str) -> str:
        if not (self.colour and colour and text):
            return text
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"

    def clean(self, text: str) -> str:
        """One line, without control characters or whatever else moves the cursor."""
        if text.isascii() and text.isprintable():
            return text
        newline = "\u23ce" if self.symbols else "\\n"
        return "".join(
            c if c.isprintable() else newline if c == "\n" else " " if c == "\t" else _escaped(c)
            for c in text
        )

    def cut(self, text: str, width: int) -> str:
        """Fit `text` into `width` columns."""
        if columns(text) <= width:
            return text
        end = "\u2026" if self.symbols else ".."
        taken, left = [], width - len(end)
        for c in text:
            left -= columns(c)
            if left < 0:
                break
            taken.append(c)
        return ("".join(taken) + end)[: max(width, 0)]

    def fit(self, text: str) -> str:
        """A clean line, cut at the edge of the terminal."""
        return self.cut(self.clean(text), self.width) if self.width else self.clean(text)

    def folded(self, text: str, indent: int = 2) -> list[str]:
        """A clean sentence on as many lines as it takes: one for each clause that ends in ";", and
        broken between words. What is one word stays whole: it may be a path."""
        text = self.clean(text)
        if not self.width or columns(text) <= self.width:
            return [text]
        lines: list[str] = []
        for clause in text.replace("; ", ";\n").split("\n"):
            line, *words = clause.split(" ")
            line = " " * indent + line if lines else line
            for word in words:
                if columns(f"{line} {word}") > self.width:
                    lines.append(line.rstrip())
                    line = " " * indent + word
                else:
                    line += f" {word}"
            lines.append(line)
        return lines

    def ago(self, at_ms: int) -> str:
        return duration((self.now_ms - at_ms) / 1000) + " ago"


def screen(stream: TextIO | None = None) -> Screen:
    """The screen that a stream (stdout) goes to."""
    stream = stream or sys.stdout
    terminal = stream.isatty()
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    symbols = (stream.encoding or "").lower().replace("-", "") == "utf8"
    if not symbols and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    width = _terminal_width(stream) if terminal else 0
    return Screen(width=width, colour=terminal and not plain, symbols=symbols)


def _terminal_width(stream: TextIO) -> int:
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _escaped(c: str) -> str:
    code = ord(c)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def columns(text: str) -> int:
    """How many columns a clean text takes on a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def duration(seconds: float) -> str:
    """`0.4s`, `12s`, `3m12s`, `5m`, `1h02m`, `3d04h`: two units say enough."""
    if seconds < 1:
        return f"{max(seconds, 0):.1f}s"
    whole = int(seconds)
    for unit, size, part, part_size in UNITS:
        if whole >= size:
            rest = whole % size // part_size
            return f"{whole // size}{unit}{rest:02}{part}" if rest else f"{whole // size}{unit}"
    return f"{whole}s"


def clock(at_ms: int) -> str:
    """Local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000))


class Column:
    """`drop` > 0: may go on a narrow terminal, the highest first. `limit`: columns at most.
    `wide`: only where there is no terminal, or a wide one."""

    def __init__(
        self, head: str, *, right: bool = False, drop: int = 0, limit: int = 0, wide: int = 0
    ) -> None:
        self.head, self.right, self.drop, self.limit, self.wide = head, right, drop, limit, wide


Cell = str | tuple[str, str]  # text, or text and colour


def table(
    on: Screen,
    columns_: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    *,
    steady: bool = False,
) -> list[str]:
    """The lines of a table; the last column has what room is left."""
    cells = [[_cell(on, cell, column) for cell, column in zip(row, columns_, strict=True)]
             for row in rows]  # fmt: skip
    shown = list(range(len(columns_)))
    if steady and not on.width:
        cells = [[(text or "-", colour) for text, colour in row] for row in cells]
    else:
        shown = [
            i
            for i in shown
            if (not on.width or columns_[i].wide <= on.width) and any(row[i][0] for row in cells)
        ]
    if not shown:
        return []
    widths = {i: max(columns(text) for text in (columns_[i].head, *(r[i][0] for r in cells)))
              for i in shown}  # fmt: skip
    last = shown[-1]

    def room() -> int:
        return on.width - sum(widths[i] + len(GAP) for i in shown if i != last)

    while on.width and room() < min(widths[last], LEAST_LAST):
        droppable = [i for i in shown if columns_[i].drop and i != last]
        if not droppable:
            break
        shown.remove(max(droppable, key=lambda i: columns_[i].drop))
    if on.width:
        widths[last] = min(widths[last], max(room(), 1))
    heads = [(column.head, "dim") for column in columns_]
    return [_line(on, columns_, row, shown, widths) for row in (heads, *cells)]


def _cell(on: Screen, cell: Cell, column: Column) -> tuple[str, str]:
    text, colour = (cell, "") if isinstance(cell, str) else cell
    text = on.clean(text)
    return (on.cut(text, column.limit) if column.limit and on.width else text), colour


def _line(
    on: Screen,
    columns_: Sequence[Column],
    row: Sequence[tuple[str, str]],
    shown: list[int],
    widths: dict[int, int],
) -> str:
    parts = []
    for i in shown:
        text, colour = row[i]
        text = on.cut(text, widths[i])
        padding = " " * (widths[i] - columns(text))
        painted = on.paint(text, colour)
        parts.append(padding + painted if columns_[i].right else painted + padding)
    return GAP.join(parts).rstrip()


def json_text(value: object) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)


def print_json(reply: dict[str, Any]) -> None:
    """A reply of the daemon as one document, without what belongs to the connection."""
    print(json_text({k: v for k, v in reply.items() if k not in ("type", "id")}))

"""The lexer: bytes in, entries out. Pure and incremental; time enters as an argument.

Owns the rules of the queue file and of standard input (docs/queue-file.md):
- only complete lines count; `finish` makes the last one complete (end of standard input);
- carriage returns before the newline are dropped; a line of blanks, or a comment, runs nothing;
- shell_lines.py says whether a job goes on after a line;
- `#gpud:` lines set the options of the next entry, whatever blank lines and comments stand in
  between: none of them is ever silently lost;
- a job that is still open after `patience_s` without a new byte, or that is longer than
  `Limits` allows, becomes an entry of its first line with a problem, and reading goes on after
  that line: one slip does not swallow the queue;
- a line longer than `max_bytes` becomes an entry with a problem as soon as it is; its rest is
  skipped.

The invariant: every byte is passed to `consumed` exactly once and in order, `offset` of them so
far, and how the input was cut into chunks changes nothing. `offset` is where reading can start
again with a fresh lexer: never inside an entry, nor between options and what they are for.

Called by the readers of queue files and of standard input, which feed it and pull entries. It must
not know where bytes come from, what options mean, or what a job is.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from gpud.sources.shell_lines import ShellLines

_NOTHING_RUNS = re.compile(rb"[ \t\r\v\f]*(?:#|\Z)")
_OPTIONS = re.compile(rb"[ \t]*#gpud:")
_VARIABLES = re.compile(rb"env\..*", re.DOTALL)
_SHOWN = 4096  # bytes of an overlong line that are kept, to show and to recognise it


class Limits(NamedTuple):
    max_lines: int = 10_000  # of one entry
    max_bytes: int = 64 * 1024 * 1024  # of one entry, and of one line
    patience_s: float = 60.0


LIMITS = Limits()


class Entry(NamedTuple):
    """One job's text: the bytes [offset, end) of the input."""

    offset: int  # of the first line of the command
    end: int
    line: int  # number of that line, from 1
    lines: int
    command: bytes
    options: tuple[tuple[int, bytes], ...] = ()  # line number, text after `#gpud:`
    problem: str = ""


def _ignore(_: bytes) -> object:
    return None


def _without_values(line: bytes) -> bytes:
    """An option line that becomes a command, for people to recognise: variables may be secrets."""
    return _VARIABLES.sub("env.…".encode(), line) if _OPTIONS.match(line) else line


class Lexer:
    """`feed` bytes, then pull `entries` until fewer come than were asked for."""

    def __init__(
        self,
        offset: int = 0,
        line: int = 1,
        *,
        in_line: bool = False,
        consumed: Callable[[bytes], object] = _ignore,
        limits: Limits = LIMITS,
    ) -> None:
        self.offset = offset
        self.line = line  # the number of the line that starts at `offset`
        self.in_line = in_line  # `offset` is within an overlong line that is being skipped
        self._consumed = consumed
        self._limits = limits
        self._lines: deque[bytes] = deque()  # complete, with newline, not yet looked at
        self._partial: list[bytes] = []  # pieces of the line that has no newline yet
        self._partial_size = 0
        self._held: list[bytes] = []  # raw lines that are settled with the next entry
        self._options: list[tuple[int, bytes]] = []
        self._open: list[bytes] = []  # raw lines of the entry that goes on
        self._open_size = 0
        self._shell = ShellLines()
        self._grown_at = 0.0
        self._finished = False

    @property
    def deadline(self) -> float | None:
        """When `entries` should be called even if nothing was fed."""
        return self._grown_at + self._limits.patience_s if self._open else None

    @property
    def waiting(self) -> bool:
        """Whether bytes were fed that are in no entry yet."""
        return bool(self._open or self._partial_size or self._held or self._lines)

    def feed(self, data: bytes, now: float) -> None:
        if not data:
            return
        self._grown_at = now
        if self.in_line:
            data = self._skip(data)
            if not data:
                return
        first, *rest = data.split(b"\n")
        self._partial.append(first)
        self._partial_size += len(first)
        if rest:
            last = rest.pop()
            self._lines.append(b"".join(self._partial) + b"\n")
            self._lines.extend([piece + b"\n" for piece in rest])
            self._partial = [last]
            self._partial_size = len(last)

    def finish(self) -> None:
        """No more bytes will come: the last line counts, and what is open is given up."""
        if self._partial_size:
            self._lines.append(b"".join(self._partial))
            self._partial, self._partial_size = [], 0
        self._finished = True

    def entries(self, limit: int, now: float) -> list[Entry]:
        """At most `limit` entries; `offset` and `consumed` stand exactly at the end of the last."""
        found: list[Entry] = []
        while len(found) < limit:
            if self._lines:
                entry = self._next_line()
            elif self._partial_size > self._limits.max_bytes:
                entry = self._overlong_partial()
            elif self._open:
                if self._finished:
                    entry = self._give_up(f"{self._shell.waits_for()} at the end of the input")
                elif now - self._grown_at >= self._limits.patience_s:
                    entry = self._give_up(
                        f"{self._shell.waits_for()}, and nothing was added for "
                        f"{self._limits.patience_s:g} s"
                    )
                else:
                    break
            elif self._finished and self._options:
                entry = self._dangling_options("no command follows")
            else:
                break
            if entry is not None:
                found.append(entry)
        return found

    # -- one line at a time ----------------------------------------------------------------

    def _next_line(self) -> Entry | None:
        raw = self._lines.popleft()
        size = len(raw) - raw.endswith(b"\n")
        if size > self._limits.max_bytes:
            if self._open:
                self._lines.appendleft(raw)
                return self._give_up("a line that is too long follows before its end")
            return self._overlong(raw)
        if self._open:
            return self._continue(raw)
        text = raw.rstrip(b"\n").rstrip(b"\r")
        if _NOTHING_RUNS.match(text):
            option = _OPTIONS.match(text)
            if option:
                number = self.line + len(self._held)
                self._options.append((number, text[option.end() :]))
            if self._options:
                self._held.append(raw)
                if len(self._held) > self._limits.max_lines:
                    why = f"no command follows within {self._limits.max_lines} lines"
                    return self._dangling_options(why)
            else:
                self._settle([raw])
            return None
        # Only a line with one of these can go on: all others are an entry as they stand.
        if b"<<" in text or text.endswith(b"\\"):
            self._shell = ShellLines()
            if self._shell.goes_on(text):
                self._open, self._open_size = [raw], len(raw)
                return None
        return self._emit([raw], text)

    def _continue(self, raw: bytes) -> Entry | None:
        if len(self._open) >= self._limits.max_lines:
            self._lines.appendleft(raw)
            return self._give_up(f"it goes on for more than {self._limits.max_lines} lines")
        if self._open_size + len(raw) > self._limits.max_bytes:
            self._lines.appendleft(raw)
            return self._give_up(f"it is longer than {self._limits.max_bytes} bytes")
        self._open.append(raw)
        self._open_size += len(raw)
        if self._shell.goes_on(raw.rstrip(b"\n").rstrip(b"\r")):
            return None
        raws, self._open = self._open, []
        return self._emit(raws, b"\n".join([each.rstrip(b"\n").rstrip(b"\r") for each in raws]))

    # -- ends of entries -------------------------------------------------------------------

    def _emit(self, raws: list[bytes], command: bytes, problem: str = "") -> Entry:
        held, options = self._held, tuple(self._options)
        if held:
            self._held, self._options = [], []
            self._settle(held)
        offset, line = self.offset, self.line
        self._settle(raws)
        return Entry(offset, self.offset, line, len(raws), command, options, problem)

    def _give_up(self, why: str) -> Entry:
        """Make an entry of the open job's first line; its other lines are looked at afresh."""
        first, *rest = self._open
        self._open = []
        self._lines.extendleft(reversed(rest))
        return self._emit([first], first.rstrip(b"\n").rstrip(b"\r"), why)

    def _dangling_options(self, why: str) -> Entry:
        """Options without a command become an entry, so that somebody hears of them."""
        held, shown = self._held, _without_values(b"#gpud:" + self._options[0][1])
        self._held, self._options = [], []
        offset, line = self.offset, self.line
        self._settle(held)
        return Entry(offset, self.offset, line, len(held), shown, (), why)

    def _overlong_partial(self) -> Entry:
        if self._open:
            return self._give_up("a line that is too long follows before its end")
        raw = b"".join(self._partial)
        self._partial, self._partial_size = [], 0
        return self._overlong(raw)

    def _overlong(self, raw: bytes) -> Entry:
        """Cut a line at the limit, so that neither its length nor its end needs to be awaited."""
        cut = self._limits.max_bytes + 1
        shown = _without_values(raw[: min(_SHOWN, self._limits.max_bytes)])
        entry = self._emit([raw], shown, f"it is longer than {self._limits.max_bytes} bytes")
        self.in_line = not raw.endswith(b"\n")
        if self.in_line:
            self.line -= 1  # it is not over yet
        return entry._replace(end=entry.offset + cut)

    def _skip(self, data: bytes) -> bytes:
        """Drop the rest of an overlong line; return what comes after it."""
        end = data.find(b"\n") + 1
        self.in_line = end == 0
        piece = data[:end] if end else data
        self._settle([piece], lines=bool(end))
        return data[end:] if end else b""

    def _settle(self, raws: list[bytes], lines: bool = True) -> None:
        for raw in raws:
            self._consumed(raw)
            self.offset += len(raw)
        if lines:
            self.line += len(raws)

"""What `gpud run` shows while it runs: the jobs' output, a line per start, a progress line.

Owned by daemon/shown.py. A thread of its own reads the logs and writes to the terminal, so that a
slow reader never keeps a job from starting. gpud's own words go to stderr, the jobs' to stdout.

Rule 1: whole lines only, so that jobs do not cut into each other's lines; an unfinished line waits
    for its end, for the end of its job, or until it is CHUNK_BYTES long.
Rule 2: what is put together is written together, and wakes the thread once.
Rule 3: a system call here makes the engine's thread wait for its turn, and then this one for that.
    So whoever puts `Ended` says whether there is any output; of most short jobs there is none.
Rule 4: when stdout is closed (`| head`), the jobs go on and their logs keep everything.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import NamedTuple

from gpud.errors import why_os

POLL_S = 0.1
# A job may have put anything in its log's place: no link is followed, no FIFO is waited at.
LOG_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
CHUNK_BYTES = 1 << 16
PIECES = 16  # of one log, before another has its turn; of output, before it is written
PROGRESS_EVERY_S = 0.2
ERASE_LINE = "\r\x1b[K"


class Started(NamedTuple):
    job: int
    log: str
    line: str  # what to say about the start; "" says nothing


class Ended(NamedTuple):
    job: int
    line: str  # what to say about the end; "" says nothing
    has_output: bool = True


class Note(NamedTuple):
    line: str


Item = Started | Ended | Note


class Tail:
    """One attempt's log, read as it grows, in pieces of bounded size."""

    def __init__(self, log: str, prefix: bytes) -> None:
        self._log = log
        self._prefix = prefix
        self._fd = -1
        self._partial = b""
        self._at_start = True  # of a line, in what was passed on

    def more(self) -> Iterator[bytes]:
        """What has come since the last look, at most PIECES of it: others want their turn."""
        if not self._is_open():
            return
        for _ in range(PIECES):
            chunk = self._read()
            if not chunk:
                return
            if text := self._whole_lines(chunk):
                yield self._prefixed(text)

    def is_begun(self) -> bool:
        """Some of it was read."""
        return self._fd >= 0

    def rest(self) -> Iterator[bytes]:
        """All that is left, and a newline if the last line has none. The tail is over."""
        if not self._is_open():
            return
        while chunk := self._read():
            if text := self._whole_lines(chunk):
                yield self._prefixed(text)
        os.close(self._fd)
        self._fd = -1
        if self._partial:
            yield self._prefixed(self._partial)
        if not self._at_start:
            yield b"\n"

    def _is_open(self) -> bool:
        if self._fd < 0:
            try:
                if os.stat(self._log, follow_symlinks=False).st_size:
                    self._fd = os.open(self._log, LOG_FLAGS)
            except OSError:
                pass  # not there yet, or never: the job could not start
        return self._fd >= 0

    def _read(self) -> bytes:
        try:
            return os.read(self._fd, CHUNK_BYTES)
        except OSError:
            return b""

    def _whole_lines(self, chunk: bytes) -> bytes:
        """A carriage return ends a line too (progress bars); a very long one is not waited for."""
        text = self._partial + chunk
        cut = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        if not cut and len(text) >= CHUNK_BYTES:
            cut = len(text)
        self._partial = text[cut:]
        return text[:cut]

    def _prefixed(self, text: bytes) -> bytes:
        start = self._prefix if self._at_start else b""
        self._at_start = text.endswith(b"\n")
        if not self._prefix:
            return text
        body, end = (text[:-1], b"\n") if self._at_start else (text, b"")
        return start + body.replace(b"\n", b"\n" + self._prefix) + end


class Console:
    """`progress` gives the progress line, or is None when stderr is no terminal."""

    def __init__(self, *, prefix: bool, progress: Callable[[], str] | None) -> None:
        self._prefix = prefix
        self._progress = progress
        self._items: SimpleQueue[Sequence[Item] | None] = SimpleQueue()  # None: the end
        self._tails: dict[int, Tail] = {}
        self._stdout_open = True
        self._shown = ""  # the progress line on the screen
        self._shown_at = 0.0
        self._unwritten: list[bytes] = []
        self._unwritten_fd = 1
        self._thread = threading.Thread(target=self._work, name="console", daemon=True)
        self._thread.start()

    def put(self, *items: Item) -> None:
        """Never blocks."""
        self._items.put(items)

    def close(self) -> None:
        """Returns when all that was put is written; takes the progress line away."""
        self._items.put(None)
        self._thread.join()

    def _work(self) -> None:
        look_at = 0.0  # when the tails are looked at next
        items: Sequence[Item] | None = ()
        while items is not None:
            busy = bool(self._tails) or self._progress is not None
            try:
                wait_s = max(0.0, look_at - time.monotonic()) if busy else None
                items = self._items.get(timeout=wait_s)
            except Empty:
                items = ()
            for item in items or ():
                self._take(item)
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + POLL_S
                for tail in self._tails.values():
                    self._pass_on(tail.more())
            self._flush()
            self._show_progress()
        for tail in self._tails.values():
            self._pass_on(tail.rest())
        self._flush()
        self._erase()

    def _take(self, item: Started | Ended | Note) -> None:
        match item:
            case Started(job, log, line):
                self._say(line)
                prefix = f"[{job}] ".encode() if self._prefix else b""
                self._tails[job] = Tail(log, prefix)
            case Ended(job, line, has_output):
                tail = self._tails.pop(job, None)
                if tail is not None and (has_output or tail.is_begun()):
                    self._pass_on(tail.rest())
                self._say(line)
            case Note(line):
                self._say(line)

    def _pass_on(self, pieces: Iterator[bytes]) -> None:
        for piece in pieces:
            if self._stdout_open:
                self._write(1, piece)
                if len(self._unwritten) >= PIECES:
                    self._flush()

    def _say(self, line: str) -> None:
        if line:
            self._write(2, line.encode(errors="replace") + b"\n")

    def _write(self, fd: int, data: bytes) -> None:
        """Kept until `_flush`, or until the other descriptor has its turn: the order stays."""
        if fd != self._unwritten_fd:
            self._flush()
            self._unwritten_fd = fd
        self._unwritten.append(data)

    def _flush(self) -> None:
        if not self._unwritten:
            return
        data = b"".join(self._unwritten)
        self._unwritten.clear()
        self._erase()
        try:
            _write_all(self._unwritten_fd, data)
        except OSError as error:
            if self._unwritten_fd != 1:
                return
            self._stdout_open = False
            if error.errno != errno.EPIPE:
                why = f"gpud: cannot write the output: {why_os(error)}; it is in the logs\n"
                _write_quietly(why)

    def _show_progress(self) -> None:
        if self._progress is None or time.monotonic() - self._shown_at < PROGRESS_EVERY_S:
            return
        self._shown_at = time.monotonic()
        line = self._progress()[: _columns() - 1]
        if line != self._shown:
            _write_quietly(ERASE_LINE + line)
            self._shown = line

    def _erase(self) -> None:
        if self._shown:
            _write_quietly(ERASE_LINE)
            self._shown = ""


def _columns() -> int:
    try:
        return os.get_terminal_size(2).columns or 80
    except OSError:
        return 80


def _write_quietly(text: str) -> None:
    try:
        _write_all(2, text.encode(errors="replace"))
    except OSError:
        pass  # nobody reads our words; the jobs go on


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]

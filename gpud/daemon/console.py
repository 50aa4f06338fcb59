"""What `gpud run` shows while it runs: the jobs' output, a line per start, a progress line.

Owned by daemon/run.py. A thread of its own reads the logs and writes to the terminal, so that a
slow reader never keeps a job from starting. gpud's own words go to stderr, the jobs' to stdout.

Rule 1: whole lines only, so that jobs never cut into each other's lines; an unfinished line waits
    for its end, or for the end of its job.
Rule 2: what comes within COALESCE_S is written together, so that a thousand short jobs a second do
    not wake the thread for each.
Rule 3: when stdout is closed (`| head`), the jobs go on and their logs keep everything.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import NamedTuple

POLL_S = 0.1
COALESCE_S = 0.03
CHUNK_BYTES = 1 << 16
PROGRESS_EVERY_S = 0.2
ERASE_LINE = "\r\x1b[K"


class Started(NamedTuple):
    job: int
    log: str
    line: str  # what to say about the start; "" says nothing


class Ended(NamedTuple):
    job: int
    line: str  # what to say about the end; "" says nothing


class Note(NamedTuple):
    line: str


Item = Started | Ended | Note | None


class Tail:
    """One attempt's log, read as it grows."""

    def __init__(self, log: str, prefix: bytes) -> None:
        self._log = log
        self._prefix = prefix
        self._fd = -1
        self._partial = b""

    def more(self, *, last: bool) -> bytes:
        """What has come since, in whole lines; with `last` also an unfinished line."""
        if self._fd < 0:
            try:
                if last and os.stat(self._log).st_size == 0:
                    return b""
                self._fd = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return b""  # not there yet, or never: the job could not start
        found = [self._partial]
        while chunk := os.read(self._fd, CHUNK_BYTES):
            found.append(chunk)
            if not last and len(found) > 64:
                break  # the others want their turn
        text = b"".join(found)
        if last:
            os.close(self._fd)
            self._fd = -1
            if text and not text.endswith(b"\n"):
                text += b"\n"
            self._partial = b""
        else:
            text, newline, self._partial = text.rpartition(b"\n")
            text += newline
        if self._prefix and text:
            lines = text.split(b"\n")[:-1]
            text = b"".join(self._prefix + line + b"\n" for line in lines)
        return text


class Console:
    """`progress` gives the progress line, or is None when stderr is no terminal."""

    def __init__(self, *, prefix: bool, progress: Callable[[], str] | None) -> None:
        self._prefix = prefix
        self._progress = progress
        self._items: SimpleQueue[Item] = SimpleQueue()
        self._tails: dict[int, Tail] = {}
        self._stdout_open = True
        self._shown = ""  # the progress line on the screen
        self._shown_at = 0.0
        self._unwritten: list[bytes] = []
        self._unwritten_fd = 1
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="console", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Never blocks."""
        self._items.put(item)

    def close(self) -> None:
        """Returns when all that was put is written; takes the progress line away."""
        self._closing.set()
        self._items.put(None)
        self._thread.join()

    def _work(self) -> None:
        item: Item = Note("")
        while item is not None:
            busy = bool(self._tails) or self._progress is not None
            try:
                item = self._items.get(timeout=POLL_S if busy else None)
            except Empty:
                for tail in self._tails.values():
                    self._pass_on(tail.more(last=False))
            else:
                self._closing.wait(COALESCE_S)
                while item is not None:
                    self._take(item)
                    if self._items.empty():
                        break
                    item = self._items.get()
            self._flush()
            self._show_progress()
        for tail in self._tails.values():
            self._pass_on(tail.more(last=True))
        self._flush()
        self._erase()

    def _take(self, item: Started | Ended | Note) -> None:
        match item:
            case Started(job, log, line):
                self._say(line)
                prefix = f"[{job}] ".encode() if self._prefix else b""
                self._tails[job] = Tail(log, prefix)
            case Ended(job, line):
                tail = self._tails.pop(job, None)
                if tail is not None:
                    self._pass_on(tail.more(last=True))
                self._say(line)
            case Note(line):
                self._say(line)

    def _pass_on(self, text: bytes) -> None:
        if text and self._stdout_open:
            self._write(1, text)

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
        except OSError:
            if self._unwritten_fd == 1:
                self._stdout_open = False

    def _show_progress(self) -> None:
        if self._progress is None or time.monotonic() - self._shown_at < PROGRESS_EVERY_S:
            return
        self._shown_at = time.monotonic()
        line = self._progress()
        if line != self._shown:
            _write_quietly(ERASE_LINE + line)
            self._shown = line

    def _erase(self) -> None:
        if self._shown:
            _write_quietly(ERASE_LINE)
            self._shown = ""


def _write_quietly(text: str) -> None:
    try:
        _write_all(2, text.encode(errors="replace"))
    except OSError:
        pass  # nobody reads our words; the jobs go on


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]

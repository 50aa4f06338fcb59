"""`gpuctl logs`: what jobs have written, from their log files, over all attempts with -f.

The daemon is asked where the files are and, with -f, when that may have changed; the bytes come
from the files themselves, as they are, and no daemon is in the way. With several jobs each line
begins with `[42] `, and only whole lines are written, so that none mix.
"""

from __future__ import annotations

import os
import sys

from gpud.client import patience
from gpud.client.connection import ask
from gpud.ctl import words
from gpud.ctl.args import Option, Verb, count
from gpud.ctl.holes import end_of_hole, pieces
from gpud.ctl.trouble import in_words_of
from gpud.errors import GpudError, why_os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from gpud.ctl.args import Args

PULSE_S = 0.2  # how often -f looks into the files
CHUNK = 1 << 16


class Log:
    """The output of one job: `files` is one path an attempt, `at` the one that is read."""

    def __init__(self, job: int, prefix: bytes) -> None:
        self.job, self._prefix = job, prefix
        self.files: list[str] = []
        self._cut_at: list[int | None] = []  # where what was cut out of each file begins
        self._ends_line = True  # what was shown last
        self._gone_at_ms: list[int] = []  # 0: it was not removed
        self.view: dict[str, Any] = {}
        self.found = self.wrote = False  # there was a file; there was something in it
        self._at = 0
        self._offset = 0
        self._begun = b""  # a line without its end, held back while lines have prefixes

    def learn(self, detail: dict[str, Any]) -> None:
        self.files = [attempt["log"] for attempt in detail["attempts"]]
        cuts = [attempt.get("log_cut") for attempt in detail["attempts"]]
        self._cut_at = [cut[0] if cut else None for cut in cuts]
        self._gone_at_ms = [attempt.get("log_gone_at_ms", 0) for attempt in detail["attempts"]]
        self.view = detail["job"]

    @property
    def gone_at_ms(self) -> int:
        """When the log of the attempt that is read was removed; 0: it was not."""
        return self._gone_at_ms[self._at] if self._at < len(self._gone_at_ms) else 0

    def start_at_last(self, lines: int | None) -> None:
        """Begin with the last attempt there is, at its last `lines` lines (None: its start)."""
        self._at = max(len(self.files) - 1, 0)
        if lines is not None and self.files:
            self._offset = _offset_of_last(self.files[self._at], lines, self._cut_at[self._at])

    def copy(self) -> None:
        """What is there now to stdout; on to the next attempt where there is one."""
        while self._at < len(self.files):
            self._copy_file(self.files[self._at])
            if self._at == len(self.files) - 1:
                break
            self._at, self._offset = self._at + 1, 0
            self.end_line()

    def end_line(self) -> None:
        """What a prefixed log held back goes out as a line of its own."""
        if self._begun:
            _write(self._prefix + self._begun + b"\n")
            self._begun = b""

    def _copy_file(self, path: str) -> None:
        for length, data in self._new_data(path):
            self._offset += length
            self.wrote = True
            self._put(data if length == len(data) or self._ends_line else b"\n" + data)
            self._ends_line = data.endswith(b"\n")

    def _new_data(self, path: str) -> Iterator[tuple[int, bytes]]:
        """How far each piece goes in the file, and what is shown of it."""
        try:
            with open(path, "rb", buffering=0) as file:
                self.found = True
                if os.fstat(file.fileno()).st_size < self._offset:
                    self._offset = 0  # somebody emptied it
                yield from pieces(file.fileno(), self._offset, self._cut_at[self._at], CHUNK)
        except FileNotFoundError:
            return  # not made yet, or taken away
        except OSError as error:
            raise GpudError(f"cannot read {path}: {why_os(error)}") from error

    def _put(self, data: bytes) -> None:
        if not self._prefix:
            _write(data)
            return
        *lines, self._begun = (self._begun + data).split(b"\n")
        _write(b"".join([self._prefix + line + b"\n" for line in lines]))


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)


def _offset_of_last(path: str, lines: int, cut_at: int | None = None) -> int:
    """Where the last `lines` lines of a file begin; a last line may lack its end. `cut_at`: where
    what was cut out begins, which is shown when there are not so many lines after it."""
    try:
        with open(path, "rb") as file:
            position = end = file.seek(0, os.SEEK_END)
            lowest = 0 if cut_at is None else end_of_hole(file.fileno(), min(cut_at, end))
            lowest = lowest if cut_at is not None and lowest > cut_at else 0
            if lines == 0:
                return end
            wanted = lines + 1
            while position > lowest:
                step = min(CHUNK, position - lowest)
                position -= step
                file.seek(position)
                block = file.read(step)
                if position + step == end and not block.endswith(b"\n"):
                    wanted -= 1
                where = len(block)
                while (where := block.rfind(b"\n", 0, where)) >= 0:
                    wanted -= 1
                    if wanted == 0:
                        return position + where + 1
            if lowest and cut_at is not None:
                return lowest if wanted == 1 else cut_at
    except OSError:
        pass  # the copying says why
    return 0


def run(args: Args) -> int:
    try:
        details = ask(
            args["socket"], {"type": "show", "jobs": args.words or ["@"], "elements": True}
        )["jobs"]
    except GpudError as error:
        raise in_words_of("show the log of", error, "show") from error
    if hidden := [detail["job"] for detail in details if detail["job"].get("hidden")]:
        raise GpudError(
            f"cannot show the log of job {hidden[0]['id']}: it belongs to {hidden[0]['user']}"
        )
    logs: dict[int, Log] = {}
    for detail in details:
        job = detail["job"]["id"]
        prefix = f"[{words.job_id(detail['job'])}] " if len(details) > 1 else ""
        logs[job] = Log(job, prefix.encode())
        logs[job].learn(detail)
        logs[job].start_at_last(args["lines"])
    if args["follow"]:
        _follow(args, logs)
    else:
        for log in logs.values():
            log.copy()
            log.end_line()
    if len(logs) == 1:
        _complain_of_none(*logs.values())
    return 0


def _complain_of_none(log: Log) -> None:
    """A job by itself without a log: say why nothing appears."""
    view = log.view
    cannot = f"cannot show the log of job {log.job}"
    if view["state"] != "done":
        if not log.files:
            raise GpudError(
                f"{cannot}: it has not started",
                hint=f"why: gpuctl why {log.job}   wait for it: gpuctl logs -f {log.job}",
            )
    elif view["outcome"] == "not-started" and not log.wrote:
        why = f": {view['why']}" if view["why"] else ""
        raise GpudError(f"{cannot}: it could not be started{why}")
    elif not log.files:
        raise GpudError(f"{cannot}: it was {view['outcome']} before it started")
    elif log.gone_at_ms and not log.found:
        from gpud.ctl.render import clock

        raise GpudError(f"{cannot}: it was removed {clock(log.gone_at_ms)}, as old logs are")
    elif not log.found:
        raise GpudError(f"{cannot}: there is no file {log.files[-1]}")


def _follow(args: Args, logs: dict[int, Log]) -> None:
    """Until all are done. An event of a job says only that it is worth asking again."""
    stream = patience.follow(args["socket"], jobs=sorted(logs), until_done=True, pulse_s=PULSE_S)
    next(stream)  # from here on nothing is missed
    stale = set(logs)
    for event in stream:
        if event is not None:
            first = event["job"]
            stale |= logs.keys() & range(first, first + event.get("count", 1))
            continue
        _refresh(args, logs, stale)
        _copy(logs)
    _refresh(args, logs, set(logs))
    _copy(logs)
    for log in logs.values():
        log.end_line()


def _refresh(args: Args, logs: dict[int, Log], stale: set[int]) -> None:
    if stale:
        with patience.reconnect(args["socket"]) as connection:
            reply = connection.ask({"type": "show", "jobs": sorted(stale), "elements": True})
        for detail in reply["jobs"]:
            logs[detail["job"]["id"]].learn(detail)
        stale.clear()


def _copy(logs: dict[int, Log]) -> None:
    for log in logs.values():
        log.copy()
    sys.stdout.flush()


VERBS = [
    Verb(
        "logs",
        "Show what jobs have written.",
        run,
        words="[JOBS ...]",
        most=None,
        options=(
            Option("follow", "go on until the jobs are done, over all attempts", short="f"),
            Option("lines", "begin with the last N lines (default: all)", "N", count, short="n"),
        ),
        about="""\
Of the last attempt; `gpuctl show` has the files of all. Without JOBS: the last
submitted one. Of several jobs each line begins with the id: [42] ...""",
        examples=("gpuctl logs 42", "gpuctl logs -f -n 20 @", "gpuctl logs -f name:sweep"),
    ),
]

"""What lies beside the database: the jobs' logs, and old runs; how much room, and taking it away.

ports.Files. Called by the daemon's housekeeping, in a thread: a directory may be large and a disk
slow. Logs have the names of gpud/paths.py; what has another one is nobody's log and stays.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from gpud.amounts import format_bytes
from gpud.core.log_caps import Room
from gpud.core.model import JobId
from gpud.errors import GpudError, why_os
from gpud.paths import log_path
from gpud.ports import LogFile
from gpud.store import old_runs, punching
from gpud.store.punching import BLOCK

LEAST_FREE = 8 << 20  # for what runs to go on with; the store and the runner keep their own room
NAME = re.compile(r"([1-9][0-9]*)\.([1-9][0-9]*)\.log\Z")


class StateFiles:
    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir

    def full(self) -> str:
        """Why no job may start: too little room for its log, as a clause; "" when there is enough.
        Quick: the state directory is on a local disk."""
        logs = f"{self._state_dir}/logs"
        try:
            try:
                disk = os.statvfs(logs)
            except FileNotFoundError:
                disk = os.statvfs(self._state_dir)
        except OSError:
            return ""  # who opens the log will say why not
        free = disk.f_bavail * disk.f_frsize
        if free < LEAST_FREE:
            needed = format_bytes(LEAST_FREE)
            return f"the disk of {logs} is full: {format_bytes(free)} are free, less than {needed}"
        if disk.f_files and not disk.f_favail:
            return f"the disk of {logs} is full: it has no room for another file"
        return ""

    def path(self, file: LogFile) -> str:
        return log_path(self._state_dir, file.job, file.attempt)

    def sizes(self) -> dict[JobId, int]:
        """Bytes on the disk of the logs of each job that has any. Raises GpudError."""
        found: dict[JobId, int] = {}
        logs = f"{self._state_dir}/logs"
        try:
            for directory in os.scandir(logs):
                if directory.name.isdecimal() and directory.is_dir(follow_symlinks=False):
                    _add_sizes(directory.path, found)
        except FileNotFoundError:
            pass  # none yet
        except OSError as error:
            raise GpudError(f"cannot read {logs}: {why_os(error)}", kind="storage") from error
        return found

    def remove(self, files: Sequence[LogFile]) -> tuple[list[LogFile], str]:
        """Those that are gone now, and what is wrong with one of the others, as a sentence."""
        gone, problem = [], ""
        for file in files:
            try:
                os.unlink(self.path(file))
            except FileNotFoundError:
                pass  # never made, or taken away before
            except OSError as error:
                problem = f"cannot remove {self.path(file)}: {why_os(error)}"
                continue
            gone.append(file)
        return gone, problem

    def rooms(self, files: Sequence[LogFile]) -> dict[LogFile, Room]:
        found = ((file, punching.room_of(self.path(file))) for file in files)
        return {file: room for file, room in found if room is not None}

    def punch(self, file: LogFile, first: int, end: int) -> None:
        punching.punch(self.path(file), first, end)

    def prune_runs(self, longest_ms: int, now_ms: int, *, really: bool) -> tuple[list[str], str]:
        return old_runs.prune_runs(self._state_dir, longest_ms, now_ms, really=really)


def _add_sizes(directory: str, found: dict[JobId, int]) -> None:
    for entry in os.scandir(directory):
        if (name := NAME.match(entry.name)) is None:
            continue
        try:
            room = entry.stat(follow_symlinks=False).st_blocks * BLOCK
        except FileNotFoundError:
            continue  # it was empty, and its attempt has ended
        job = JobId(int(name[1]))
        found[job] = found.get(job, 0) + room

"""The memory of bugs: whose events crash the daemon, so that one job cannot crash it for ever.

Owns the file `strikes` in the state directory. The engine records the event that it was handling
when a bug escaped; three times within a minute for the same job, and from the next start on the
events of that job are set aside: the job is held, or stays where it is with its lease, and gpud
goes on. `gpuctl status` says so; removing the file gives every job another try.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

FILE_NAME = "strikes"
STRIKES = 3
WITHIN_MS = 60_000


class Strikes:
    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME

    def record(self, job: int, event: str, now_ms: int) -> None:
        """Before the daemon ends. A disk that cannot be written leaves no memory: it crashes on."""
        line = json.dumps({"at_ms": now_ms, "job": job, "event": event}) + "\n"
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, line.encode())
            finally:
                os.close(fd)
        except OSError:
            pass

    def set_aside(self) -> dict[int, str]:
        """The jobs that are out, with the event that did it."""
        found: dict[tuple[int, str], list[int]] = {}
        try:
            lines = self._path.read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            return {}
        for line in lines:
            try:
                strike = json.loads(line)
                found.setdefault((strike["job"], strike["event"]), []).append(strike["at_ms"])
            except (ValueError, KeyError, TypeError):
                continue  # a line cut off by the crash
        return {
            job: event
            for (job, event), times in found.items()
            if len(times) >= STRIKES and times[-1] - times[-STRIKES] <= WITHIN_MS
        }

"""A bell that rings when a local file may have changed. A hint: polling is the truth.

Owns the thread that waits in watchfiles, and its pace. watchfiles sleeps in steps and looks at
what inotify said after two of them; with its default step an idle watch would wake up 20 times a
second. So: while nothing happens a step is a second, and each step also looks at the file itself
(one stat), which halves the delay; after a change the steps are short for a while. An idle watch
wakes up once a second; the first line after a pause is seen within a second, the next ones within
a tenth.

Called by queue_file.py, with a function that may be called from this thread. It must not read the
file, nor decide what a change means. watchfiles is imported here, in the thread: neither the start
of gpud nor its loop waits for it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

IDLE_STEP_S = 1.25
BUSY_STEP_S = 0.03
BUSY_S = 10.0
RETRY_S = 60.0
_DEBOUNCE_MS = 50
_TIMEOUT_MS = 600_000

Stamp = tuple[int, int, int, int] | None


class Watch:
    """Watches one file in its directory, and where it is a symbolic link, the target's too."""

    def __init__(self, path: str, ring: Callable[[], object]) -> None:
        self.why = ""  # why it does not work, once it does not
        self._path = path
        self._ring = ring
        self._stopped = False
        self._made_at = time.monotonic()
        self._turn = False  # what `is_set` says ends the present call of watchfiles
        self._seen: Stamp = None
        self._directories: list[str] = []
        self._names: set[str] = set()
        self._identities: list[tuple[int, int]] = []
        self._busy_until = 0.0
        try:
            real = os.path.realpath(path)
            for each in dict.fromkeys((path, real)):
                directory, name = os.path.split(each)
                self._names.add(name)
                if directory not in self._directories:
                    self._directories.append(directory)
            self._identities = self._identify()
            self._seen = _stamp(path)
        except OSError as error:
            self.why = f"cannot watch it: {error.strerror}"
            return
        threading.Thread(target=self._work, name="gpud-watch", daemon=True).start()

    def is_current(self) -> bool:
        """Whether it watches the directories that are there now; a failed one is for a minute."""
        if self.why and time.monotonic() - self._made_at > RETRY_S:
            return False
        try:
            return self._identify() == self._identities
        except OSError:
            return False

    def stop(self) -> None:
        self._stopped = True  # the thread ends at its next step

    def is_set(self) -> bool:
        """Asked by watchfiles after each step: whether to come back."""
        if self._stopped:
            return True
        seen = _stamp(self._path)
        if seen != self._seen:
            self._seen = seen
            self._turn = self._changed()
        return self._turn

    def _changed(self) -> bool:
        """Tell of a change; True if the steps are to become short now."""
        idle = time.monotonic() >= self._busy_until
        self._busy_until = time.monotonic() + BUSY_S
        try:
            self._ring()
        except RuntimeError:  # the loop is closed
            self._stopped = True
        return idle

    def _work(self) -> None:
        try:
            from watchfiles._rust_notify import RustNotify

            notify = RustNotify(self._directories, False, False, 0, False, True)
            while not self._stopped:
                self._turn = False
                busy = time.monotonic() < self._busy_until
                step_s = BUSY_STEP_S if busy else IDLE_STEP_S
                timeout_ms = int(BUSY_S * 1000) if busy else _TIMEOUT_MS
                found = notify.watch(_DEBOUNCE_MS, int(step_s * 1000), timeout_ms, self)
                if found == "signal":
                    break
                if isinstance(found, set) and any(
                    os.path.basename(path) in self._names or path in self._directories
                    for _, path in found
                ):
                    self._seen = _stamp(self._path)
                    self._changed()
        except Exception as error:  # no inotify left, no permission: polling does without
            self.why = f"cannot watch it: {error}"

    def _identify(self) -> list[tuple[int, int]]:
        found = [os.stat(directory) for directory in self._directories]
        return [(each.st_dev, each.st_ino) for each in found]


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

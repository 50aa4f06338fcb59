"""The runner's OOM score: lower than that of anything it runs, where that is allowed.

Used by start.py around each spawn, since a child inherits it.
"""

import os

WANTED = (-500, 0)


class Score:
    """To give it back around a spawn are two writes (1.3 us) with no race; to write that of the
    child afterwards costs 4.4 us and has one."""

    def __init__(self) -> None:
        self.fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        self.before, self.lowered = os.read(self.fd, 16).strip(), b""
        for score in WANTED:
            if score < int(self.before) and not self.lowered:
                try:
                    os.pwrite(self.fd, b"%d" % score, 0)
                    self.lowered = b"%d" % score
                except OSError:
                    pass  # not allowed to: an unprivileged runner keeps what it has

    def restore(self) -> None:
        if self.lowered:
            os.pwrite(self.fd, self.before, 0)

    def lower(self) -> None:
        if self.lowered:
            os.pwrite(self.fd, self.lowered, 0)

"""A submit whose jobs follow its line: collected, and committed together or not at all.

Owned by control/session.py, which hands in the job lines as they come. The first thing that is
wrong is answered at once and ends the submit; the rest of its lines are read past, so that the
next request is found. Must not touch the daemon before the last line.
"""

from __future__ import annotations

from gpud.control.jobs import Submission
from gpud.errors import GpudError
from gpud.ports import Controlled
from gpud.protocol.framing import decode_job
from gpud.protocol.replies import Submitted
from gpud.protocol.requests import Submit

MAX_JOBS = 1_000_000
MAX_BYTES = 512 << 20  # of job lines; what is made of them takes about as much memory


class Bulk:
    """`left`: the job lines that have not come yet; `whole`: all have come and all are good."""

    def __init__(self, request: Submit, max_bytes: int = 0) -> None:
        self.request = request
        self._max_bytes = max_bytes or MAX_BYTES
        self.left = request.count
        self._submission: Submission | None = None  # None: not begun, or something was wrong
        self._bytes = 0

    def begin(self, daemon: Controlled) -> None:
        """Raises GpudError when the first line alone says that this cannot be done."""
        if self.request.job is not None:
            raise GpudError("cannot submit: both `job` and `count` are given", kind="usage")
        if self.left > MAX_JOBS:
            raise GpudError(f"cannot submit: {self.left} jobs at once are more than {MAX_JOBS}")
        self._submission = Submission(self.request, daemon)

    @property
    def whole(self) -> bool:
        return self.left == 0 and self._submission is not None

    def add(self, line: bytes) -> None:
        """One more job line. Raises GpudError, once: after it lines are only counted."""
        self.left -= 1
        submission = self._submission
        if submission is None:
            return
        count = self.request.count
        which = f"job {count - self.left} of {count}"
        self._bytes += len(line)
        try:
            if self._bytes > self._max_bytes:
                most = self._max_bytes >> 20
                raise GpudError(f"cannot submit: {which}: past {most} MiB of jobs")
            submission.add(decode_job(line, which), f"{which}: ")
        except GpudError:
            self._submission = None  # gives the memory back
            raise

    async def submit(self) -> Submitted:
        assert self._submission is not None
        return await self._submission.submit()

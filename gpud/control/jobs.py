"""A submit: from what the client wrote to the one event that the core takes or refuses.

Called by control/session.py for a submit of one job, and by control/bulk.py. Everything that can
be wrong with a job by itself is found here, before the core hears of any of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from msgspec import UNSET, structs

from gpud.config.jobs import spec_of
from gpud.control.afters import come_after, seen_from
from gpud.control.fields import Environments, lay_over
from gpud.core.events import JobsSubmitted
from gpud.core.explain import explain
from gpud.core.indices import size
from gpud.core.model import JobId, JobSpec, NewJob
from gpud.errors import GpudError
from gpud.ports import Controlled
from gpud.protocol.framing import encoder
from gpud.protocol.replies import Submitted
from gpud.protocol.requests import JobFields, Submit

MAX_KEY = 200


async def submit_one(daemon: Controlled, request: Submit) -> Submitted:
    if request.job is None or request.count:
        raise GpudError("cannot submit: give `job`, or a positive `count`", kind="usage")
    submission = Submission(request, daemon)
    submission.add(request.job)
    return await submission.submit()


class Submission:
    """The jobs of one submit, as far as they are known."""

    def __init__(self, request: Submit, daemon: Controlled) -> None:
        """Raises GpudError for what is wrong with the submit as a whole."""
        if len(request.key) > MAX_KEY:
            raise GpudError(f"cannot submit: the key is longer than {MAX_KEY} characters")
        self._request = request
        self._daemon = daemon
        self._jobs: list[NewJob] = []
        self._environments: Environments = {}
        # The digest is over what was asked for, not over what defaults make of it: the same submit
        # is the same submit after a reload. Nor over what is captured around it: who repeats a
        # submit may do so from another shell.
        self._digest = hashlib.blake2b(digest_size=16)
        # Of a daemon of one person: who runs as another user's gpud can only run as that user, so
        # what root submits there is that user's job. Else it is the caller's, as the kernel says.
        self._base = spec_of(daemon.defaults, uid=daemon.submits_as)
        if request.common is not None:
            self._base = self._lay(request.common, "common: ")
        self._digest.update(b"\n")

    def add(self, fields: JobFields, which: str = "") -> None:
        """Raises GpudError when this job cannot be; `which` says which it is: "job 17 of 100: "."""
        spec = self._lay(fields, which)
        if not spec.command:
            raise GpudError(f"cannot submit: {which}neither command nor argv is given")
        self._jobs.append(NewJob(spec))

    async def submit(self) -> Submitted:
        """Returns after the commit. Raises GpudError: what the core refused, or `storage`."""
        jobs, key = tuple(self._jobs), self._request.key
        digest = self._digest.hexdigest() if key else ""
        answer = await self._daemon.ask(lambda number: JobsSubmitted(number, jobs, key, digest))
        first = answer.jobs[0]
        return Submitted(
            id=self._request.id,
            first=first,
            count=answer.count,
            again=answer.again,
            arrays=tuple(_arrays(first, jobs)) or UNSET,
            note=self._held(first) or UNSET,
        )

    def _held(self, first: JobId) -> str:
        """Why they were held at once, though nobody asked for that."""
        state = self._daemon.state
        job = state.jobs.get(first)
        if job is None or not job.held_by:
            return ""
        return explain(state, first, self._daemon.now_ms())

    def _lay(self, fields: JobFields, which: str) -> JobSpec:
        if self._request.key:
            asked = structs.replace(fields, env=UNSET, cwd=UNSET, umask=UNSET)
            self._digest.update(encoder.encode(asked) + b"\n")
        try:
            spec = lay_over(self._base, fields, self._environments)
            base = seen_from(self._base.after, len(self._jobs))
            after = come_after(base, fields, self._daemon.store)
            return spec if after == spec.after else structs.replace(spec, after=after)
        except GpudError as error:
            raise GpudError(f"cannot submit: {which}{error.message}", kind=error.kind) from error


def _arrays(first: int, jobs: Sequence[NewJob]) -> Iterator[tuple[int, int]]:
    for new in jobs:
        last = first
        if array := new.spec.array:
            last = first + size(array.indices) - 1
            yield first, last
        first = last + 1

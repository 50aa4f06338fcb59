"""What a turn has changed, for the commit: filled by core/state.py, written by the store."""

from __future__ import annotations

from msgspec import Struct

from gpud.core.health import Quarantine
from gpud.core.model import Attempt, Cursor, Job, JobId, JobSpec, JobState, NewJob, Outcome, Story
from gpud.core.rules import Kept
from gpud.core.shares import Sum
from gpud.core.spans import Spans


class NewSubmission(Struct, frozen=True):
    """The memory of a keyed submit: the same key gets the same answer."""

    key: str
    digest: str
    first: JobId
    count: int


class By(Struct, frozen=True):
    """Who asks for a change, and in which words: the verb of the request."""

    verb: str
    uid: int
    pid: int


class Audit(Struct, frozen=True):
    """A change that somebody asked for and got. `jobs`: spans of ids; none: it is about no job."""

    at_ms: int
    by: By
    jobs: Spans = ()


class EndOfMany(Struct, frozen=True):
    """Elements of an array (ids from `first` to `last`) that ended as they were submitted."""

    array: JobId
    first: int
    last: int
    was: JobState  # before this turn
    outcome: Outcome
    why: str
    at_ms: int
    source: str


class Changes(Struct):
    """What the next commit writes. `new` is in id order; the records to it are in `jobs`. An array
    is there under the id of its first element; its record is under minus that id."""

    new: list[tuple[JobId, NewJob]] = []
    jobs: dict[JobId, Job] = {}
    ends: list[EndOfMany] = []
    before: dict[JobId, tuple[JobState, Outcome | None]] = {}  # of those whose state changed
    attempts: dict[tuple[JobId, int], Attempt] = {}
    edited: dict[JobId, JobSpec] = {}  # what these say now; they are in `jobs`, too
    story: list[Story] = []
    submissions: dict[str, NewSubmission] = {}
    cursors: dict[str, Cursor] = {}
    stopped: dict[str, bool] = {}  # sources switched by a person
    quarantines: dict[str, Quarantine | None] = {}  # by UUID; None: lifted
    usual_mib: dict[str, int] = {}  # likeness -> what it took of a GPU's memory at most
    gates: dict[str, Kept] = {}  # by key; one that says nothing is kept no longer
    usage: dict[int, Sum | None] = {}  # by uid; None: forgotten
    audit: list[Audit] = []
    draining: bool | None = None
    next_id: JobId | None = None

    def __bool__(self) -> bool:
        return bool(
            self.jobs
            or self.ends
            or self.attempts
            or self.story
            or self.cursors
            or self.stopped
            or self.submissions
            or self.quarantines
            or self.usual_mib
            or self.gates
            or self.usage
            or self.audit
            or self.draining is not None
            or self.next_id is not None
        )

    def outcome_of(self, job: JobId) -> Outcome | None:
        """Of a job that has ended in this turn."""
        if (record := self.jobs.get(job)) is not None:
            return record.outcome
        for end in self.ends:
            if end.first <= job <= end.last:
                return end.outcome
        return None

"""Where a job can be, and which moves there are: a table, and the check of each move.

Called by core/state.py for every move. The diagram in docs/architecture.md is generated from
`MOVES`, so it cannot rot.
"""

from __future__ import annotations

from gpud.core.model import Attempt, Job, JobState, Phase

Place = JobState | Phase  # of an active job its phase, else its state

# (from, to) -> what makes it happen
MOVES: dict[tuple[Place, Place], str] = {
    (JobState.QUEUED, Phase.STARTING): "dispatch",
    (JobState.QUEUED, JobState.HELD): "hold",
    (JobState.QUEUED, JobState.DONE): "cancel, too late, or after one that failed",
    (JobState.HELD, JobState.QUEUED): "release",
    (JobState.HELD, JobState.DONE): "cancel, too late, or after one that failed",
    (Phase.STARTING, Phase.RUNNING): "started",
    (Phase.STARTING, Phase.STOPPING): "cancel",
    (Phase.STARTING, JobState.DONE): "ended, not started, lost",
    (Phase.STARTING, JobState.QUEUED): "ended, tried again",
    (Phase.RUNNING, Phase.STOPPING): "cancel, checkpoint",
    (Phase.RUNNING, JobState.DONE): "ended, lost",
    (Phase.RUNNING, JobState.QUEUED): "ended, tried again",
    (Phase.STOPPING, JobState.DONE): "ended",
    (Phase.STOPPING, JobState.QUEUED): "given back to the owner, or saved and left",
    (Phase.STOPPING, JobState.HELD): "given back to the owner",
    (Phase.STOPPING, Phase.RUNNING): "ended before it was asked to leave",
    (Phase.RUNNING, Phase.PAUSED): "pause",
    (Phase.PAUSED, Phase.RUNNING): "continue",
    (Phase.PAUSED, Phase.STOPPING): "cancel, checkpoint",
    (Phase.PAUSED, Phase.FINISHING): "ended badly on a GPU",
    (Phase.PAUSED, JobState.DONE): "ended, lost",
    (Phase.PAUSED, JobState.QUEUED): "ended, tried again",
    (Phase.STARTING, Phase.FINISHING): "ended badly on a GPU",
    (Phase.RUNNING, Phase.FINISHING): "ended badly on a GPU",
    (Phase.FINISHING, Phase.STOPPING): "cancel",
    (Phase.FINISHING, JobState.DONE): "its GPUs were looked at",
    (Phase.FINISHING, JobState.QUEUED): "tried again",
    (JobState.DONE, JobState.QUEUED): "retry",
}


class ContradictionError(Exception):
    """The core contradicts itself: a bug. Carries the story of the job as far as it is known."""


def place_of(job: Job, attempt: Attempt | None) -> Place:
    return attempt.phase if attempt is not None else job.state


def check_move(job: Job, before: Place, after: Place) -> None:
    if (before, after) not in MOVES:
        raise ContradictionError(f"job {job.id} cannot go from {before} to {after}: {job}")

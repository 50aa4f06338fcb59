"""Jobs that come after others: what may be asked for, and what the end of one means for the rest.

`settle` is called by core/scheduler.py after each event, for all jobs that it ended; the rest by
core/requests.py and core/explain.py. A chain of any length is followed in one go: whoever is
cancelled here has ended, too.
"""

from __future__ import annotations

from collections.abc import Mapping

from gpud.core.links import OutcomeOf, is_met
from gpud.core.model import After, JobId, JobState, Outcome
from gpud.core.state import State

HOW = {
    Outcome.SUCCEEDED: "succeeded",
    Outcome.FAILED: "failed",
    Outcome.KILLED: "was killed",
    Outcome.TIMED_OUT: "ran past its time limit",
    Outcome.CANCELLED: "was cancelled",
    Outcome.NOT_STARTED: "could not be started",
    Outcome.LOST: "was lost",
}


def settle(state: State, now_ms: int) -> None:
    """Those for which a job that has ended will not do are cancelled, or wait for its retry."""
    while state.ended:
        before = state.ended.pop()
        outcome = state.links.outcomes.get(before)
        for job_id, ended in state.links.after(before):
            job = state.jobs.get(job_id)
            if outcome is None or job is None or is_met(outcome, ended):
                continue
            if job.state is not JobState.ACTIVE and not job.after.patient:
                why = f"{named(before)} {HOW[outcome]}"
                state.end_waiting(job, Outcome.CANCELLED, why, now_ms)


def named(before: JobId) -> str:
    return f"job {before}, which it comes after,"


def outcome_now(state: State, recalled: Mapping[JobId, Outcome]) -> OutcomeOf:
    """`recalled`: what the store says of jobs that were done before this turn."""

    def outcome_of(job: JobId) -> Outcome | None:
        if state.find(job) is not None:
            return None
        return state.changes.outcome_of(job) or recalled.get(job)

    return outcome_of


def impossible(state: State, after: After, outcome_of: OutcomeOf, end: JobId) -> str:
    """Why a job cannot come after these (with ids), as a sentence; "" when it can. From `end` on
    there are no jobs."""
    for span in after.spans:
        if span.first < 1:
            return "there are not so many jobs that it could come after"
        if span.last >= end:
            return f"it cannot come after job {span.last}: no such job"
        for before in map(JobId, range(span.first, min(span.last + 1, state.next_id))):
            if state.find(before) is not None:
                continue
            if (outcome := outcome_of(before)) is None:
                return f"it cannot come after job {before}: no such job"
            if not is_met(outcome, span.ended) and not after.patient:
                return f"{named(before)} {HOW[outcome]}"
    return ""

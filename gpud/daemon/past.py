"""What the core cannot know of the past, added to an event before it is handled.

Called by the engine. The core remembers only jobs that are not done, and no commands: earlier
submits by key, the records of done jobs, and whose memory an end tells about come from the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import structs

from gpud.core.events import AttemptEnded, EditRequested, Event, JobsSubmitted, RetryRequested
from gpud.core.likeness import likeness_of
from gpud.core.links import edges
from gpud.core.model import JobId, JobSpec, Span
from gpud.core.requests import numbered_jobs
from gpud.core.state import State
from gpud.ports import Store


def with_past(
    event: Event, state: State, store: Store, spec_of: Callable[[JobId], JobSpec]
) -> Event:
    match event:
        case AttemptEnded(job=job):
            live = state.attempts.get(job)
            if live is not None and live.usage is not None and live.usage.peak_mib:
                spec = spec_of(job)
                return structs.replace(
                    event, likeness=likeness_of(spec.name, spec.command, spec.uid)
                )
        case JobsSubmitted():
            return _submitted(event, state, store)
        case RetryRequested(jobs=jobs):
            recalled = store.recall([job for job in jobs if state.find(job) is None])
            before = [edge for job in recalled for edge in edges(job)]
            outcomes = store.outcomes([job for job, _ in before if state.find(job) is None])
            return structs.replace(event, recalled=tuple(recalled), outcomes=outcomes)
        case EditRequested(edits=edits):
            done = {job for edit in edits for job in _done(edit.becomes.after.spans, state)}
            return structs.replace(event, outcomes=store.outcomes(sorted(done))) if done else event
    return event


def _submitted(event: JobsSubmitted, state: State, store: Store) -> JobsSubmitted:
    if event.key and (found := store.submission(event.key)) is not None:
        earlier = (found.first, found.count, found.digest)
        return structs.replace(event, earlier=earlier)
    before = {job for _, spans in numbered_jobs(state, event.jobs) for job in _done(spans, state)}
    return structs.replace(event, outcomes=store.outcomes(sorted(before))) if before else event


def _done(spans: Iterable[Span], state: State) -> list[JobId]:
    """Those of the jobs in these spans that the state does not have."""
    ids = (range(max(1, span.first), min(span.last + 1, state.next_id)) for span in spans)
    return [JobId(job) for some in ids for job in some if state.find(JobId(job)) is None]

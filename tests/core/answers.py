"""What is answered to people and sources: all that was asked for, and nothing else.

Called by tests/core/turns.py when the core has handled a request; notes in the ledger what was
promised.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpud.core.actions import Action, Answer, Refuse
from gpud.core.events import (
    CancelRequested,
    CheckpointRequested,
    ContinueRequested,
    EntriesRead,
    HoldRequested,
    JobsSubmitted,
    PauseRequested,
    ReleaseRequested,
    RetryRequested,
)
from gpud.core.model import JobId
from gpud.core.state import State

from .capacity import Free
from .promises import Ledger

AboutJobs = (
    CancelRequested
    | RetryRequested
    | HoldRequested
    | ReleaseRequested
    | PauseRequested
    | ContinueRequested
    | CheckpointRequested
)


def answered(
    event: AboutJobs,
    actions: Sequence[Action],
    possible: set[int],
) -> tuple[JobId, ...]:
    """Each id that was asked for is changed or refused with a sentence, as it must be."""
    (answer,) = (a for a in actions if isinstance(a, Answer))
    assert answer.request == event.request
    assert set(answer.jobs) == set(event.jobs) & possible
    assert {job for job, _ in answer.refused} == set(event.jobs) - possible
    assert all(why.startswith("cannot ") for _, why in answer.refused)
    return answer.jobs


def check_new(
    state: State,
    ledger: Ledger,
    event: JobsSubmitted | EntriesRead,
    first: JobId,
    actions: Sequence[Action],
    in_order: bool,
) -> None:
    """`in_order`: what they come after is there, and it can still be."""
    (answer,) = actions
    assert isinstance(answer, Answer | Refuse)
    assert answer.request == event.request
    key = event.key if isinstance(event, JobsSubmitted) else ""
    if isinstance(answer, Refuse) or answer.again:
        assert state.next_id == first, f"{answer} made jobs"
    pool = Free(state.pool.devices.values(), [], usual_mib=state.pool.usual_mib)
    possible = [pool.could_ever_fit(job.spec.request) for job in event.jobs]
    if key in ledger.keys:
        digest, first_then, count = ledger.keys[key]
        if event.digest == digest:
            same = Answer(event.request, (first_then,), count, again=True)
            assert answer == same, f"another answer for the key {key}: {answer}"
        else:
            assert isinstance(answer, Refuse), f"the key {key} stands for two submits"
    elif isinstance(answer, Answer):
        assert in_order, f"{event} comes after what cannot be"
        assert answer == Answer(event.request, (first,)[: len(event.jobs)], len(event.jobs))
        new = {JobId(first + n): job.spec for n, job in enumerate(event.jobs)}
        good = [p and not job.problem for p, job in zip(possible, event.jobs, strict=True)]
        assert all(possible) or isinstance(event, EntriesRead), f"{event} cannot be served"
        assert [j in state.jobs for j in new] == good, f"other entries of {event} are good"
        assert state.next_id == first + len(new)
        ledger.bad_entries |= {j for j in new if j not in state.jobs}
        ledger.held |= {j for j, s in new.items() if s.held and j in state.jobs}
        if key:
            ledger.keys[key] = event.digest, first, len(new)
        if isinstance(event, EntriesRead):
            ledger.cursors[event.source] = event.cursor
    else:
        assert not all(possible) or not in_order, f"{answer} for no reason"

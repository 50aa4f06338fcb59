"""Jobs that can no longer be done by their deadline.

Called by core/dispatching.py before each dispatch. A job that has started in time goes on.
"""

from __future__ import annotations

from gpud.core.dependencies import settle
from gpud.core.model import Outcome
from gpud.core.state import State

TOO_LATE = "it could not be started in time for its deadline"


def expire(state: State, now_ms: int) -> None:
    """They end as not started, and so do those that come after them."""
    while (last := state.expiring.first()) is not None and last[0] < now_ms:
        state.end_waiting(state.jobs[last[1]], Outcome.NOT_STARTED, TOO_LATE, now_ms)
    settle(state, now_ms)

"""Short ways to a state in tests: `ready(devices)`, `submit(state, …)`, `start(state, job)`."""

from __future__ import annotations

from typing import TypeVar

from gpud.core.actions import Action, Answer, Refuse
from gpud.core.events import AttemptEnded, AttemptStarted, Event, JobsSubmitted, RunnerReady
from gpud.core.invariants import check_invariants
from gpud.core.model import CPU_LANE, Attempt, Device, JobId, JobSpec, NewJob
from gpud.core.pool import Pool
from gpud.core.scheduler import step
from gpud.core.state import State

NOW_MS = 1_000_000
BOOT = "boot-1"

A = Device("a", ("a",))
B = Device("b", ("b",))
HALVES = Device("h", ("h",), 2)
PAIR = Device("p0,p1", ("p0", "p1"))
CPUS = Device(CPU_LANE, (), 2)

AnyAction = TypeVar("AnyAction", bound=Action)


def unmet(*devices: Device) -> State:
    """A state whose runner has not answered yet."""
    return State(Pool(devices))


def ready(*devices: Device) -> State:
    """A state that may start jobs."""
    state = unmet(*devices)
    happens(state, RunnerReady(BOOT))
    return state


def happens(state: State, *events: Event, now_ms: int = NOW_MS) -> list[Action]:
    """One turn; whatever it was, the invariants hold after it."""
    actions = step(state, events, now_ms)
    check_invariants(state)
    return actions


def submit(state: State, *specs: JobSpec, **fields: object) -> JobId:
    """Queue specs, or one job with these fields; gives back the (first) id."""
    new = tuple(NewJob(spec) for spec in specs or (spec_of(**fields),))
    return only(Answer, happens(state, JobsSubmitted(1, new))).jobs[0]


def spec_of(**fields: object) -> JobSpec:
    return JobSpec(command=b"train", **fields)


def started(state: State, job: JobId) -> Attempt:
    """The job's live attempt, after the runner has said that it runs."""
    attempt = state.attempts[job]
    happens(state, AttemptStarted(job, attempt.no, pid=100 + job, at_ms=NOW_MS))
    return attempt


def ended(state: State, job: JobId, **how: object) -> AttemptEnded:
    """The fact that the job's live attempt has ended."""
    return AttemptEnded(job, state.attempts[job].no, NOW_MS, **how)


def only(kind: type[AnyAction], actions: list[Action]) -> AnyAction:
    (found,) = (action for action in actions if isinstance(action, kind))
    return found


def answer(actions: list[Action]) -> Answer:
    return only(Answer, actions)


def refusal(actions: list[Action]) -> Refuse:
    return only(Refuse, actions)

"""Random days of people who change their minds, from a seed: much waits, and little stays as it is.

The machine of tests/core/editing.py with other dice, as in scenarios.py: jobs are edited, moved and
swapped more than anything else. Used by test_edits.py and test_planted_edit_bugs.py.
"""

from __future__ import annotations

from random import Random

from msgspec import structs

from gpud.core.events import CancelRequested, Edit, EditRequested, JobsSubmitted, RetryRequested
from gpud.core.health import GpuPolicy
from gpud.core.links import edges
from gpud.core.model import After, Device, JobSpec, NewJob, Outcome, RetryPolicy, Span

from .draws import BREAKDOWNS, CPUS, ENDS, ONE, REQUESTS, ROOMY, SHARED, TWO
from .editing import ENDS_OF_QUEUE, FIELDS, EditingMachine
from .turns import Fate

STEPS = 30
POOLS: list[tuple[Device, ...]] = [(ONE,), (ONE, TWO), (SHARED, CPUS), (ROOMY, ONE)]
POLICIES = [
    RetryPolicy(),
    RetryPolicy(1, backoff_s=20),
    RetryPolicy(3, backoff_s=20, on=(Outcome.FAILED,)),
    RetryPolicy(2, backoff_s=0, on=(), oom=True),
]


def live(seed: int, steps: int = STEPS) -> EditingMachine:
    """A whole day, checked after each step, up to the end of every job."""
    dice = Random(seed)
    machine = EditingMachine()
    jobs = [spec(dice, machine) for _ in range(dice.randint(3, 8))]
    machine.begin(dice.choice(POOLS), GpuPolicy(), True, dice.random() < 0.7, jobs)
    acts = [edit, move, swap, submit, go_on, end, wait, ask, knot, trouble]
    for act in dice.choices(acts, [8, 4, 3, 3, 2, 5, 3, 3, 1, 1], k=steps):
        act(machine, dice)
        machine.all_is_well()
    machine.settle()
    return machine


def spec(dice: Random, machine: EditingMachine) -> JobSpec:
    """Times are near enough to matter, and far enough to be met."""
    begin_ms = machine.now_ms + dice.choice([1, 5_000, 50_000])
    deadline_ms = machine.now_ms + dice.choice([1_000, 60_000, 500_000])
    return JobSpec(
        command=b"train",
        request=dice.choice(REQUESTS),
        priority=dice.choice([0, 0, 0, 1, -1]),
        retry=dice.choice(POLICIES),
        held=dice.random() < 0.3,
        time_limit_s=dice.choice([None, None, 1.0, 30.0]),
        begin_ms=begin_ms if dice.random() < 0.3 else 0,
        deadline_ms=deadline_ms if dice.random() < 0.3 else 0,
        grace_s=dice.choice([10.0, 0.5]),
    )


def fate(dice: Random) -> Fate:
    return Fate.LATER if dice.random() < 0.2 else Fate.WHOLE


def some(dice: Random, most: int = 3) -> list[int]:
    return [dice.randrange(30) for _ in range(dice.randint(1, most))]


def edit(machine: EditingMachine, dice: Random) -> None:
    fields = set(dice.choices(FIELDS, k=dice.choice([1, 1, 2])))
    after = [(dice.randrange(12), dice.random() < 0.5) for _ in range(dice.choice([0, 1, 1, 2]))]
    like = spec(dice, machine)
    machine.edit(some(dice), fields, like, after, dice.random() < 0.5, fate(dice))


def move(machine: EditingMachine, dice: Random) -> None:
    to = dice.choice(["before", "before", "after", *ENDS_OF_QUEUE, "first"])
    machine.move(some(dice), to, dice.randrange(30), fate(dice))


def swap(machine: EditingMachine, dice: Random) -> None:
    machine.swap(dice.randrange(30), dice.randrange(30), fate(dice))


def submit(machine: EditingMachine, dice: Random) -> None:
    back = dice.choice([0, 0, 1, 2])
    after = After((Span(-back, -back, dice.random() < 0.5),) if back else (), dice.random() < 0.5)
    specs = [spec(dice, machine) for _ in range(dice.randint(1, 3))]
    jobs = tuple(NewJob(JobSpec(b"train", after=after, priority=s.priority)) for s in specs[:1])
    jobs += tuple(map(NewJob, specs[1:]))
    machine.post(JobsSubmitted(machine.request(), jobs), fate(dice))


def go_on(machine: EditingMachine, dice: Random) -> None:
    if machine.daemon.runner.alive():
        machine.payloads_go_on([(dice.randrange(6), "launch")], True, fate(dice))


def end(machine: EditingMachine, dice: Random) -> None:
    if machine.daemon.runner.alive():
        how = dice.choice([*ENDS, {"exit_code": 1}, {"exit_code": 1}])
        machine.payload_ends(dice.randrange(6), how, 0, 1, dice.random() < 0.9, fate(dice))


def wait(machine: EditingMachine, dice: Random) -> None:
    if dice.random() < 0.3:
        machine.deadline()
    else:
        machine.time_passes(dice.choice([1, 2_500, 10_000]), fate(dice))


def ask(machine: EditingMachine, dice: Random) -> None:
    match dice.choice(["cancel", "retry", "retry", "retry", "hold", "release"]):
        case "cancel":
            machine.cancel(some(dice, 1), None, fate(dice))
        case "retry":
            machine.retry(some(dice), dice.choice([None, b"--resume"]), fate(dice))
        case what:
            machine.hold_or_release(some(dice), what == "release", fate(dice))


def knot(machine: EditingMachine, dice: Random) -> None:
    """One that comes after another is cancelled, the other comes after it, and it is retried."""
    jobs = machine.daemon.state.jobs
    later = [job for job in jobs.values() if any(b in jobs for b, _ in edges(job))]
    if later:
        job = dice.choice(later)
        before = next(b for b, _ in edges(job) if b in jobs)
        machine.post(CancelRequested(machine.request(), (job.id,)), Fate.WHOLE)
        was = machine.as_it_is(before)
        becomes = structs.replace(was, after=After((Span(job.id, job.id, True),), True))
        edits = (Edit(before, was, becomes),)
        machine.post(EditRequested(machine.request(), edits), Fate.WHOLE)
        machine.post(RetryRequested(machine.request(), (job.id,)), Fate.WHOLE)


def trouble(machine: EditingMachine, dice: Random) -> None:
    if not machine.daemon.runner.connected:
        machine.meet_runner(Fate.WHOLE)
    else:
        ask = dice.choice((CancelRequested, RetryRequested))
        machine.break_down([], some(dice), ask, dice.choice(BREAKDOWNS), 1, True)

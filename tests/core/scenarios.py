"""Random days on watched GPUs, from a seed: the machine of tests/core/machine.py with other dice.

Hypothesis looks for the odd case; here faults come as often as they do in a bad week, so that much
happens in few steps. Used by test_fault_scenarios.py, test_lifecycle.py and test_planted_bugs.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from gpud.amounts import URGENT
from gpud.core.events import (
    CancelRequested,
    CheckpointRequested,
    ContinueRequested,
    Event,
    PauseRequested,
    RetryRequested,
)
from gpud.core.model import JobSpec, NewJob, Phase

from .draws import BREAKDOWNS, ENDS, GUESTS, POLICIES, POLICIES_OF_POOL, REQUESTS, WATCHED
from .machine import INTERRUPTIONS, CoreMachine
from .turns import Fate

STEPS = 40

Act = Callable[[CoreMachine, Random], None]
ACTS: list[tuple[int, Act]] = []
USUALLY: Mapping[Act, int] = {}


def act(weight: int) -> Callable[[Act], Act]:
    def register(function: Act) -> Act:
        ACTS.append((weight, function))
        return function

    return register


def live(seed: int, steps: int = STEPS, often: Mapping[Act, int] = USUALLY) -> CoreMachine:
    """A whole scenario, checked after each step, up to the end of every job. `often`: other weights
    of some acts. On days on which owners come there are GPUs of theirs."""
    dice = Random(seed)
    machine = CoreMachine()
    jobs = [spec(dice) for _ in range(dice.randint(1, 6))]
    policy = dice.choice(POLICIES_OF_POOL)
    machine.begin(
        dice.choice(GUESTS if often is OWNERS_COME else WATCHED),
        policy,
        True,
        dice.random() < 0.7,
        jobs,
    )
    acts = [act for _, act in ACTS]
    weights = [often.get(act, weight) for weight, act in ACTS]
    for chosen in dice.choices(acts, weights, k=steps):
        chosen(machine, dice)
        machine.all_is_well()
    machine.settle()
    return machine


def spec(dice: Random) -> JobSpec:
    return JobSpec(
        command=b"train",
        request=dice.choice(REQUESTS),
        priority=dice.choice([0, 0, 0, 0, 1, -1, URGENT]),
        retry=dice.choice(POLICIES),
        time_limit_s=dice.choice([None, None, 1.0, 30.0, 1000.0]),
        checkpoint=dice.choice([0, 0, 10]),
    )


def fate(dice: Random) -> Fate:
    return Fate.LATER if dice.random() < 0.1 else Fate.WHOLE


def some(dice: Random) -> list[int]:
    return [dice.randrange(30) for _ in range(dice.randint(1, 3))]


@act(6)
def submit(machine: CoreMachine, dice: Random) -> None:
    machine.read_entries([NewJob(spec(dice)) for _ in range(dice.randint(1, 4))], fate(dice))


@act(2)
def cancel(machine: CoreMachine, dice: Random) -> None:
    machine.cancel(whom(machine, dice, CancelRequested), None, fate(dice))


@act(1)
def retry(machine: CoreMachine, dice: Random) -> None:
    machine.retry(some(dice), None, fate(dice))


@act(1)
def hold_or_release(machine: CoreMachine, dice: Random) -> None:
    machine.hold_or_release(some(dice), dice.random() < 0.8, fate(dice))


@act(1)
def interrupt(machine: CoreMachine, dice: Random) -> None:
    ask = dice.choice(INTERRUPTIONS)
    machine.interrupt(whom(machine, dice, ask), ask, fate(dice))


def whom(machine: CoreMachine, dice: Random, ask: type[Event]) -> list[int]:
    """Often one of those for whom it is meant."""
    state = machine.daemon.state
    meant = [
        place
        for place, live in enumerate(state.attempts.values())
        if live.phase is MEANT[ask]
        and (ask is not CheckpointRequested or state.jobs[live.job].checkpoint)
    ]
    return [dice.choice(meant)] if meant and dice.random() < 0.6 else some(dice)


MEANT = {
    PauseRequested: Phase.RUNNING,
    ContinueRequested: Phase.PAUSED,
    CheckpointRequested: Phase.RUNNING,
    CancelRequested: Phase.STOPPING,
}


@act(0)
def stands_still(machine: CoreMachine, dice: Random) -> None:
    """For so long that some would be called idle."""
    machine.interrupt(whom(machine, dice, PauseRequested), PauseRequested, Fate.WHOLE)
    for _ in range(3):
        machine.time_passes(6_000, Fate.WHOLE)
        machine.look(True, 1, Fate.WHOLE)


@act(0)
def retry_what_resumed(machine: CoreMachine, dice: Random) -> None:
    if resumed := tuple(sorted(machine.daemon.ledger.resuming)):
        machine.post(RetryRequested(machine.request(), resumed), fate(dice))


@act(0)
def ends_while_it_is_asked(machine: CoreMachine, dice: Random) -> None:
    """For a checkpoint, and nobody has heard of the end."""
    for key in sorted(machine.daemon.runner.alive())[:2]:
        machine.daemon.runner.end(key, machine.now_ms, **dice.choice(ENDS))
        machine.post(CheckpointRequested(machine.request(), (key[0],)), Fate.WHOLE)
    machine.deliver_all(fate(dice))


@act(1)
def switch(machine: CoreMachine, dice: Random) -> None:
    machine.switch(dice.choice(["drain", "undrain", "undrain", "undrain"]), fate(dice))


@act(1)
def change_devices(machine: CoreMachine, dice: Random) -> None:
    machine.change_devices(dice.choice(WATCHED), fate(dice))


@act(4)
def time_passes(machine: CoreMachine, dice: Random) -> None:
    machine.time_passes(dice.choice([1, 500, 2_500, 10_000, 70_000]), fate(dice))


@act(3)
def deadline(machine: CoreMachine, dice: Random) -> None:
    machine.deadline()


@act(8)
def payloads_go_on(machine: CoreMachine, dice: Random) -> None:
    if machine.daemon.runner.alive():
        what = dice.choice(["launch", "launch", "launch", "refuse", "linger"])
        machine.payloads_go_on([(dice.randrange(6), what)], dice.random() < 0.8, fate(dice))


@act(16)
def payload_ends(machine: CoreMachine, dice: Random) -> None:
    if machine.daemon.runner.alive():
        leaves_mib = dice.choice([0, 0, 0, 300, 2_000])
        order, promptly = dice.choice([1, 1, 1, -1]), dice.random() < 0.85
        how = dice.choice(ENDS)
        machine.payload_ends(dice.randrange(6), how, leaves_mib, order, promptly, fate(dice))


@act(2)
def deliver(machine: CoreMachine, dice: Random) -> None:
    if machine.daemon.runner.wire:
        machine.deliver(some(dice), fate(dice))


@act(1)
def echo(machine: CoreMachine, dice: Random) -> None:
    if machine.daemon.runner.past:
        machine.echo(some(dice), fate(dice))


@act(2)
def runner_trouble(machine: CoreMachine, dice: Random) -> None:
    if machine.daemon.runner.connected:
        machine.lose_runner(dice.random() < 0.4, dice.random() < 0.8, fate(dice))
    else:
        machine.meet_runner(fate(dice))


@act(2)
def break_down(machine: CoreMachine, dice: Random) -> None:
    jobs = [spec(dice)] if dice.random() < 0.5 else []
    ask, how = dice.choice([CancelRequested, *INTERRUPTIONS]), dice.choice(BREAKDOWNS)
    machine.break_down(jobs, whom(machine, dice, ask), ask, how, dice.randint(1, 3), True)


@act(1)
def reboot(machine: CoreMachine, dice: Random) -> None:
    if dice.random() < 0.4:
        machine.reboot(dice.choice(["remembers", "forgets", "upgrade"]), True)


@act(8)
def look(machine: CoreMachine, dice: Random) -> None:
    machine.look(dice.random() < 0.7, dice.choice([1, 1, 300, 2_500]), fate(dice))


@act(4)
def look_is_told_late(machine: CoreMachine, dice: Random) -> None:
    if under_way := machine.daemon.gpus.under_way:
        machine.look_is_told_late(dice.randrange(len(under_way)), fate(dice))


@act(1)
def look_is_told_again(machine: CoreMachine, dice: Random) -> None:
    if machine.daemon.gpus.told:
        machine.look_is_told_again(some(dice), fate(dice))


@act(6)
def others(machine: CoreMachine, dice: Random) -> None:
    name = dice.choice(["python", "python", "python", "Xorg", "dcgm"])
    comes, seen = dice.random() < 0.6, dice.random() < 0.5
    machine.others(dice.randrange(6), comes, name, dice.choice([50, 20_000]), seen)


@act(4)
def gpu_breaks(machine: CoreMachine, dice: Random) -> None:
    how = dice.choice(["xid", "look", "trouble", "mended", "mended"])
    machine.gpu_breaks(dice.randrange(6), how, dice.random() < 0.5, fate(dice))


@act(3)
def memory_is_left(machine: CoreMachine, dice: Random) -> None:
    mib, idle = dice.choice([0, 0, 0, 400, 2_000]), dice.random() < 0.4
    machine.memory_is_left(dice.randrange(6), mib, idle, dice.random() < 0.5)


@act(2)
def driver(machine: CoreMachine, dice: Random) -> None:
    machine.driver(dice.random() < 0.25, dice.random() < 0.3)


@act(3)
def heal(machine: CoreMachine, dice: Random) -> None:
    picks = [dice.randrange(6) for _ in range(dice.randint(0, 2))]
    machine.heal(picks, dice.random() < 0.8, fate(dice))


# Days on which people interrupt jobs more often.
INTERRUPTED = {
    interrupt: 16,
    ends_while_it_is_asked: 4,
    retry_what_resumed: 8,
    stands_still: 4,
    break_down: 20,
    others: 14,
    runner_trouble: 4,
    cancel: 6,
    look: 14,
    time_passes: 8,
}

# Days on which others want their GPUs back.
OWNERS_COME = {others: 30, submit: 12}

"""Random days on a machine that many share, from a seed: the machine of machine.py, crowded.

Hypothesis rarely brings a limit, a member of its group and a free GPU together; here everybody is
in some group, rules come and go, windows turn and much fails. Used by test_crowds.py and
test_planted_gate_bugs.py.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from gpud.core.events import CancelRequested
from gpud.core.health import GpuPolicy
from gpud.core.model import Device, JobSpec, NewJob, Request
from gpud.core.rules import EVERY_USER, Rule, Rules

from .draws import BREAKDOWNS, CLEAN, CPUS, KEYS, NIGHTLY, NIGHTS, PAIR, POLICIES, TWO, WORDS
from .machine import CoreMachine
from .turns import Fate

STEPS = 50
FOUR = Device("q", ("q",), 4)
POOLS = [(FOUR, CPUS), (FOUR, PAIR), (PAIR, TWO, CPUS), (NIGHTLY, TWO, FOUR)]
REQUESTS = [*[Request()] * 4, *[Request(1)] * 2, Request(2), Request(0), Request(exclusive=True)]
ENDS = [{"exit_code": 0}, {"exit_code": 0}, {"exit_code": 3}, {"exit_code": 3}, {"signal": 9}]
CROWDED = ("group:g", "group:g", "user:1", "label:a=b", *KEYS)

Act = Callable[[CoreMachine, Random], None]
ACTS: list[tuple[int, Act]] = []


def act(weight: int) -> Callable[[Act], Act]:
    def register(function: Act) -> Act:
        ACTS.append((weight, function))
        return function

    return register


def live(seed: int, steps: int = STEPS) -> CoreMachine:
    """A whole scenario, checked after each step, up to the end of every job."""
    dice = Random(seed)
    machine = CoreMachine()
    jobs = [spec(dice) for _ in range(dice.randint(4, 12))]
    half_life_ms = dice.choice([0, 100_000, 10_000_000])
    machine.begin(
        dice.choice(POOLS), GpuPolicy(), True, True, jobs, rules(dice), half_life_ms=half_life_ms
    )
    weights, acts = zip(*ACTS, strict=True)
    for chosen in dice.choices(acts, weights, k=steps):
        chosen(machine, dice)
        machine.all_is_well()
    machine.settle()
    return machine


def spec(dice: Random) -> JobSpec:
    return JobSpec(
        command=b"train",
        request=dice.choice(REQUESTS),
        priority=dice.choice([0, 0, 0, 0, 1, -1]),
        retry=dice.choice([POLICIES[0], POLICIES[0], *POLICIES]),
        held=dice.random() < 0.1,
        time_limit_s=dice.choice([None, None, None, 30.0]),
        uid=dice.choice([1, 1, 2, 3]),
        group=dice.choice(["", "g", "g", "g", "h"]),
        labels=dice.choice([(), (), ("a=b",)]),
        source=dice.choice(["", "", "", "s"]),
    )


def rules(dice: Random) -> Rules:
    found = {}
    for key in (*KEYS, EVERY_USER):
        if dice.random() < 0.5:
            found[key] = Rule(
                limit=dice.choice([None, None, 0, 1, 1, 2, 3]),
                max_fails=dice.choice([0, 0, 1, 2, 3]),
                windows=dice.choice([{}, {}, {}, NIGHTS, CLEAN, NIGHTS | CLEAN]),
            )
    weights = {uid: dice.choice([1.0, 3.0]) for uid in (1, 2)}
    return Rules(found, weights=weights, weight=dice.choice([1.0, 2.0]))


def fate(dice: Random) -> Fate:
    return Fate.LATER if dice.random() < 0.05 else Fate.WHOLE


def some(dice: Random) -> list[int]:
    return [dice.randrange(30) for _ in range(dice.randint(1, 3))]


@act(10)
def submit(machine: CoreMachine, dice: Random) -> None:
    jobs = [spec(dice) for _ in range(dice.randint(1, 4))]
    if dice.random() < 0.5:
        machine.read_entries([NewJob(job) for job in jobs], fate(dice))
    else:
        machine.submit(jobs, "", "", [], False, fate(dice))


@act(24)
def payload_ends(machine: CoreMachine, dice: Random) -> None:
    if machine.daemon.runner.alive():
        how = dice.choice(ENDS)
        machine.payload_ends(dice.randrange(6), how, 0, 1, dice.random() < 0.9, fate(dice))


@act(3)
def payloads_go_on(machine: CoreMachine, dice: Random) -> None:
    if machine.daemon.runner.alive():
        machine.payloads_go_on([(dice.randrange(6), "launch")], True, fate(dice))


@act(2)
def deliver(machine: CoreMachine, dice: Random) -> None:
    if machine.daemon.runner.wire:
        machine.deliver(some(dice), fate(dice))


@act(2)
def cancel(machine: CoreMachine, dice: Random) -> None:
    machine.cancel(some(dice), None, fate(dice))


@act(2)
def retry(machine: CoreMachine, dice: Random) -> None:
    machine.retry(some(dice), None, fate(dice))


@act(5)
def hold_or_release(machine: CoreMachine, dice: Random) -> None:
    held = machine.daemon.ledger.held
    if held and dice.random() < 0.5:
        ids = [*machine.daemon.state.attempts, *machine.daemon.state.jobs]
        picks = [ids.index(job) for job in sorted(held)]
        machine.hold_or_release(dice.sample(picks, 1), True, fate(dice))
    else:
        machine.hold_or_release(some(dice), dice.random() < 0.5, fate(dice))


@act(4)
def say(machine: CoreMachine, dice: Random) -> None:
    machine.say(dice.choice(CROWDED), dice.choice(WORDS), dice.choice(WORDS), fate(dice))


@act(3)
def change_rules(machine: CoreMachine, dice: Random) -> None:
    machine.change_rules(rules(dice), fate(dice))


@act(7)
def turn_windows(machine: CoreMachine, dice: Random) -> None:
    keys = [*KEYS, EVERY_USER]
    closed = set(dice.sample(keys, dice.choice([0, 0, 1, 2])))
    silent = set(dice.sample(keys, dice.choice([0, 0, 1])))
    lasts_ms = dice.choice([3, 1_000, 100_000, 10_000_000])
    machine.turn_windows(dice.choice(["clock", "carbon"]), closed, silent, lasts_ms, fate(dice))


@act(8)
def time_passes(machine: CoreMachine, dice: Random) -> None:
    machine.time_passes(dice.choice([1, 500, 10_000, 100_000, 3_000_000]), fate(dice))


@act(1)
def change_devices(machine: CoreMachine, dice: Random) -> None:
    machine.change_devices(dice.choice(POOLS), fate(dice))


@act(2)
def break_down(machine: CoreMachine, dice: Random) -> None:
    jobs = [spec(dice)] if dice.random() < 0.7 else []
    how = dice.choice(BREAKDOWNS)
    machine.break_down(jobs, some(dice), CancelRequested, how, dice.randint(1, 3), True)


@act(1)
def runner_trouble(machine: CoreMachine, dice: Random) -> None:
    if machine.daemon.runner.connected:
        machine.lose_runner(dice.random() < 0.4, True, fate(dice))
    else:
        machine.meet_runner(fate(dice))

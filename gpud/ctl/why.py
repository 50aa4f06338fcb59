"""`gpuctl why`: why a job waits and when it will start, or how it ended; with --verbose where it
was, and why there."""

from __future__ import annotations

from gpud.client.connection import ask
from gpud.ctl import when, words
from gpud.ctl.args import JSON, Option, Verb
from gpud.ctl.render import Screen, print_json, screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpud.ctl.args import Args

INDENT = 4


def run(args: Args) -> int:
    request = {"type": "why", "jobs": args.words or ["@"]}
    reply = ask(args["socket"], request | ({"verbose": True} if args["verbose"] else {}))
    if args["json"]:
        print_json(reply)
        return 0
    on, reasons = screen(), reply["reasons"]
    if len(reasons) == 1:
        lines = of_one(reasons[0], on, verbose=args["verbose"])
    else:
        lines = of_many(reasons, on)
    for line in lines:
        print(line)
    return 0


def of_many(reasons: list[dict[str, Any]], on: Screen) -> list[str]:
    found = []
    for reason in reasons:
        sentence = "; ".join(filter(None, (reason["reason"], when.when(reason, on))))
        found += on.folded(f"{words.job_id(reason, 'job')}: {sentence}")
    return found


def of_one(reason: dict[str, Any], on: Screen, *, verbose: bool) -> list[str]:
    sentences = (reason["reason"], when.would_start(reason), when.when(reason, on))
    found = [line for sentence in sentences if sentence for line in on.folded(sentence)]
    return found + _at_length(reason, on) if verbose else found


def _at_length(reason: dict[str, Any], on: Screen) -> list[str]:
    """What each GPU is to the job; where its tries were, how they ended, what they cost."""
    tries = reason.get("attempts", ())
    ended = [attempt for attempt in tries if attempt["outcome"]]
    found = list(reason.get("devices", ()))
    for attempt in ended:
        which = f"try {attempt['attempt']}: " if len(tries) > 1 else ""
        found += [f"{which}{line}" for line in _of_try(attempt, on)]
    energies_j = [attempt["energy_j"] for attempt in ended if attempt.get("energy_j")]
    if len(energies_j) > 1:
        found.append(f"all tries together: {words.energy(sum(energies_j))}")
    if not tries and reason["state"] == "done":
        found.append("it was never started")
    return [line for text in found for line in on.folded(f"  {text}", INDENT)]


def _of_try(attempt: dict[str, Any], on: Screen) -> list[str]:
    """Of one that has ended: where and why there, how it ended, what it cost."""
    devices = words.devices_in_words(attempt["lease"])
    where = f"placed on {'the CPU' if devices == words.CPU_ONLY else devices}"
    end = words.ending(attempt)
    if ran := words.ran(attempt, on):
        end += f" after {ran}"
    lines = [
        f"{where}: {attempt['rule']}" if attempt.get("rule") else where,
        f"{end}: {attempt['why']}" if attempt["why"] else end,
    ]
    took = words.gpu_use(attempt)
    return [*lines, f"cost: {', '.join(took)}"] if took else lines


VERBS = [
    Verb(
        "why",
        "Say why a job waits and when it will start, or how it ended.",
        run,
        words="[JOBS ...]",
        most=None,
        options=(
            Option("verbose", "what each GPU is to the job; where it ran, and why", short="v"),
            JSON,
        ),
        about="""\
Without JOBS: the last submitted one. When a job starts is an estimate: as if
nothing were submitted any more, and jobs ran for as long as earlier ones of the
same name have, or else to their --time-limit. It is said of the first 100 JOBS.
--verbose is for one job: while it waits, what each GPU is to it; once it has
run, for each try which GPUs it had and by which rule, how it ended, and what it
cost as far as somebody could look.""",
        examples=("gpuctl why 42", "gpuctl why 42 --verbose", "gpuctl why state:queued"),
    ),
]

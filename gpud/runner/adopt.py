"""After the death of another runner: its journal is read, and what still lives is gone on with.

Called by main.py before anybody may connect. Nothing in a journal is ever started again.
"""

import os
from functools import partial
from math import inf

from gpud.runner import VERSION
from gpud.runner.attempt import Attempt
from gpud.runner.ending import Endings
from gpud.runner.ledger import Ledger
from gpud.runner.loop import guard
from gpud.runner.machine import BOOT_ID, lock_file, log, read
from gpud.runner.wire import decode, encode, seconds, whole


def take_journals(state_dir: str, endings: Endings) -> None:
    """Those whose runners are dead. Raises OSError when ours cannot be written."""
    ledger = endings.ledger
    taken = []
    for name in sorted(os.listdir(state_dir)):
        version = name.removeprefix("runner-").removesuffix(".journal")
        if name != f"runner-{version}.journal" or not version.isdigit():
            continue
        if int(version) != VERSION:
            if lock_file(f"{state_dir}/runner-{version}.lock") is None:
                continue
            taken.append(f"{state_dir}/{name}")
        recall_all(ledger, f"{state_dir}/{name}")
    ledger.rewrite()
    for path in taken:
        os.unlink(path)
    for a in list(ledger.live.values()):
        guard(partial(adopt, endings, a))
    ledger.flush()


def recall_all(ledger: Ledger, path: str) -> None:
    *lines, _ = read(path).split(b"\n")  # without a newline, the last one was not written whole
    for number, line in enumerate(lines, 1):
        try:
            recall(ledger, line)
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            log(f"cannot use line {number} of {path}: {e!r}")


def recall(ledger: Ledger, line: bytes) -> None:
    m = decode(line)
    ev = m["ev"]
    if ev == "forgotten":
        for job, attempt in m["attempts"]:
            ledger.attempts.pop((job, attempt), None)
        return
    key = whole(m["job"]), whole(m["attempt"])
    if ev == "starting" or (ev == "not-started" and key not in ledger.attempts):
        ledger.attempts[key] = ledger.live[key] = Attempt(m)
    a = ledger.attempts[key]
    match ev:
        case "started":
            a.started = line + b"\n"
            a.pid, a.members = m["pid"], {m["pid"]: m["ticks"]}
            a.clock_s, a.started_at_ms = m["clock_s"], m["at_ms"]
        case "limit":
            a.time_limit_s = seconds(m["time_limit_s"])
        case "stopping":
            a.stopped, a.grace_s, a.term_at = True, seconds(m["grace_s"]), inf
        case "checkpointing":
            a.stopped, a.grace_s = True, seconds(m["grace_s"])
            a.term_at = min(a.term_at, m["clock_s"] + a.grace_s)
        case "paused":
            a.paused_at = m["clock_s"]
        case "continued" if a.paused_at is not None:
            a.paused_s += m["clock_s"] - a.paused_at
            a.paused_at = None
        case "exited":
            a.exit, a.rusage = encode(m["exit"]), encode(m["rusage"])
        case "ended" | "not-started":
            a.phase, a.end = ev, line + b"\n"
            del ledger.live[key]
    a.lines.append(line + b"\n")


def adopt(endings: Endings, a: Attempt) -> None:
    a.adopted = True
    if a.boot_id != BOOT_ID:
        a.exit, a.group = a.exit or encode({"lost": "the machine was restarted"}), None
        endings.end(a)
        return
    asked_to_save = a.term_at != inf
    a.phase = "checkpointing" if asked_to_save else "running"
    if a.pid is None:
        a.why_lost = "the runner died while starting it"
    endings.settle_adopted(a)
    if not a.end:
        endings.arm(a)
        if asked_to_save:
            endings.go_on(a)
        elif a.stopped:
            endings.terminate(a, a.grace_s)
        elif a.paused_at is not None:
            endings.pause(a)

"""What people call it: the parts of a job, an attempt and an event in words and colours.

Used by the verbs that show jobs. Takes the shapes of gpud/protocol/replies.py as plain values;
pure but for the clock of the `Screen`.
"""

from __future__ import annotations

from gpud.client.wire import from_text
from gpud.ctl.render import Screen, clock, duration
from gpud.signals import signal_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

COLOUR_OF = {
    "running": "green", "starting": "green", "stopping": "yellow", "held": "yellow",
    "succeeded": "", "failed": "red", "killed": "red", "timed-out": "red", "lost": "red",
    "not-started": "red", "cancelled": "dim",
}  # fmt: skip
CPU_ONLY = "CPU only"
BAD = ("failed", "killed", "timed-out", "not-started", "lost")


def state(job: dict[str, Any]) -> str:
    """The one word for where a job is: its outcome, its phase, or its state."""
    return str(job["outcome"] or job["phase"] or job["state"])


def state_cell(job: dict[str, Any]) -> tuple[str, str]:
    word = state(job)
    return word, COLOUR_OF.get(word, "")


def exit_cell(job: dict[str, Any]) -> tuple[str, str]:
    """The exit status where it is not 0, or the signal: `1`, `SIGKILL`."""
    if job["signal"] is not None:
        return signal_name(job["signal"]), "red"
    code = job["exit_code"]
    return (str(code), "red") if code else ("", "")


def ending(job: dict[str, Any]) -> str:
    """How it ended, as a clause: `failed with exit status 1`, `killed by SIGKILL`."""
    word = str(job["outcome"])
    if job["signal"] is not None:
        by = f"by {signal_name(job['signal'])}"
        word = f"{word} {by}" if word == "killed" else f"{word} ({by})"
    elif job["exit_code"]:
        code = f"exit status {job['exit_code']}"
        word = f"{word} with {code}" if word == "failed" else f"{word} ({code})"
    return word


def devices(lease: Iterable[str]) -> str:
    """The leased devices: `0`, `0,1`, `cpu`."""
    return ",".join([device(_share(part)[0]) for part in lease])


def device(key: str) -> str:
    """A UUID as far as it tells GPUs apart: "GPU-8f6a1b2c"."""
    return key[:12] if key.startswith(("GPU-", "MIG-")) else key


def devices_in_words(lease: Iterable[str]) -> str:
    """`GPU 0`, `1/2 of GPU 1`, `GPU 0 and GPU 1`, `CPU only`."""
    named = []
    for part in lease:
        key, milli = _share(part)
        key = device(key)
        if key == "cpu":
            named.append(CPU_ONLY)
        elif milli == 1000:
            named.append(f"GPU {key}")
        else:
            share = f"1/{1000 // milli}" if milli and 1000 % milli < 10 else f"{milli / 10:g} %"
            named.append(f"{share} of GPU {key}")
    return " and ".join(named)


def _share(part: str) -> tuple[str, int]:
    key, colon, milli = part.rpartition(":")
    return (key, int(milli)) if colon and milli.isdecimal() else (part, 1000)


def ran(job: dict[str, Any], on: Screen) -> str:
    """How long its last attempt ran, or has run; "" when it never started."""
    start = job["started_at_ms"]
    if not start:
        return ""
    return duration(((job["ended_at_ms"] or on.now_ms) - start) / 1000)


def waited(job: dict[str, Any], on: Screen) -> str:
    return duration((on.now_ms - job["submitted_at_ms"]) / 1000)


def asked(job: dict[str, Any]) -> str:
    """What a job asks of the GPUs: "2, 12 GiB each, A100"; "" for one slot of any."""
    parts = []
    if job["gpus"] is not None:
        parts.append(f"{job['gpus']:g}")
    if job.get("vram_mib"):
        vram = job["vram_mib"]
        parts.append("as much memory as usual" if vram == "auto" else f"{size(vram)} of memory")
    if job.get("gpu_model"):
        parts.append(job["gpu_model"])
    if job.get("exclusive"):
        parts.append("to itself")
    return ", ".join(parts)


def size(mib: int) -> str:
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib} MiB"


def energy(joules: float) -> str:
    """ "0.35 kWh", "12 Wh", "340 J"."""
    if joules < 3600:
        return f"{joules:.0f} J"
    return f"{joules / 3600:.0f} Wh" if joules < 3.6e6 else f"{joules / 3.6e6:.2f} kWh"


def command(job: dict[str, Any]) -> str:
    return from_text(job["command"])


def plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def ids(jobs: Iterable[int]) -> str:
    """`3-9, 12` for the ids in ascending order."""
    return ", ".join(spans(jobs))


def spans(jobs: Iterable[int]) -> list[str]:
    """The ids as few selectors: runs of three and more as ranges."""
    runs: list[list[int]] = []
    for job in sorted(set(jobs)):
        if runs and runs[-1][1] == job - 1:
            runs[-1][1] = job
        else:
            runs.append([job, job])
    return [
        part
        for low, high in runs
        for part in ([f"{low}-{high}"] if high > low + 1 else map(str, range(low, high + 1)))
    ]


def details(event: dict[str, Any]) -> str:
    """What an event says beyond its kind, on one line: `failed with exit status 1, again at
    09:08:36`. What only a newer gpud knows is `key=value`."""
    left = dict(event["detail"])
    told = []
    if left.get("outcome"):
        end = {key: left.pop(key, None) for key in ("outcome", "exit_code", "signal")}
        told.append(ending(end))
    for key, value in left.items():
        if value == "":
            continue
        say = TOLD.get(key)
        try:  # a newer gpud may mean something else by it
            told.append(say(value, event) if say else f"{key}={_value(value)}")
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, OSError):
            told.append(f"{key}={_value(value)}")
    return ", ".join(told)


def _leased(lease: dict[str, int], _: dict[str, Any]) -> str:
    parts = devices_in_words([f"{key}:{milli}" for key, milli in lease.items()])
    return parts if parts == CPU_ONLY else f"on {parts}"


def _again(at_ms: int, event: dict[str, Any]) -> str:
    """Without the date, where it is that of the event."""
    date, time = clock(at_ms).split()
    return f"again at {time if clock(event['at_ms']).startswith(date) else f'{date} {time}'}"


TOLD: dict[str, Callable[[Any, dict[str, Any]], str]] = {
    "exit_code": lambda value, _: f"exit status {value}",
    "signal": lambda value, _: signal_name(value),
    "why": lambda value, _: from_text(value),
    "lease": _leased,
    "retry_at_ms": _again,
    "pid": lambda value, _: f"pid {value}",
    "processes": lambda value, _: ", ".join(value),
    "grace_s": lambda value, _: f"grace {duration(value)}",
    "source": lambda value, _: str(value),
    "gpu": lambda value, _: device(value),
    "rule": lambda value, _: str(value),
    "program": lambda value, _: str(value),
    "on": lambda value, _: f"uses {device(value)}",
    "assigned": lambda value, _: f"was given {', '.join(map(device, value))}",
    "owner": lambda value, _: str(value),
    "idle_s": lambda value, _: f"for {duration(value)}",
    "more": lambda value, _: f"the next try gets {value}",
}


def _value(value: object) -> str:
    if isinstance(value, dict) and set(value) == {"b64"}:
        value = from_text(value)
    if isinstance(value, str):
        return value if value and " " not in value else f'"{value}"'
    if isinstance(value, (list, tuple)):
        return ",".join([_value(item) for item in value])
    from gpud.ctl.render import json_text

    return json_text(value)

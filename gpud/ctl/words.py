"""What people call it: the parts of a job, an attempt and a device in words and colours.

Used by the verbs that show jobs. Takes the shapes of gpud/protocol/replies.py as plain values;
pure but for the clock of the `Screen`. What happened is in story.py.
"""

from __future__ import annotations

from gpud.amounts import format_priority
from gpud.client.wire import from_text
from gpud.ctl.render import Screen, duration
from gpud.signals import signal_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

COLOUR_OF = {
    "running": "green", "starting": "green", "stopping": "yellow", "held": "yellow",
    "finishing": "yellow", "paused": "yellow",
    "succeeded": "", "failed": "red", "killed": "red", "timed-out": "red", "lost": "red",
    "not-started": "red", "cancelled": "dim",
}  # fmt: skip
ORDER = ("active", "queued", "held", "succeeded", *("failed", "killed", "timed-out"),
         *("not-started", "lost", "cancelled"))  # fmt: skip
CPU_ONLY = "CPU only"
UUIDS = ("GPU-", "MIG-")  # how they begin
BAD = ("failed", "killed", "timed-out", "not-started", "lost")


def priority(number: int) -> str:
    """ "" for the usual one."""
    return format_priority(number) if number else ""


def job_id(job: dict[str, Any], key: str = "id") -> str:
    """`42`; of elements of an array `42[7]`, `42[8-99]`."""
    return f"{job['array']}[{job['indices']}]" if job.get("array") else str(job[key])


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


def lease_of(job: dict[str, Any]) -> Sequence[str]:
    """Where it is, or was to its end. A job that waits for a retry is on no GPU, though the one of
    its last attempt is known."""
    found: Sequence[str] = job["lease"]
    return found if job["state"] in ("active", "done") else ()


def devices(lease: Iterable[str]) -> str:
    """The leased devices: `0`, `0,1`, `cpu`."""
    return ",".join([device(_share(part)[0]) for part in lease])


def device(key: str) -> str:
    """A UUID as far as it tells GPUs apart, "GPU-8f6a1b2c"; of a group each of them."""
    return ",".join([one[:12] if one.startswith(UUIDS) else one for one in key.split(",")])


def gpu(name: str) -> str:
    """A device in a sentence: "GPU 0", but "GPU-8f6a1b2c"."""
    return name if name.startswith(UUIDS) else f"GPU {name}"


def devices_in_words(lease: Iterable[str]) -> str:
    """`GPU 0`, `1/2 of GPU 1`, `GPUs 0, 1 and 2`, `CPU only`."""
    parts = [_share(part) for part in lease]
    if len(parts) > 1 and all(_is_whole_and_numbered(*part) for part in parts):
        return f"GPUs {listed([key for key, _ in parts])}"
    named = []
    for key, milli in parts:
        if key == "cpu":
            named.append(CPU_ONLY)
        elif milli == 1000:
            named.append(gpu(device(key)))
        else:
            share = f"1/{1000 // milli}" if milli and 1000 % milli < 10 else f"{milli / 10:g} %"
            named.append(f"{share} of {gpu(device(key))}")
    return listed(named)


def _is_whole_and_numbered(key: str, milli: int) -> bool:
    return milli == 1000 and key != "cpu" and not key.startswith(UUIDS)


def listed(named: Sequence[str]) -> str:
    """`0`, `0 and 1`, `0, 1 and 2`."""
    return " and ".join(filter(None, (", ".join(named[:-1]), *named[-1:])))


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
    """What a job asks of the GPUs: "2, 12 GiB of memory, A100"; "" for one slot of any."""
    parts = []
    if job["gpus"] is not None or job.get("exclusive"):
        number = 1 if job["gpus"] is None else job["gpus"]
        parts.append(f"{number:g}" if number else "none")
    if job.get("vram_mib"):
        vram = job["vram_mib"]
        parts.append("as much memory as usual" if vram == "auto" else f"{size(vram)} of memory")
    if job.get("gpu_model"):
        parts.append(job["gpu_model"])
    if job.get("exclusive"):
        parts.append("to itself")
    return ", ".join(parts)


def gpu_use(attempt: dict[str, Any]) -> list[str]:
    """What it took of its GPUs, as far as somebody could look: ["11.2 GiB GPU memory", …]."""
    told = []
    if attempt.get("peak_vram_mib"):
        told.append(f"{size(attempt['peak_vram_mib'])} GPU memory")
    if attempt.get("gpu_util") is not None:
        told.append(f"GPU at {attempt['gpu_util']} %")
    if attempt.get("energy_j"):
        told.append(energy(attempt["energy_j"]))
    return told


def size(mib: int) -> str:
    """ "512 MiB", "12 GiB", "1.5 TiB"."""
    from gpud.amounts import format_size  # few verbs tell it

    return format_size(mib)


def energy(joules: float) -> str:
    """ "340 J", "9.8 Wh", "1.25 kWh"."""
    from gpud.amounts import format_energy

    return format_energy(joules)


def command(job: dict[str, Any]) -> str:
    return from_text(job["command"])


def each_id(job: dict[str, Any]) -> Iterable[int]:
    """Of one job, or of all elements that a line of `ls` is about."""
    if not job.get("ids"):
        return (int(job["id"]),)
    return (n for first, last in job["ids"] for n in range(first, last + 1))


def plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def ids(jobs: Iterable[int]) -> str:
    """`3-9, 12` for the ids in ascending order."""
    return ", ".join(spans(jobs))


def runs(jobs: Iterable[int]) -> list[list[int]]:
    """Of ids that follow one another the first and the last."""
    found: list[list[int]] = []
    for job in sorted(set(jobs)):
        if found and found[-1][1] == job - 1:
            found[-1][1] = job
        else:
            found.append([job, job])
    return found


def spans(jobs: Iterable[int]) -> list[str]:
    """The ids for people: runs of three and more as ranges."""
    return [
        part
        for low, high in runs(jobs)
        for part in ([f"{low}-{high}"] if high > low + 1 else map(str, range(low, high + 1)))
    ]

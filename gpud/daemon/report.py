"""What `gpud run` says in words: start and end lines, progress, and the table at the end. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from gpud.amounts import format_energy, format_size
from gpud.config.asking import AUTO
from gpud.config.requests import asked_of
from gpud.config.units import format_duration
from gpud.core.model import JobSpec, Outcome
from gpud.protocol.replies import JobView
from gpud.protocol.text import own_bytes
from gpud.signals import signal_name as signal_name

UUIDS = ("GPU-", "MIG-")  # how they begin
WIDEST_GPUS = 15  # characters: 0,1,2,3,4,5,6,7
ALWAYS = 4  # columns; the others only when any job has something there
MOST_ROWS = 40  # of the table at the end; of a longer run only what did not succeed


def shown(command: bytes, width: int) -> str:
    """A command on one line, at most `width` characters, control characters made visible."""
    text = command.decode(errors="backslashreplace")
    if not text.isprintable():
        text = "".join(c if c.isprintable() else ("⏎" if c == "\n" else "?") for c in text)
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def entry(spec: JobSpec) -> bytes:
    """A job as an entry of a queue file or of standard input."""
    options = []
    if spec.name:
        options.append(f"name={shlex.quote(spec.name)}")
    gpus, vram, model, exclusive = asked_of(spec.request)
    if gpus is not None:
        options.append(f"gpus={gpus:g}")
    if vram:
        options.append(f"vram={vram}" + ("M" if vram != AUTO else ""))
    if model:
        options.append(f"gpu-model={shlex.quote(model)}")
    if exclusive:
        options.append("exclusive=yes")
    if spec.element:
        options.append(f"array={spec.element.index}")
    if spec.group:
        options.append(f"group={spec.group}")
    options += [f"label={label}" for label in spec.labels]
    if spec.priority:
        options.append(f"priority={spec.priority}")
    if spec.checkpoint:
        options.append(f"checkpoint={spec.checkpoint}")
    line = f"#gpud: {' '.join(options)}\n".encode() if options else b""
    return line + spec.command + b"\n"


def how(view: JobView) -> str:
    """The end of a job in a word or two: "failed 3", "killed SIGKILL"."""
    if view.outcome == Outcome.FAILED:
        return f"failed {view.exit_code}"
    if view.outcome == Outcome.KILLED and view.signal:
        return f"killed {signal_name(view.signal)}"
    return view.outcome or "not run"


def progress(done: int, running: int, failed: int, left: int, eta_s: float | None) -> str:
    line = f"{done} done ({failed} failed), {running} running, {left} left"
    return line if eta_s is None else f"{line}, about {format_duration(round(eta_s))} to go"


def table(views: Sequence[JobView], width: int) -> list[str]:
    """A row per job, in id order, with the reason below where there is one."""
    rows = sorted(views, key=lambda v: v.id)
    cells = [("id", "end", "gpu", "took", "util", "memory", "energy")]
    cells += [
        (str(v.id), how(v), where(v.lease), took(v), util(v), memory(v), energy(v)) for v in rows
    ]
    count = len(cells[0])
    shown_columns = [
        i for i in range(count) if i < ALWAYS or any(row[i] != "-" for row in cells[1:])
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(count)]
    lines = []
    for row, view in zip(cells, [None, *rows], strict=True):
        padded = [
            f"{row[i]:<{widths[i]}}" if i in (1, 2) else f"{row[i]:>{widths[i]}}"
            for i in shown_columns
        ]
        command = b"command" if view is None else own_bytes(view.command)
        lines.append(shown("  ".join([*padded, ""]).encode() + command, width).rstrip())
        if view is not None and view.why:
            lines.append(" " * (widths[0] + 2) + view.why)
    return lines


def where(lease: Sequence[str]) -> str:
    """The GPUs of a lease, without the shares: "0,1"; of a UUID its beginning. At most 15 wide."""
    names = ",".join(part.partition(":")[0] for part in lease).split(",")
    names = [name[:12] if name.startswith(UUIDS) else name for name in names]
    return shown(",".join(names).encode(), WIDEST_GPUS) or "-"


def counts(outcomes: Mapping[str, int], waiting: int) -> str:
    """ "5 jobs: 3 succeeded, 1 failed, 1 not run"."""
    parts = [f"{outcomes[word]} {word}" for word in Outcome if outcomes.get(word)]
    if waiting:
        parts.append(f"{waiting} not run")
    total = sum(outcomes.values()) + waiting
    jobs = "1 job" if total == 1 else f"{total} jobs"
    return f"{jobs}: " + ", ".join(parts) if parts else "no jobs"


def seconds(value: float) -> str:
    return f"{value:.1f}s" if value < 60 else format_duration(round(value))


def util(view: JobView) -> str:
    """How busy its GPUs were, in the mean."""
    return "-" if view.gpu_util is None else f"{view.gpu_util}%"


def memory(view: JobView) -> str:
    """The most that it had of a GPU's."""
    return format_size(view.peak_vram_mib) if view.peak_vram_mib else "-"


def energy(view: JobView) -> str:
    """What its GPUs took."""
    return "-" if view.energy_j is None else format_energy(view.energy_j)


def took(view: JobView) -> str:
    if not view.started_at_ms or not view.ended_at_ms:
        return "-"
    ms = view.ended_at_ms - view.started_at_ms
    return seconds(ms / 1000)

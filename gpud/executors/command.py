"""From a committed start to what the runner executes: argument list and environment. Pure.

Called by executors/runner.py. Everything is bytes until it goes on the wire.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpud.core.indices import size
from gpud.core.model import Device, JobSpec
from gpud.protocol.text import Text, to_text

AMD = "amd"
# Linux refuses a single argument of 128 KiB and more, the NUL at its end counted
# (MAX_ARG_STRLEN, execve(2)).
MAX_ARGUMENT_BYTES = 128 * 1024 - 1


def shell_text(spec: JobSpec, attempt: int) -> bytes:
    """What the shell gets: setup line, command, and from the second attempt on the retry args.

    Retry args go to the end of the command, or of its first line where a here-document follows.
    """
    command = spec.command
    if attempt > 1 and spec.retry_args:
        first, newline, rest = command.partition(b"\n")
        if newline and b"<<" in first:
            command = first + b" " + spec.retry_args + newline + rest
        else:
            command = command + b" " + spec.retry_args
    return spec.setup + b"\n" + command if spec.setup else command


def argv_of(spec: JobSpec, attempt: int) -> list[bytes]:
    """The argument list. An exact one runs as it is; with a setup line or retry args, through the
    shell, which splits the retry args and passes the exact ones on untouched."""
    if spec.argv is None:
        return [*spec.shell, shell_text(spec, attempt)]
    extra = spec.retry_args if attempt > 1 else b""
    if not spec.setup and not extra:
        return list(spec.argv)
    line = b'exec "$@"' + (b" " + extra if extra else b"")
    text = spec.setup + b"\n" + line if spec.setup else line
    return [*spec.shell, text, b"gpud", *spec.argv]


def script_argv(spec: JobSpec, script: bytes) -> list[bytes]:
    """The same shell reading a file, for a command too long to be an argument: the `c` leaves the
    last option (`-lc` becomes `-l`, `-c` goes)."""
    *before, last = spec.shell
    rest = last.replace(b"c", b"")
    return [*before, script] if rest == b"-" else [*before, rest, script]


def environment(spec: JobSpec) -> list[Text]:
    """`K=V` for the wire: the environment that the job was submitted with."""
    if not spec.env:
        return []
    try:
        return [*spec.env.decode().split("\0")]
    except UnicodeDecodeError:
        return [*map(to_text, spec.env.split(b"\0"))]


def attempt_environment(
    spec: JobSpec, job: int, attempt: int, devices: Sequence[Device], *, resume: bool = False
) -> list[Text]:
    """`K=V` for the wire: what gpud tells this attempt. The table is in docs/gpus.md.

    AMD's HIP reads CUDA_VISIBLE_DEVICES as it does its own variable; ROCR_VISIBLE_DEVICES would
    renumber what these two name.
    """
    ids = ",".join([i for device in devices for i in device.ids])
    uuids = ",".join([uuid for device in devices for uuid in device.uuids])
    found: list[Text] = [
        f"CUDA_VISIBLE_DEVICES={ids}",
        f"GPUD_JOB_ID={job}",
        f"GPUD_ATTEMPT={attempt}",
    ]
    if resume:
        found.append("GPUD_RESUME=1")
    if spec.element is not None:
        first, index, array = spec.element.first, spec.element.index, spec.element.array
        found += [
            f"GPUD_ARRAY_ID={first}",
            f"GPUD_ARRAY_INDEX={index}",
            f"GPUD_ARRAY_SIZE={size(array.indices)}",
        ]
    if any(device.maker == AMD for device in devices):
        found.append(f"HIP_VISIBLE_DEVICES={ids or -1}")  # an empty one is no word to HIP
        return found
    found.append(f"NVIDIA_VISIBLE_DEVICES={ids or 'void'}")  # of the container toolkit
    if uuids:
        found.append(f"GPUD_GPU_UUIDS={uuids}")
    if b"\0CUDA_DEVICE_ORDER=" not in b"\0" + spec.env:
        found.append("CUDA_DEVICE_ORDER=PCI_BUS_ID")  # so that an index means what nvidia-smi says
    return found

"""Columns and the core's structs, both ways. Pure: no SQL here, and no I/O.

A structured column is JSON (bytes in it are base64, as msgspec writes them). Enums are stored by
value; the tables below are plain dictionaries, since sqlite3 binds a `str` four times as fast as
a subclass of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import msgspec
from msgspec import Struct

from gpud.core.model import (
    FULL_MILLI,
    Attempt,
    Job,
    JobSpec,
    JobState,
    LeasePart,
    Outcome,
    Phase,
    Request,
    RetryPolicy,
    Rusage,
    Usage,
)

OUTCOME = {outcome.value: outcome for outcome in Outcome}
PHASE = {phase.value: phase for phase in Phase}
VALUE: dict[str, str] = {m: m.value for m in (*JobState, *Outcome, *Phase)}


class Common(Struct, frozen=True, gc=False):
    """What the specs of one submit or source have in common: the content of a template."""

    shell: tuple[bytes, ...]
    setup: bytes
    cwd: bytes
    umask: int | None
    request: Request
    retry: RetryPolicy
    retry_args: bytes
    time_limit_s: float | None
    grace_s: float
    linger_s: float | None
    held: bool
    uid: int
    begin_ms: int = 0
    deadline_ms: int = 0
    checkpoint: int = 0
    group: str = ""
    labels: tuple[str, ...] = ()


class Amended(Struct, frozen=True, gc=False, omit_defaults=True):
    """What has become of a job beside its columns: `jobs.amended`."""

    request: Request | None = None  # instead of the template's
    setbacks: int = 0
    retry_args: bytes | None = None
    resume: bool = False
    held_by: str = ""


class OnGpu(Struct, frozen=True, gc=False, omit_defaults=True):
    """What looks at the GPUs have made of an attempt, and people beside: `attempts.on_gpu`."""

    usage: Usage | None = None
    oom: str = ""
    stop_why: str = ""
    leaving: bool = False
    paused_at_ms: int = 0
    paused_ms: int = 0


AS_SUBMITTED, NOTHING_SEEN = Amended(), OnGpu()

_common_fields = attrgetter(*Common.__struct_fields__)
_on_gpu_fields = attrgetter(*OnGpu.__struct_fields__)
_json = msgspec.json.Encoder()
_common = msgspec.json.Decoder(Common)
_argv = msgspec.json.Decoder(tuple[bytes, ...])
_rusage = msgspec.json.Decoder(Rusage)
_lease = msgspec.json.Decoder(dict[str, int | list[int | list[str]]])
_amended = msgspec.json.Decoder(Amended)
_on_gpu = msgspec.json.Decoder(OnGpu)
_on_gpus = msgspec.json.Decoder(list[OnGpu])
_detail = msgspec.json.Decoder(dict[str, object])


def common_of(spec: JobSpec) -> Common:
    """The fields of the same names."""
    return Common(*_common_fields(spec))


def encode(value: object) -> str:
    return _json.encode(value).decode()


def decode_common(column: str) -> Common:
    return _common.decode(column)


def encode_argv(argv: tuple[bytes, ...] | None) -> str | None:
    return None if argv is None else encode(argv)


def decode_argv(column: str | None) -> tuple[bytes, ...] | None:
    return None if column is None else _argv.decode(column)


def encode_rusage(rusage: Rusage | None) -> str | None:
    return None if rusage is None else encode(rusage)


def decode_rusage(column: str | None) -> Rusage | None:
    return None if column is None else _rusage.decode(column)


def encode_lease(lease: tuple[LeasePart, ...]) -> str:
    """{"device": thousandths or [thousandths, MiB, [UUIDs]], ...}: a device stands in a lease once;
    the list ends where nothing more is known."""
    return encode({part.device: _takes(part) for part in lease})


def _takes(part: LeasePart) -> object:
    if part.uuids:
        return part.milli, part.mib, part.uuids
    return (part.milli, part.mib) if part.mib else part.milli


def decode_lease(column: str) -> tuple[LeasePart, ...]:
    return tuple(_part(device, takes) for device, takes in _lease.decode(column).items())


def _part(device: str, takes: int | list[int | list[str]]) -> LeasePart:
    if isinstance(takes, int):
        return LeasePart(device, takes)
    milli, mib, *rest = takes
    return LeasePart(device, int(milli), int(mib), tuple(rest[0]) if rest else ())  # type: ignore


def encode_amended(job: Job) -> str | None:
    amended = job.grown or job.setbacks or job.resume or job.held_by
    if not amended and job.retry_args is None:
        return None
    request = job.request if job.grown else None
    return encode(Amended(request, job.setbacks, job.retry_args, job.resume, job.held_by))


def decode_amended(column: str | None) -> Amended:
    return AS_SUBMITTED if column is None else _amended.decode(column)


def encode_on_gpu(attempt: Attempt) -> str | None:
    seen = attempt.usage is not None or attempt.oom or attempt.paused_at_ms or attempt.paused_ms
    if not seen and not attempt.stop_why and not attempt.leaving:
        return None
    return encode(OnGpu(*_on_gpu_fields(attempt)))


def decode_on_gpu(column: str | None) -> OnGpu:
    return NOTHING_SEEN if column is None else _on_gpu.decode(column)


def encode_detail(detail: dict[str, object]) -> str:
    return encode(detail) if detail else ""


def decode_detail(column: str) -> dict[str, object]:
    return _detail.decode(column) if column else {}


def decode_on_gpus(column: str | None) -> list[OnGpu]:
    return [] if column is None else _on_gpus.decode(column)


def env_names(env: bytes) -> tuple[bytes, ...]:
    """The names of an environment: its values are for the job alone."""
    return tuple(pair.partition(b"=")[0] for pair in env.split(b"\0") if pair)


def show_lease(lease: Sequence[LeasePart]) -> tuple[str, ...]:
    return tuple(
        part.device if part.milli == FULL_MILLI else f"{part.device}:{part.milli}" for part in lease
    )

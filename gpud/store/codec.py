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
    JobSpec,
    JobState,
    LeasePart,
    Outcome,
    Phase,
    Request,
    RetryPolicy,
    Rusage,
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


_common_fields = attrgetter(*Common.__struct_fields__)
_json = msgspec.json.Encoder()
_common = msgspec.json.Decoder(Common)
_argv = msgspec.json.Decoder(tuple[bytes, ...])
_rusage = msgspec.json.Decoder(Rusage)
_lease = msgspec.json.Decoder(dict[str, int])
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
    """{"device": thousandths, ...}: a device stands in a lease once."""
    return encode({part.device: part.milli for part in lease})


def decode_lease(column: str) -> tuple[LeasePart, ...]:
    return tuple(LeasePart(device, milli) for device, milli in _lease.decode(column).items())


def encode_detail(detail: dict[str, object]) -> str:
    return encode(detail) if detail else ""


def decode_detail(column: str) -> dict[str, object]:
    return _detail.decode(column) if column else {}


def env_names(env: bytes) -> tuple[bytes, ...]:
    """The names of an environment: its values are for the job alone."""
    return tuple(pair.partition(b"=")[0] for pair in env.split(b"\0") if pair)


def show_lease(lease: Sequence[LeasePart]) -> tuple[str, ...]:
    return tuple(
        part.device if part.milli == FULL_MILLI else f"{part.device}:{part.milli}" for part in lease
    )

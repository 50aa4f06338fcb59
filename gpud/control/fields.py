"""What a client wrote about a job, laid over what is known already: JobFields over a JobSpec.

Called by control/jobs.py, twice for each job: a submit's `common` over the daemon's defaults, and
each job over that. `env` replaces the environment, `env_add` adds to it. Raises GpudError whose
message is only the reason ("the working directory must be absolute"): the caller knows which job
it is about. Pure.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

from msgspec import UNSET, structs

from gpud.amounts import URGENT
from gpud.config.arrays import MOST, read_array
from gpud.config.asking import read_checkpoint
from gpud.config.belonging import labels_of, read_group
from gpud.config.limits import (
    LAST_MS,
    LONGEST_S,
    MOST_PRIORITY,
    MOST_RETRIES,
    wrong_with_name,
)
from gpud.config.requests import (
    asked_of,
    backoff_of,
    request_of,
    retry_on,
    with_likeness,
)
from gpud.core.model import Array, JobSpec, Request, RetryPolicy
from gpud.errors import GpudError
from gpud.protocol.requests import JobFields
from gpud.protocol.text import Text, to_bytes

# An environment as it was, and what the client wrote: to the blob they make.
Environments = dict[tuple[bytes, object, object], bytes]


def lay_over(base: JobSpec, fields: JobFields, environments: Environments) -> JobSpec:
    """`base` with what `fields` say. `environments` lets equal ones be one object."""
    changes: dict[str, Any] = {}
    for name, read in _READERS.items():
        value = getattr(fields, name)
        if value is not UNSET:
            changes[name] = read(value)
    if fields.command is not UNSET:
        if fields.argv is not UNSET:
            raise GpudError("both command and argv are given")
        command = text_of(fields.command, "the command")
        if not command.strip():
            raise GpudError("the command is empty")
        changes["command"], changes["argv"] = command, None
    elif fields.argv is not UNSET:
        argv = tuple(text_of(word, "argv") for word in fields.argv)
        if not argv or not argv[0]:
            raise GpudError("argv names no program")
        changes["command"], changes["argv"] = _quoted(argv), argv
    if fields.labels is not UNSET:
        changes["labels"] = labels_of(fields.labels, base.labels)
    if fields.env is not UNSET or fields.env_add is not UNSET:
        changes["env"] = _environment(base.env, fields, environments)
    if not (fields.gpus is fields.vram_mib is fields.gpu_model is fields.exclusive is UNSET):
        changes["request"] = _request(base.request, fields)
    if not (fields.retries is fields.backoff_s is fields.backoff_max_s is UNSET):
        changes["retry"] = _retry(
            base.retry,
            None if fields.retries is UNSET else _count(fields.retries, "retries", MOST_RETRIES),
            _pause(fields.backoff_s, "backoff_s"),
            _pause(fields.backoff_max_s, "backoff_max_s"),
        )
    if not (fields.array is fields.max_fails is UNSET):
        changes["array"] = _array(base.array, fields)
    if fields.retry_on is not UNSET:
        changes["retry"] = retry_on(changes.get("retry", base.retry), fields.retry_on)
    return with_likeness(structs.replace(base, **changes))


def text_of(value: Text, what: str) -> bytes:
    try:
        return to_bytes(value)
    except GpudError as error:
        why = "contains a NUL byte" if error.kind == "refused" else "is not a valid text"
        raise GpudError(f"{what} {why}") from error


def _quoted(argv: tuple[bytes, ...]) -> bytes:
    words = (word.decode("utf-8", "surrogateescape") for word in argv)
    return shlex.join(words).encode("utf-8", "surrogateescape")


def _environment(base: bytes, fields: JobFields, environments: Environments) -> bytes:
    key = (base, fields.env, fields.env_add)
    known = environments.get(key)
    if known is None:
        blob = base
        if fields.env is not UNSET:
            blob = b"\0".join(_assignments(fields.env, "env"))
        if fields.env_add is not UNSET:
            pairs = blob.split(b"\0") if blob else []
            pairs += _assignments(fields.env_add, "env_add")
            blob = b"\0".join({pair.partition(b"=")[0]: pair for pair in pairs}.values())
        known = environments[key] = blob
    return known


def _assignments(pairs: tuple[Text, ...], what: str) -> list[bytes]:
    # What is wrong is not shown: values may be secrets.
    found = [text_of(pair, f"entry {n} of {what}") for n, pair in enumerate(pairs, 1)]
    for n, pair in enumerate(found, 1):
        if pair.find(b"=") < 1:
            raise GpudError(f"entry {n} of {what} is not NAME=VALUE")
    return found


def _request(base: Request, fields: JobFields) -> Request:
    gpus, vram, model, exclusive = asked_of(base)
    return request_of(
        gpus if fields.gpus is UNSET else fields.gpus,
        vram if fields.vram_mib is UNSET else fields.vram_mib,
        model if fields.gpu_model is UNSET else fields.gpu_model,
        exclusive if fields.exclusive is UNSET else fields.exclusive,
    )


@lru_cache(maxsize=256)
def _retry(
    base: RetryPolicy, retries: int | None, first_s: float | None, longest_s: float | None
) -> RetryPolicy:
    policy = backoff_of(base, first_s, longest_s)
    return policy if retries is None else structs.replace(policy, retries=retries)


def _count(value: int, what: str, most: int) -> int:
    if not 0 <= value <= most:
        raise GpudError(f"{what} must be from 0 to {most}")
    return value


def seconds(value: float, what: str) -> float:
    """`value` as it is. Raises GpudError for what no timer takes."""
    if not 0 <= value <= LONGEST_S:  # false for NaN too
        raise GpudError(f"{what} must be from 0 to {LONGEST_S:.0f} seconds")
    return value


def _pause(value: Any, what: str) -> float | None:
    return None if value is UNSET else seconds(value, what)


def _limit(value: float | None) -> float | None:
    if value is not None and not seconds(value, "time_limit_s"):
        raise GpudError("time_limit_s must be more than 0")
    return value


def _array(base: Array | None, fields: JobFields) -> Array:
    array = base
    if fields.array is not UNSET:
        try:
            indices, at_most = read_array(fields.array)
        except GpudError as error:
            raise GpudError(f'array cannot be "{fields.array[:60]}": {error.message}') from error
        array = Array(indices, at_most, base.max_fails if base else 0)
    if array is None:
        raise GpudError("max_fails is for an array")
    if fields.max_fails is not UNSET:
        most = _count(fields.max_fails, "max_fails", MOST)
        array = structs.replace(array, max_fails=most)
    return array


def _moment(value: int, what: str) -> int:
    if not 0 <= value <= LAST_MS:
        raise GpudError(f"{what} must be from 0 to {LAST_MS}, in milliseconds since 1970")
    return value


def _linger(value: float | Literal["wait"]) -> float | None:
    return None if value == "wait" else seconds(value, "linger_s")


def _checkpoint(value: str | int) -> int:
    try:
        return read_checkpoint(str(value))
    except GpudError as error:
        raise GpudError(f"checkpoint: {error.message}") from error


def _directory(value: Text) -> bytes:
    directory = text_of(value, "the working directory")
    if not directory.startswith(b"/"):
        raise GpudError("the working directory must be absolute")
    return directory


def _shell(value: tuple[Text, ...]) -> tuple[bytes, ...]:
    words = tuple(text_of(word, "shell") for word in value)
    if not words or not words[0]:
        raise GpudError("shell names no program")
    return words


def _umask(value: int) -> int:
    if not 0 <= value <= 0o777:
        raise GpudError("umask must be from 0 to 511 (octal 777)")
    return value


def _name(value: str) -> str:
    if why := wrong_with_name(value):
        raise GpudError(f"the name cannot be used: {why}")
    return value


def _priority(value: int | str) -> int:
    if isinstance(value, str):
        return URGENT
    if abs(value) > MOST_PRIORITY:
        raise GpudError(f"priority must be from {-MOST_PRIORITY} to {MOST_PRIORITY}")
    return value


# The fields of the same name in JobFields and JobSpec that depend on nothing else.
_READERS: dict[str, Callable[[Any], Any]] = {
    "shell": _shell,
    "setup": lambda value: text_of(value, "setup"),
    "cwd": _directory,
    "umask": _umask,
    "name": _name,
    "priority": _priority,
    "retry_args": lambda value: text_of(value, "retry_args"),
    "time_limit_s": _limit,
    "begin_ms": lambda value: _moment(value, "begin_ms"),
    "deadline_ms": lambda value: _moment(value, "deadline_ms"),
    "grace_s": lambda value: seconds(value, "grace_s"),
    "linger_s": _linger,
    "checkpoint": _checkpoint,
    "held": bool,
    "group": lambda value: read_group(value) if value else "",
}

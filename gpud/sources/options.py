"""The options of an entry: the text after `#gpud:`, and what may stand there.

Owns the names, types and limits of the options; `KEYS` is what the docs list. Called by build.py
and by `gpuctl submit -` for entries that have any. It raises `GpudError` with a clause ("the
option "gpsu" …"), which build.py turns into a job that says so, and gpuctl into a refusal; it must
not look at defaults or at the entry's command. The values of variables may be secrets: no sentence
shows one, nor what may be a part of one. Standard library only: gpuctl starts fast.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Callable, Iterable
from typing import Literal, TypedDict, cast

from gpud.config.arrays import MOST, Runs, read_array
from gpud.config.asking import (
    read_backoff,
    read_checkpoint,
    read_gpu_model,
    read_gpus,
    read_priority,
    read_retry_on,
    read_vram,
)
from gpud.config.belonging import read_group, read_label
from gpud.config.limits import (
    LONGEST_S,
    MOST_RETRIES,
    wrong_with_name,
)
from gpud.config.moments import read_moment
from gpud.config.units import parse_duration_s
from gpud.errors import GpudError

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_ENV_SHOWN = re.compile(r"env\.[A-Za-z0-9_]*", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,10}", re.ASCII)
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Options(TypedDict, total=False):
    """What an entry says itself; what it does not say is not there: others decide."""

    name: str
    gpus: float
    vram: int | str  # MiB, or asking.AUTO
    gpu_model: str
    exclusive: bool
    retry_on: tuple[str | int, ...]
    priority: int
    retries: int
    backoff: tuple[float, float | None]  # the first pause and the longest
    backoff_max_s: float
    retry_args: bytes
    time_limit_s: float
    begin_ms: int
    deadline_ms: int
    grace_s: float
    linger_s: float | None  # None: wait
    checkpoint: int  # a signal; 0: none
    cwd: bytes
    held: bool
    array: tuple[Runs, int]  # and how many may run at a time
    max_fails: int
    group: str
    labels: dict[str, str]
    after: tuple[str, ...]  # selectors
    after_any: tuple[str, ...]
    after_failed: str
    env: dict[bytes, bytes]


def parse(lines: Iterable[tuple[int, bytes]], *, submit: bool = False) -> Options:
    """Merge option lines, each with its number: of the same option the last one counts. `submit`:
    with those that need the ids of other jobs, which the author of a file does not know.

    Raises `OptionError`.
    """
    found: dict[str, object] = {}
    keys = KEYS | OF_SUBMIT if submit else KEYS
    for number, raw in lines:
        try:
            _parse_line(os.fsdecode(raw), found, keys)
        except GpudError as error:
            raise OptionError(number, error.message) from error
    return cast(Options, found)


class OptionError(GpudError):
    """`line` has its number, `why` is a clause that does not."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"on line {line} {why}")
        self.line, self.why = line, why


def _parse_line(text: str, found: dict[str, object], keys: Keys) -> None:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise GpudError(f"the options cannot be read ({str(error).lower()})") from error
    variable = ""  # the one that stands before this word
    for word in words:
        key, equals, value = word.partition("=")
        if key.startswith("env."):
            variable = _variable(key, equals, value, found)
            continue
        name = key.replace("_", "-")
        if name not in keys and variable:
            raise GpudError(
                f"what stands behind {variable} is no option: a value with blanks needs quotes"
            )
        if name not in keys:
            if name in OF_SUBMIT:
                raise GpudError(f'the option "{name}" is one of gpuctl submit alone')
            raise GpudError(f'the option "{_shown(key)}" is not known{_nearest(name)}')
        if not equals:
            raise GpudError(f'the option "{_shown(key)}" has no value ({_shown(key)}=…)')
        field, read = keys[name]
        try:
            if field == "labels":  # they add up
                labels = cast("dict[str, str]", found.setdefault(field, {}))
                labels.update([read_label(value)])
                continue
            found[field] = read(value)
        except GpudError as error:
            raise GpudError(
                f'the option "{_shown(key)}" cannot be "{_shown(value)}": {error.message}'
            ) from error


def _variable(key: str, equals: str, value: str, options: dict[str, object]) -> str:
    """Set it. The result is what may be shown of it: `env.TOKEN:hunter2` has no "="."""
    found = _ENV_SHOWN.match(key)
    shown = found[0] if found else "env."
    whole = shown == key
    shown = _shown(shown) if whole else _shown(shown) + "…"
    if not _ENV_NAME.fullmatch(key[4:]):
        raise GpudError(
            f'the option "{shown}" cannot be used: a variable\'s name has letters, digits and _'
        )
    if not equals:
        raise GpudError(f'the option "{shown}" has no value ({shown}=…)')
    if "\0" in value:
        raise GpudError(f'the option "{shown}" cannot be used: it contains a NUL byte')
    env = cast("dict[bytes, bytes]", options.setdefault("env", {}))
    env[key[4:].encode()] = os.fsencode(value)
    return shown


def _nearest(key: str) -> str:
    import difflib

    known = [*KEYS, "env.NAME"]
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if close:
        return f'; the nearest is "{close[0]}"'
    return f"; there are {', '.join(known)}"


def _shown(text: str) -> str:
    """Something that can be printed and sent as JSON, and is not endless."""
    short = text if len(text) <= 80 else text[:79] + "…"
    clean = os.fsencode(short).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in clean)


# -- the types ---------------------------------------------------------------------------------


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not _WHOLE.fullmatch(text) or not low <= int(text) <= high:
            raise GpudError(f"it takes a whole number from {low} to {high}")
        return int(text)

    return read


def _duration(text: str) -> float:
    try:
        seconds = parse_duration_s(text)
    except GpudError as error:
        raise GpudError(f"it takes a duration; {error.hint}") from error
    if seconds > LONGEST_S:
        raise GpudError("it is longer than ten years")
    return seconds


def _backoff(text: str) -> tuple[float, float | None]:
    try:
        return read_backoff(text)
    except GpudError as error:
        why = error.hint and f"it takes a duration, or two: 30s..10m; {error.hint}"
        raise GpudError(why or error.message) from error


def _jobs(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise GpudError(f"it takes {' or '.join(words)}")
        return text

    return read


def _some_duration(text: str) -> float:
    seconds = _duration(text)
    if seconds <= 0:
        raise GpudError("it must be more than nothing")
    return seconds


def _moment(text: str) -> int:
    return read_moment(text, time.time())


def _linger(text: str) -> float | None:
    return None if text == "wait" else _duration(text)


def _truth(text: str) -> bool:
    try:
        return _TRUTH[text.lower()]
    except KeyError:
        raise GpudError("it takes yes or no") from None


def _name(text: str) -> str:
    why = wrong_with_name(text) if text else "it takes a name"
    if why:
        raise GpudError(why)
    return text


def _bytes(text: str) -> bytes:
    raw = os.fsencode(text)
    if b"\0" in raw:
        raise GpudError("it contains a NUL byte")
    return raw


def _directory(text: str) -> bytes:
    if not text:
        raise GpudError("it takes a directory")
    return _bytes(text)


Field = Literal[
    "name",
    "gpus",
    "vram",
    "gpu_model",
    "exclusive",
    "priority",
    "retries",
    "retry_on",
    "backoff",
    "backoff_max_s",
    "retry_args",
    "time_limit_s",
    "begin_ms",
    "deadline_ms",
    "grace_s",
    "linger_s",
    "checkpoint",
    "cwd",
    "held",
    "array",
    "max_fails",
    "group",
    "labels",
    "after",
    "after_any",
    "after_failed",
]
Keys = dict[str, tuple[Field, Callable[[str], object]]]

# option -> field of `Options`, and what reads its value
KEYS: Keys = {
    "name": ("name", _name),
    "gpus": ("gpus", read_gpus),
    "vram": ("vram", read_vram),
    "gpu-model": ("gpu_model", read_gpu_model),
    "exclusive": ("exclusive", _truth),
    "priority": ("priority", read_priority),
    "retries": ("retries", _whole(0, MOST_RETRIES)),
    "retry-on": ("retry_on", read_retry_on),
    "backoff": ("backoff", _backoff),
    "backoff-max": ("backoff_max_s", _duration),
    "retry-args": ("retry_args", _bytes),
    "time-limit": ("time_limit_s", _some_duration),
    "begin": ("begin_ms", _moment),
    "deadline": ("deadline_ms", _moment),
    "grace": ("grace_s", _duration),
    "linger": ("linger_s", _linger),
    "checkpoint": ("checkpoint", read_checkpoint),
    "cwd": ("cwd", _directory),
    "hold": ("held", _truth),
    "array": ("array", read_array),
    "max-fails": ("max_fails", _whole(0, MOST)),
    "group": ("group", read_group),
    "label": ("labels", read_label),
}
OF_SUBMIT: Keys = {
    "after": ("after", _jobs),
    "after-any": ("after_any", _jobs),
    "after-failed": ("after_failed", _one_of("cancel", "wait")),
}

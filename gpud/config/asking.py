"""How people write what a job asks of the GPUs: the words and their bounds.

Used wherever a person writes them: options of a queue file, gpuctl, `gpud run`, the configuration.
Raises GpudError with a clause. Standard library only: gpuctl starts fast. What they become is in
config/requests.py.
"""

from __future__ import annotations

import re

from gpud.amounts import URGENT, URGENT_WORD
from gpud.config.limits import LEAST_SHARE, LONGEST_MODEL, LONGEST_S, MOST_GPUS, MOST_PRIORITY
from gpud.config.units import parse_duration_s, parse_size_mib
from gpud.errors import GpudError
from gpud.signals import signal_number

AUTO = "auto"  # as much memory as earlier runs took
OOM = "oom"
# What may be tried again: outcomes of a bad end ("signal" is another word for "killed"), and out of
# memory whatever its outcome. Exit statuses stand among them as numbers.
RETRY_ON = ("failed", "killed", "signal", "timed-out", "lost", OOM)
MOST_EXIT_STATUS = 255
_CODE = re.compile(r"[0-9]{1,3}", re.ASCII)
_PRIORITY = re.compile(r"[+-]?[0-9]{1,12}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,6}|[0-9]{0,3}\.[0-9]{1,6}", re.ASCII)


def read_gpus(text: str) -> float:
    """ "2", or a share of one: "0.5"."""
    if not _NUMBER.fullmatch(text):
        raise GpudError("it takes a whole number, or a share of one GPU: 0.5")
    number = float(text) if "." in text else int(text)
    check_gpus(number)
    return number


def check_gpus(gpus: float) -> None:
    if 0 < gpus < LEAST_SHARE:
        raise GpudError(f"a share is at least {LEAST_SHARE}")
    if not 0 <= gpus <= MOST_GPUS or (gpus > 1 and gpus != int(gpus)):  # NaN is refused, too
        raise GpudError(f"it takes a whole number from 0 to {MOST_GPUS}, or a share of one: 0.5")


def read_vram(text: str) -> int | str:
    """ "12G" as MiB, "auto", or "0": none is asked for."""
    return AUTO if text == AUTO else read_size_mib(text)


def read_size_mib(text: str) -> int:
    """ "12G" as MiB; "0": none."""
    return 0 if text.strip() == "0" else parse_size_mib(text)


def read_gpu_model(text: str) -> str:
    if not text or not text.isprintable() or len(text) > LONGEST_MODEL:
        raise GpudError(
            f"it takes a part of a model's name, like A100, of at most {LONGEST_MODEL} characters"
        )
    return text


def read_retry_on(text: str) -> tuple[str | int, ...]:
    """ "oom,signal,75"."""
    words = (word.strip() for word in text.split(","))
    ends = tuple(int(word) if _CODE.fullmatch(word) else word for word in words)
    check_retry_on(ends)
    return ends


def check_retry_on(ends: tuple[str | int, ...]) -> None:
    known = f"{', '.join(RETRY_ON)}, and exit statuses from 1 to {MOST_EXIT_STATUS}"
    for end in ends:
        if end not in RETRY_ON if isinstance(end, str) else not 1 <= end <= MOST_EXIT_STATUS:
            raise GpudError(f'"{end}" is no end to retry on; there are {known}')
    if not ends:
        raise GpudError(f"it takes some of {known}")


def read_priority(text: str) -> int:
    """ "9", "-1" or "urgent"."""
    if text == URGENT_WORD:
        return URGENT
    if not _PRIORITY.fullmatch(text) or abs(int(text)) > MOST_PRIORITY:
        raise GpudError(
            f"it takes a whole number from {-MOST_PRIORITY} to {MOST_PRIORITY}, or {URGENT_WORD}"
        )
    return int(text)


def read_checkpoint(text: str) -> int:
    """ "SIGUSR1", "usr1" or "10" as a number; "none": 0."""
    if text == "none":
        return 0
    try:
        return signal_number(text)
    except ValueError:
        raise GpudError(
            "it takes a signal that a program can catch, like SIGUSR1, SIGTERM or 10, or none"
        ) from None


def read_backoff(text: str) -> tuple[float, float | None]:
    """ "30s..10m" as (the first pause, the longest) in seconds; "30s" does not say the longest."""
    first, dots, longest = text.partition("..")
    pauses = [parse_duration_s(first.strip())]
    pauses += [parse_duration_s(longest.strip())] if dots else []
    if max(pauses) > LONGEST_S:
        raise GpudError("it is longer than ten years")
    if dots and pauses[1] < pauses[0]:
        raise GpudError(f"the longest pause ({longest}) is shorter than the first ({first})")
    return pauses[0], pauses[1] if dots else None

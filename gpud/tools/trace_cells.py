"""What may stand in the cells of a trace, column by column.

Owns the words of one cell; the file around it is tools/trace_csv.py's. Each reader takes the text
of a cell that is not empty and raises GpudError with one clause. Pure.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from fractions import Fraction

from msgspec import structs

from gpud.config.limits import LONGEST_S, MOST_GPUS, MOST_PRIORITY, wrong_with_name
from gpud.config.units import parse_duration_s, parse_size_mib
from gpud.core.model import FULL_MILLI, ONE_SLOT, Request
from gpud.errors import GpudError
from gpud.tools.trace import MOST_JOBS

COLUMNS = ("submit", "duration", "gpus", "vram", "limit", "priority", "name", "count")


class Submits:
    """The column `submit`: seconds since the start of the trace, or moments, not both in one file.

    A moment without an offset is taken as it stands, so that only one kind of these may occur.
    """

    def __init__(self) -> None:
        self.kind = ""  # of the cells so far

    def read_ms(self, text: str) -> int:
        """Milliseconds since the start, or since 1970. Raises GpudError with one clause."""
        if re.match(r"\d{4}-?\d\d-?\d\d[T ]", text):
            moment = _moment(text)
            kind = "moments" if moment.tzinfo is None else "moments with an offset from UTC"
            ms = round(1000 * moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())
        else:
            kind, ms = "times since the start", duration_ms(text)
        if self.kind and kind != self.kind:
            raise GpudError(f'"{text}" stands below {self.kind}; a trace has one kind of times')
        self.kind = kind
        return ms

    @property
    def since_start(self) -> bool:
        """Whether a cell that is empty means 0; else it means the first moment there is."""
        return self.kind in ("", "times since the start")


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise GpudError(
            f'cannot read "{text}" as a moment: write it like 2026-11-21 15:00 or '
            "2026-11-21T15:00:00Z"
        ) from None


def duration_ms(text: str) -> int:
    seconds = parse_duration_s(text)
    if seconds > LONGEST_S:
        raise GpudError(f'"{text}" is longer than ten years')
    return round(1000 * seconds)


def limit_ms(text: str) -> int:
    ms = duration_ms(text)
    if not ms:
        raise GpudError("a time limit must be more than nothing; without one, leave it empty")
    return ms


def vram(text: str) -> Request:
    return structs.replace(ONE_SLOT, vram_mib=parse_size_mib(text))


def gpus(text: str, request: Request = ONE_SLOT) -> Request:
    """A whole number, 0 for a job that needs none, or a share of one GPU."""
    if re.fullmatch(r"[0-9]{1,9}", text) and int(text) <= MOST_GPUS:
        return structs.replace(request, gpus=int(text))
    if re.fullmatch(r"0?\.[0-9]{1,9}", text):
        milli = int(FULL_MILLI * Fraction(text))  # exact: 0.57 is 570
        if milli:
            return structs.replace(request, gpus=1, share_milli=milli)
    raise GpudError(
        f'"{text}" is neither a number of GPUs (0 to {MOST_GPUS}) nor a share of one '
        "(0.001 to 0.999)"
    )


def priority(text: str) -> int:
    return _whole(text, -MOST_PRIORITY, MOST_PRIORITY)


def count(text: str) -> int:
    return _whole(text, 1, MOST_JOBS)


def name(text: str) -> str:
    if why := wrong_with_name(text):
        raise GpudError(f"it cannot be the name of a job: {why}")
    return text


def _whole(text: str, least: int, most: int) -> int:
    if re.fullmatch(r"[+-]?[0-9]{1,15}", text) and least <= int(text) <= most:
        return int(text)
    raise GpudError(f'"{text}" is not a whole number from {least:,} to {most:,}')

"""How people write the indices of an array: 0-99, or 0,2,5-9%4, or 0-98:2.

Used by gpuctl, queue files and the control server. Raises GpudError with a clause. Standard library
only: gpuctl starts fast. What the indices mean is in core/indices.py.
"""

from __future__ import annotations

import re

from gpud.errors import GpudError

MOST = 1_000_000  # elements, and no index is larger
_RUN = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?::([0-9]{1,9}))?)?", re.ASCII)

Runs = tuple[tuple[int, int, int], ...]


def read_array(text: str) -> tuple[Runs, int]:
    """Runs of indices (first, last, step), ascending, and how many may run at a time; 0: all."""
    written, percent, most = text.partition("%")
    if percent and not (re.fullmatch("[0-9]{1,9}", most, re.ASCII) and int(most)):
        raise GpudError("behind % stands how many may run at a time: 0-99%4")
    runs = [_run(part.strip()) for part in written.split(",")]
    size = 0
    seen: set[int] = set()
    for first, last, step in runs:
        if last > MOST:
            raise GpudError(f"the largest index is {MOST}")
        size += (last - first) // step + 1
        if size > MOST:
            raise GpudError(f"it has more than {MOST} elements")
        if len(runs) > 1:
            seen.update(range(first, last + 1, step))
    if len(runs) > 1 and len(seen) < size:
        raise GpudError("an index stands there twice")
    return tuple(runs), int(most or 0)


def show_array(runs: Runs, at_most: int) -> str:
    text = ",".join(
        str(first) if first == last else f"{first}-{last}" + (f":{step}" if step > 1 else "")
        for first, last, step in runs
    )
    return f"{text}%{at_most}" if at_most else text


def _run(text: str) -> tuple[int, int, int]:
    found = _RUN.fullmatch(text)
    if not found:
        raise GpudError("it takes indices: 0-99, or 0,2,5-9%4, or 0-98:2")
    first, last, step = int(found[1]), int(found[2] or found[1]), int(found[3] or 1)
    if last < first:
        raise GpudError(f"{text}: {first} is greater than {last}")
    if not step:
        raise GpudError(f"{text}: the step must be more than 0")
    return first, last - (last - first) % step, step

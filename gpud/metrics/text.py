"""OpenMetrics text, version 1.0: families and samples to lines. Pure.

Called by metrics/reading.py. Rule 1: a family is written in one piece, metadata first, also when
it has no samples. Rule 2: whatever a label's value is, it ends on its line. Rule 3: the last line
is `# EOF`: who sees it has seen all.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from msgspec import Struct

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
END = "# EOF\n"

Values = tuple[str, ...]  # of the labels of a family, in their order


class Family(Struct, frozen=True):
    """Samples of one name. `bounds`: of a histogram, in rising order, without the infinite one."""

    name: str  # without the `_total` of a counter
    kind: Literal["gauge", "counter", "histogram"]
    help: str  # one sentence
    labels: tuple[str, ...] = ()
    unit: str = ""  # what the name ends in
    bounds: tuple[float, ...] = ()

    @property
    def shown(self) -> str:
        """The name in queries; of a histogram what its samples' names begin with."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


class Histogram:
    """Counts of values by size. `observe` is on the engine's way: a search in a dozen numbers."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """A value below 0 (a clock that was set back) counts as 0."""
        value = max(0.0, value)
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


Sample = tuple[Values, float | Histogram]


def page(families: Iterable[tuple[Family, Iterable[Sample]]]) -> str:
    lines: list[str] = []
    for family, samples in families:
        lines.append(f"# TYPE {family.name} {family.kind}\n")
        if family.unit:
            lines.append(f"# UNIT {family.name} {family.unit}\n")
        lines.append(f"# HELP {family.name} {escaped(family.help)}\n")
        for values, value in samples:
            labels = _labels(zip(family.labels, values, strict=True))
            if isinstance(value, Histogram):
                lines += _of_histogram(family.name, labels, value)
            else:
                lines.append(f"{family.shown}{_braced(labels)} {number(value)}\n")
    lines.append(END)
    return "".join(lines)


def _of_histogram(name: str, labels: list[str], histogram: Histogram) -> Iterator[str]:
    total = 0
    for bound, count in zip((*histogram.bounds, math.inf), histogram.counts, strict=True):
        total += count
        at = _braced([*labels, f'le="{number(float(bound))}"'])
        yield f"{name}_bucket{at} {total}\n"
    yield f"{name}_count{_braced(labels)} {total}\n"
    yield f"{name}_sum{_braced(labels)} {number(histogram.sum)}\n"


def _labels(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [f'{name}="{escaped(value)}"' for name, value in pairs]


def _braced(labels: Sequence[str]) -> str:
    return "{" + ",".join(labels) + "}" if labels else ""


def escaped(text: str) -> str:
    """Of a label's value or a help text; what is not Unicode (half a surrogate) becomes "?"."""
    clean = text.encode(errors="replace").decode()
    return clean.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)

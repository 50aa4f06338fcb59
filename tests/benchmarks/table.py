"""The figures for people and for machines."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Sequence

from .limits import LIMITS
from .measure import Effort, Measured

HEAD = ("what", "measured", "limit", "", "best peer")


def as_table(figures: Sequence[Measured]) -> str:
    rows = [HEAD, *map(_row, figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD) - 1)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join((*cells, row[-1])).rstrip())
    return "\n".join(lines)


def _row(figure: Measured) -> tuple[str, ...]:
    limit = LIMITS[figure.key]
    if figure.skipped:
        return (limit.what, "skipped", limit.shown(), "", figure.skipped)
    low, high = min(figure.samples), max(figure.samples)
    spread = f" ({_number(low)} to {_number(high)})" if len(figure.samples) > 1 else ""
    measured = f"{_number(figure.value)} {limit.unit}{spread}"
    verdict = "" if limit.limit is None else "ok" if limit.met_by(figure.value) else "OVER"
    here = [f"{name} {_number(value)}" for name, value in figure.peers.items()]
    peer = f"{limit.best_peer}; here: {', '.join(here)}" if here else limit.best_peer
    return (limit.what, measured, limit.shown(), verdict, peer)


def as_json(figures: Sequence[Measured], effort: Effort) -> dict[str, object]:
    return {
        "effort": effort.name,
        "machine": {
            "processors": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
        },
        "figures": [_object(figure) for figure in figures],
    }


def _object(figure: Measured) -> dict[str, object]:
    limit = LIMITS[figure.key]
    about: dict[str, object] = {"key": figure.key, "what": limit.what, "unit": limit.unit}
    if figure.skipped:
        return about | {"skipped": figure.skipped}
    return about | {
        "median": figure.value,
        "samples": list(figure.samples),
        "limit": limit.limit,
        "ok": limit.met_by(figure.value),
        "peers": figure.peers,
        "best_peer": limit.best_peer,
        "detail": figure.detail,
    }


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}" if value < 1000 else f"{value:.0f}"

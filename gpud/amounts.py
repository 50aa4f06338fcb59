"""Memory, energy and priorities as people read them: "12 GiB", "9.8 Wh", "urgent". Imports nothing;
for every floor.

How people write memory is in config/units.py.
"""

from __future__ import annotations

URGENT_WORD = "urgent"
URGENT = 1_000_000_000  # the highest priority: makes room where it can (core/preemption.py)
MIB_OF_UNIT = {"TiB": 1024 * 1024, "GiB": 1024}


def format_size(mib: int) -> str:
    """To a tenth of its unit, as short as can be; readable by `parse_size_mib` if it is not 0."""
    for unit, of_unit in MIB_OF_UNIT.items():
        if mib >= of_unit:
            return f"{mib / of_unit:.1f}".removesuffix(".0") + f" {unit}"
    return f"{mib} MiB"


def format_sizes(mib: int, other: int) -> tuple[str, str]:
    """Two in one sentence: in MiB where they differ and would read the same otherwise. A GPU that
    is sold with 24 GiB may have 24564 MiB."""
    one, two = format_size(mib), format_size(other)
    return (f"{mib} MiB", f"{other} MiB") if one == two and mib != other else (one, two)


def format_bytes(count: int) -> str:
    """ "812 KiB", "3.1 GiB": of files."""
    kib = count / 1024
    for unit, of_unit in (*MIB_OF_UNIT.items(), ("MiB", 1)):
        if kib >= of_unit * 1024:
            return f"{kib / 1024 / of_unit:.1f}".removesuffix(".0") + f" {unit}"
    return f"{kib:.0f} KiB" if kib >= 1 else f"{count} bytes"


def format_energy(joules: float) -> str:
    """ "340 J", "9.8 Wh", "1.25 kWh"."""
    if joules < 3600:
        return f"{joules:.0f} J"
    if joules < 3.6e6:
        return f"{joules / 3600:.1f}".removesuffix(".0") + " Wh"
    return f"{joules / 3.6e6:.2f} kWh"


def format_priority(priority: int) -> str:
    return URGENT_WORD if priority >= URGENT else str(priority)

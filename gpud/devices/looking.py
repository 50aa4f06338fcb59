"""One look at one GPU: its `GpuSight`.

Called by the GPU helper (devices/child.py) only. A value that the driver does not support, or that
cannot be, is None; a GPU that cannot be looked at is a sight with a problem, never an exception.
"""

from __future__ import annotations

from typing import Any

from gpud.core.sight import MOST_POWER_MW, GpuProcess, GpuSight
from gpud.devices.finding import Unit, memory_of
from gpud.devices.health import fault
from gpud.devices.nvml import (
    ARGUMENT_VERSION_MISMATCH,
    FUNCTION_NOT_FOUND,
    INSUFFICIENT_SIZE,
    NOT_SUPPORTED,
    NvmlTrouble,
    call,
    maybe,
)
from gpud.devices.whose import Use, Whose

SENSOR_GPU = 0  # nvmlTemperatureSensors_t
ALL_PER_CENT = 100  # some drivers give far more for a process that has just begun
COLDEST_C, HOTTEST_C = -50, 200


class Looker:
    """Remembers what spans looks: faults heard of, and how far processes' use was read."""

    def __init__(self, whose: Whose) -> None:
        self._whose = whose
        self._faults: dict[str, str] = {}  # by UUID
        self._read_until_us: dict[str, int] = {}  # by UUID: the last sample of processes' use

    def look(self, unit: Unit, *, health: bool, attributable: bool) -> GpuSight:
        """Raises NvmlTrouble only when it is about the whole driver."""
        try:
            if health or unit.uuid not in self._faults:
                self._faults[unit.uuid] = fault(unit.gpu)
            if why := self._faults[unit.uuid]:
                return GpuSight(unit.uuid, why, broken=True)
            return self._sight(unit, attributable)
        except NvmlTrouble as trouble:
            if trouble.whole:
                raise
            return GpuSight(unit.uuid, trouble.why, broken=trouble.broken)

    def _sight(self, unit: Unit, attributable: bool) -> GpuSight:
        memory = memory_of(unit.handle)
        rates = maybe("DeviceGetUtilizationRates", unit.handle)
        power_mw = energy_mj = None
        if unit.mig is None:  # what a GPU takes cannot be divided among its instances
            power_mw = _if_within(0, MOST_POWER_MW, maybe("DeviceGetPowerUsage", unit.gpu))
            energy_mj = maybe("DeviceGetTotalEnergyConsumption", unit.gpu)
        uses = self._uses(unit, memory.total_mib if memory else None)
        processes: list[GpuProcess] = []
        for use in uses or ():
            process = self._whose.of(unit.uuid, use)
            if process is not None:
                processes.append(process)
        return GpuSight(
            unit.uuid,
            total_mib=memory.total_mib if memory else None,
            used_mib=memory.used_mib if memory else None,
            free_mib=memory.free_mib if memory else None,
            util=None if rates is None else _if_within(0, ALL_PER_CENT, rates.gpu),
            temperature_c=_temperature(unit.gpu),
            power_mw=power_mw,
            energy_mj=energy_mj,
            processes=tuple(processes),
            attributable=attributable and uses is not None,
        )

    def _uses(self, unit: Unit, most_mib: int | None) -> list[Use] | None:
        """Everything that uses it, each process once; None where the driver lists nothing."""
        listed = _listed("Compute", unit.handle)
        if listed is None:
            return None
        found: dict[int, tuple[int | None, bool]] = {}
        for kind, compute in (("Compute", True), ("MPSCompute", True), ("Graphics", False)):
            for process in (listed if kind == "Compute" else _listed(kind, unit.handle)) or ():
                # One that both draws and computes is in two lists, with the same memory.
                pid, size = int(process.pid), process.usedGpuMemory
                mib = None if size is None else _if_within(0, most_mib, int(size) >> 20)
                found.setdefault(pid, (mib, compute))
        if not found:
            return []
        use_of = self._use_of(unit)
        return [Use(pid, mib, use_of.get(pid), compute) for pid, (mib, compute) in found.items()]

    def _use_of(self, unit: Unit) -> dict[int, int]:
        """Per process, the mean of its samples since the look before; empty without support."""
        since_us = self._read_until_us.get(unit.uuid, 0)
        sums: dict[int, tuple[int, int]] = {}
        for sample in maybe("DeviceGetProcessUtilization", unit.handle, since_us) or ():
            if sample.timeStamp <= since_us or sample.smUtil > ALL_PER_CENT:
                continue
            total, count = sums.get(sample.pid, (0, 0))
            sums[sample.pid] = (total + int(sample.smUtil), count + 1)
            if sample.timeStamp > self._read_until_us.get(unit.uuid, 0):
                self._read_until_us[unit.uuid] = int(sample.timeStamp)
        return {pid: total // count for pid, (total, count) in sums.items()}


def _listed(kind: str, handle: Any) -> Any:
    """Processes of this kind; None where the driver does not support it. That of computing must not
    fail: who is not seen would be disturbed. Raises NvmlTrouble."""
    trouble = NvmlTrouble(NOT_SUPPORTED)
    for version in ("_v3", "_v2", "_v3"):
        try:
            return call(f"DeviceGet{kind}RunningProcesses{version}", handle)
        except NvmlTrouble as error:
            trouble = error
            if error.code == INSUFFICIENT_SIZE:
                continue  # more have come between its two calls: once more
            if error.code not in (FUNCTION_NOT_FOUND, ARGUMENT_VERSION_MISMATCH):
                break
    if trouble.broken or trouble.whole or (kind == "Compute" and trouble.code != NOT_SUPPORTED):
        raise trouble
    return None


def _temperature(gpu: Any) -> int | None:
    found = maybe("DeviceGetTemperatureV", gpu, SENSOR_GPU)
    if found is None:  # older drivers
        found = maybe("DeviceGetTemperature", gpu, SENSOR_GPU)
    return _if_within(COLDEST_C, HOTTEST_C, found)


def _if_within(least: int, most: int | None, value: Any) -> int | None:
    """A value that cannot be is one that the driver does not tell. `most` None: not known."""
    if value is None or value < least or (most is not None and value > most):
        return None
    return int(value)

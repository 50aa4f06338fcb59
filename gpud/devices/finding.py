"""What the machine has, by NVML: GPUs, their MIG instances, and how near they are to each other.

Called by the GPU helper (devices/child.py) only. A GPU on which MIG is on is not a unit that a job
can get: its instances are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from gpud.core.sight import GpuInfo
from gpud.devices.nvml import NOT_SUPPORTED, NvmlTrouble, call, gpu_count, maybe
from gpud.devices.wire import Found

# nvml.h: nvmlGpuTopologyLevel_t to the steps of `nvidia-smi topo -m` (core/sight.py, GpuInfo).
# INTERNAL are two GPUs on one board, behind one switch.
STEPS = {0: 1, 10: 1, 20: 2, 30: 3, 40: 4, 50: 5}
NVLINK_STEP = 0
P2P_CAPS_INDEX_NVLINK = 2
P2P_STATUS_OK = 0
MIG_ON = 1
NO_INSTANCES = "MIG is on and it has no instances"
MOST_INSTANCES = 64  # of one GPU; there are seven today


class Unit(NamedTuple):
    """What a job can get: a GPU, or a MIG instance of one."""

    uuid: str
    at: int  # the index of its GPU
    handle: Any
    gpu: Any  # the handle of the GPU it is (part of)
    mig: tuple[int, int] | None = None  # the ids of its GPU instance and its compute instance


class Memory(NamedTuple):
    """A part that is more than all of it is None: not known. `usable_mib`: without what the driver
    keeps for itself, as far as it says."""

    total_mib: int
    usable_mib: int
    used_mib: int | None
    free_mib: int | None


def find(
    skip: Sequence[int], of: int, at: Callable[[int, int], None]
) -> tuple[Found, dict[int, tuple[Unit, ...]]]:
    """All of it, and the units by index; `at` is told each GPU before it is touched. Raises
    NvmlTrouble when the driver cannot be asked."""
    driver = str(maybe("SystemGetDriverVersion") or "")
    count = gpu_count()
    skipped = tuple(index for index in skip if index < count) if count == of else ()
    unread: dict[int, str] = {}
    unusable: dict[int, str] = {}
    units: dict[int, tuple[Unit, ...]] = {}
    infos: dict[str, GpuInfo] = {}
    for index in range(count):
        if index in skipped:
            continue
        at(index, count)
        try:
            here = units_at(index)
            infos |= {unit.uuid: info_of(unit) for unit in here}
            units[index] = here
        except NvmlTrouble as trouble:
            if trouble.whole:
                raise
            unread[index] = trouble.why
            continue
        if not here:
            unusable[index] = NO_INSTANCES
    whole = [unit for here in units.values() for unit in here if unit.mig is None]
    near = _distances(whole, lambda index: at(index, count))
    gpus = tuple(
        GpuInfo(i.uuid, i.index, i.model, i.memory_mib, i.mig, near.get(i.uuid, {}))
        for i in infos.values()
    )
    return Found(driver, count, gpus, unread, unusable, skipped), units


def units_at(index: int) -> tuple[Unit, ...]:
    """What can be had of this GPU; nothing where MIG is on without instances. May wake it, which
    takes seconds without persistence mode. Raises NvmlTrouble."""
    gpu = call("DeviceGetHandleByIndex", index)
    uuid = _uuid_of(gpu)
    mode = maybe("DeviceGetMigMode", gpu)
    if not mode or mode[0] != MIG_ON:
        return (Unit(uuid, index, gpu, gpu),)
    return tuple(_instances(index, gpu))


def _instances(index: int, gpu: Any) -> Iterable[Unit]:
    places = maybe("DeviceGetMaxMigDeviceCount", gpu) or 0
    for place in range(min(places, MOST_INSTANCES)):
        handle = maybe("DeviceGetMigDeviceHandleByIndex", gpu, place)
        if handle is None:
            continue  # places need not be filled from the first one on
        ids = (maybe("DeviceGetGpuInstanceId", handle), maybe("DeviceGetComputeInstanceId", handle))
        mig = (-1 if ids[0] is None else int(ids[0]), -1 if ids[1] is None else int(ids[1]))
        yield Unit(_uuid_of(handle), index, handle, gpu, mig)


def _uuid_of(handle: Any) -> str:
    """Never empty: nothing can be known of a GPU without it. Raises NvmlTrouble."""
    uuid = str(call("DeviceGetUUID", handle))
    if not uuid:
        raise NvmlTrouble(NOT_SUPPORTED, "DeviceGetUUID")
    return uuid


def info_of(unit: Unit) -> GpuInfo:
    """Without distances. Raises NvmlTrouble."""
    model = maybe("DeviceGetName", unit.handle) or maybe("DeviceGetName", unit.gpu) or ""
    memory = memory_of(unit.handle)
    usable_mib = memory.usable_mib if memory else 0
    return GpuInfo(unit.uuid, unit.at, str(model), usable_mib, unit.mig is not None)


def memory_of(handle: Any) -> Memory | None:
    """None where the driver does not say (GPUs that share the machine's memory). Version 2 leaves
    what the driver keeps for itself out of `used`. Raises NvmlTrouble."""
    found = maybe("DeviceGetMemoryInfo", handle, 0x02000028)  # nvml.h: nvmlMemory_v2
    if found is None:
        try:
            found = call("DeviceGetMemoryInfo", handle)
        except NvmlTrouble as trouble:
            if trouble.code == NOT_SUPPORTED:
                return None
            raise
    total, used, free = int(found.total), int(found.used), int(found.free)
    reserved = int(getattr(found, "reserved", 0))  # of version 2 only
    return Memory(
        total >> 20,
        (total - reserved if reserved <= total else total) >> 20,
        used >> 20 if used <= total else None,
        free >> 20 if free <= total else None,
    )


def _distances(units: Sequence[Unit], at: Callable[[int], None]) -> dict[str, dict[str, int]]:
    """Between whole GPUs: a process can use one MIG instance only."""
    near: dict[str, dict[str, int]] = {unit.uuid: {} for unit in units}
    before = -1
    for one, other in combinations(units, 2):
        if one.at != before:
            at(one.at)
            before = one.at
        try:
            step = _distance(one.gpu, other.gpu)
        except NvmlTrouble as trouble:
            if trouble.whole:
                raise
            continue
        if step is not None:
            near[one.uuid][other.uuid] = near[other.uuid][one.uuid] = step
    return near


def _distance(one: Any, other: Any) -> int | None:
    if maybe("DeviceGetP2PStatus", one, other, P2P_CAPS_INDEX_NVLINK) == P2P_STATUS_OK:
        return NVLINK_STEP  # over switches too
    return STEPS.get(maybe("DeviceGetTopologyCommonAncestor", one, other))

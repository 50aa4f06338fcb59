"""The pool, from what was configured and what was found. Pure; called by daemon/gpus.py.

Rule 1: slots that somebody named stay what they were called, and get what the driver knows of them.
Rule 2: when nobody named any, every GPU that was found is a device, called by its UUID.
Rule 3: a GPU that the driver does not know is used all the same when it was named: nothing can be
    seen of it then.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, structs

from gpud.config.schema import Pool
from gpud.core.events import DevicesChanged
from gpud.core.health import GpuPolicy
from gpud.core.model import Device
from gpud.core.sight import GpuInfo

NO_DRIVER = (
    "no NVIDIA driver here: the memory of GPUs and other people's use of them cannot be seen"
)
ASKING = "the NVIDIA driver has not answered yet"


class Plan(Struct, frozen=True):
    """`named`: the slots that were named, or None: all GPUs there are. `lane`: the CPU's."""

    named: tuple[Device, ...] | None
    lane: tuple[Device, ...]
    pool: Pool = Pool()


def not_asked(plan: Plan) -> DevicesChanged:
    """Until the driver has answered: no GPU is used."""
    named = tuple(_static(device, plan.pool) for device in plan.named or ())
    return DevicesChanged((*named, *plan.lane), policy_of(plan.pool), ASKING)


def without_driver(plan: Plan) -> DevicesChanged:
    return structs.replace(not_asked(plan), unknown="")


def found(plan: Plan, gpus: Sequence[GpuInfo]) -> DevicesChanged:
    by_name: dict[str, GpuInfo] = {gpu.uuid: gpu for gpu in gpus}
    by_name |= {str(gpu.index): gpu for gpu in gpus if not gpu.mig}
    named = plan.named
    if named is None:
        named = tuple(Device(gpu.uuid, (gpu.uuid,)) for gpu in gpus)
    devices = [_known(device, by_name, plan.pool) for device in named]
    return DevicesChanged((*devices, *plan.lane), policy_of(plan.pool))


def unknown_ids(devices: DevicesChanged) -> list[str]:
    """The ids that the driver does not know."""
    return [i for d in devices.devices if d.ids and not d.uuids for i in d.ids]


def policy_of(pool: Pool) -> GpuPolicy:
    return GpuPolicy(
        respect_others=pool.respect_others,
        tolerance_mib=pool.tolerance,
        ignored=pool.ignore,
        release_wait_ms=round(pool.release_wait_s * 1000),
        idle_ms=round(pool.idle_after_s * 1000),
        stop_idle=pool.stop_idle,
    )


def _static(device: Device, pool: Pool) -> Device:
    """What is known of it without a driver."""
    return structs.replace(
        device,
        slots=device.slots * pool.slots_per_gpu,
        model=pool.model,
        memory_mib=pool.memory,
        maker=pool.maker,
        guest=_is_guest(device, pool),
    )


def _known(device: Device, by_name: dict[str, GpuInfo], pool: Pool) -> Device:
    gpus = [found for i in device.ids if (found := _gpu(i, by_name)) is not None]
    plain = _static(device, pool)
    if len(gpus) < len(device.ids) or not gpus:
        return plain
    by_uuid = pool.visible == "uuid"
    known = structs.replace(
        plain,
        ids=tuple(gpu.uuid if by_uuid or gpu.mig else str(gpu.index) for gpu in gpus),
        uuids=tuple(gpu.uuid for gpu in gpus),
        model=gpus[0].model,
        memory_mib=min(gpu.memory_mib for gpu in gpus),
        maker="nvidia",
        mig=any(gpu.mig for gpu in gpus),
        distance=gpus[0].distance if len(gpus) == 1 else {},
    )
    return structs.replace(known, guest=_is_guest(device, pool) or _is_guest(known, pool))


def _gpu(name: str, by_name: dict[str, GpuInfo]) -> GpuInfo | None:
    """By index or UUID, or by the beginning of one, as CUDA takes it."""
    if name in by_name:
        return by_name[name]
    like = [gpu for uuid, gpu in by_name.items() if not name.isdecimal() and uuid.startswith(name)]
    return like[0] if len(like) == 1 else None


def _is_guest(device: Device, pool: Pool) -> bool:
    names = {device.key, *device.ids, *device.uuids}
    return not names.isdisjoint(pool.guests)

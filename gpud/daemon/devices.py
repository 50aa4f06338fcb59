"""The pool, from what was configured and what was found. Pure; called by daemon/gpus.py.

Rule 1: slots that somebody named stay what they were called, and get what the driver knows of them.
Rule 2: when nobody named any, every GPU that is there is a device: called by its UUID, or by its
    index while the driver cannot say more of it.
Rule 3: a GPU that the driver does not know, or no longer, takes no work and says why. It does not
    leave the pool: who waits for it would not know what for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, structs

from gpud.config.schema import Pool
from gpud.core.events import DevicesChanged
from gpud.core.health import GpuPolicy
from gpud.core.model import Device
from gpud.core.sight import NOT_LISTED, GpuInfo

NO_DRIVER = (
    "no NVIDIA driver here: the memory of GPUs and other people's use of them cannot be seen"
)
ASKING = "the NVIDIA driver has not answered yet"


class Plan(Struct, frozen=True):
    """`named`: the slots that were named, or None: all GPUs there are. `lane`: the CPU's."""

    named: tuple[Device, ...] | None
    lane: tuple[Device, ...]
    pool: Pool = Pool()


class Known(Struct, frozen=True):
    """What is known of a machine's GPUs. `lost`: those that were there once, since gpud began."""

    gpus: tuple[GpuInfo, ...] = ()
    unusable: Mapping[int, str] = {}  # index -> why
    lost: tuple[GpuInfo, ...] = ()


def not_asked(plan: Plan) -> DevicesChanged:
    """Until the driver has answered: no GPU is used."""
    named = tuple(_static(device, plan.pool) for device in plan.named or ())
    return DevicesChanged((*named, *_lane(plan)), policy_of(plan.pool), ASKING)


def without_driver(plan: Plan) -> DevicesChanged:
    return structs.replace(not_asked(plan), unknown="")


def found(plan: Plan, known: Known) -> DevicesChanged:
    named = plan.named
    if named is None:
        indices = known.unusable.keys() - {gpu.index for gpu in known.gpus}
        named = (
            *(Device(gpu.uuid, (gpu.uuid,)) for gpu in known.gpus),
            *(Device(gpu.uuid, (gpu.uuid,)) for gpu in known.lost if gpu.index not in indices),
            *(Device(str(index), (str(index),)) for index in sorted(indices)),
        )
    devices: list[Device] = []
    for device in named:
        devices.append(_alone(_known(device, known, plan.pool), devices))
    return DevicesChanged((*devices, *_lane(plan)), policy_of(plan.pool))


def _alone(device: Device, others: Sequence[Device]) -> Device:
    """A GPU that was named twice, by index and by UUID, is used by its first name."""
    for other in others:
        if not set(device.uuids).isdisjoint(other.uuids):
            problem = f"it has a GPU that is called {other.key}, too"
            return structs.replace(device, uuids=(), problem=problem)
    return device


def now_lost(before: Sequence[GpuInfo], now: Sequence[GpuInfo]) -> tuple[GpuInfo, ...]:
    """GPUs of before that are gone. Not those whose place has been taken by new ones: MIG was
    switched, and nothing has been lost."""
    had, has = {gpu.uuid for gpu in before}, {gpu.uuid for gpu in now}
    renewed = {gpu.index for gpu in now if gpu.uuid not in had}
    return tuple(gpu for gpu in before if gpu.uuid not in has and gpu.index not in renewed)


def unknown_guests(plan: Plan, known: Known) -> list[str]:
    return [
        f"pool.guests: {_unknown(name)}"
        for name in plan.pool.guests
        if _problem(name, known) == _unknown(name)
    ]


def policy_of(pool: Pool) -> GpuPolicy:
    return GpuPolicy(
        respect_others=pool.respect_others,
        tolerance_mib=pool.tolerance,
        ignored=pool.ignore,
        release_wait_ms=round(pool.release_wait_s * 1000),
        idle_ms=round(pool.idle_after_s * 1000),
        stop_idle=pool.stop_idle,
    )


def _lane(plan: Plan) -> list[Device]:
    return [structs.replace(device, maker=plan.pool.maker) for device in plan.lane]


def _static(device: Device, pool: Pool) -> Device:
    """What is known of it without a driver."""
    return structs.replace(
        device,
        slots=device.slots * pool.slots_per_gpu,
        model=pool.model,
        memory_mib=pool.memory,
        maker=pool.maker,
        guest=not {device.key, *device.ids}.isdisjoint(pool.guests),
    )


def _known(device: Device, known: Known, pool: Pool) -> Device:
    plain = _static(device, pool)
    gpus = [gpu for name in device.ids if (gpu := _gpu(name, known.gpus)) is not None]
    if len(gpus) < len(device.ids):
        problems = [why for name in device.ids if (why := _problem(name, known))]
        labels = [_label(name, known, pool) for name in device.ids]
        return structs.replace(plain, ids=tuple(labels), problem="; ".join(dict.fromkeys(problems)))
    guests = {gpu.uuid for name in pool.guests if (gpu := _gpu(name, known.gpus)) is not None}
    return structs.replace(
        plain,
        ids=tuple(_visible(gpu, pool) for gpu in gpus),
        uuids=tuple(gpu.uuid for gpu in gpus),
        model=gpus[0].model,
        memory_mib=min(gpu.memory_mib for gpu in gpus),
        maker="nvidia",
        mig=any(gpu.mig for gpu in gpus),
        distance=gpus[0].distance if len(gpus) == 1 else {},
        guest=plain.guest or any(gpu.uuid in guests for gpu in gpus),
    )


def _visible(gpu: GpuInfo, pool: Pool) -> str:
    """What a job gets in CUDA_VISIBLE_DEVICES."""
    return gpu.uuid if pool.visible == "uuid" or gpu.mig else str(gpu.index)


def _label(name: str, known: Known, pool: Pool) -> str:
    """What people call a GPU that takes no work."""
    gpu = _gpu(name, (*known.gpus, *known.lost))
    return name if gpu is None or gpu.uuid != name else _visible(gpu, pool)


def _problem(name: str, known: Known) -> str:
    """Why the driver cannot say which GPU that is; "" when it can."""
    if _gpu(name, known.gpus) is not None:
        return ""
    if name.isdecimal() and int(name) in known.unusable:
        return known.unusable[int(name)]
    return _unknown(name) if _gpu(name, known.lost) is None else NOT_LISTED


def _unknown(name: str) -> str:
    return f"the NVIDIA driver knows no GPU {name}"


def _gpu(name: str, gpus: Sequence[GpuInfo]) -> GpuInfo | None:
    """By index or UUID, or by the beginning of one, as CUDA takes it."""
    for gpu in gpus:
        if name == gpu.uuid or (name == str(gpu.index) and not gpu.mig):
            return gpu
    like = [gpu for gpu in gpus if not name.isdecimal() and gpu.uuid.startswith(name)]
    return like[0] if len(like) == 1 else None

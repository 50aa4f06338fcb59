"""Which GPUs a person's word means: what the tables call them, or the beginning of a UUID.

Called by control/changes.py for `heal`. Pure.
"""

from __future__ import annotations

from gpud.core.pool import Pool
from gpud.errors import GpudError

UUIDS = ("GPU-", "MIG-")  # how they begin
SHOWN = 4  # GPUs in a message

Names = dict[str, tuple[str, ...]]


def meant(pool: Pool, word: str) -> tuple[str, ...]:
    """UUIDs, or the key of a device whose UUIDs nobody knows; of several names with commas between
    them, all. Raises GpudError: not-found, or usage for what may be several."""
    names = _names(pool)
    found: dict[str, None] = {}
    for part in (word,) if word in names else word.split(","):
        gpus = names[part] if part in names else _begins(names, part, pool.unknown)
        if not gpus:
            raise _not_found(part, "no driver can be asked about it")
        found |= dict.fromkeys(gpus)
    return tuple(found)


def _names(pool: Pool) -> Names:
    """Every name of a GPU or a group of them, and what stands for it: nothing, where there is no
    driver."""
    names: Names = {}
    for device in pool.devices.values():
        if not device.ids:
            continue  # the lane of the CPU
        whole = device.uuids
        if not whole and (device.problem or pool.unknown):
            whole = (device.key,)
        names |= dict.fromkeys((device.key, device.label, *device.ids), whole)
        names |= {uuid: (uuid,) for uuid in device.uuids}
    return names


def _begins(names: Names, part: str, unknown: str) -> tuple[str, ...]:
    like = [name for name in names if name.startswith(part) and "," not in name]
    if not like or not part.startswith(UUIDS):
        raise _not_found(part, unknown or "there is no such GPU")
    if len({names[name] for name in like}) > 1:
        shown = ", ".join(like[:SHOWN]) + (", …" if like[SHOWN:] else "")
        raise GpudError(f"cannot heal {part}: several GPUs begin so: {shown}", kind="usage")
    return names[like[0]]


def _not_found(part: str, why: str) -> GpudError:
    name = part if part.startswith(UUIDS) else f"GPU {part}"
    return GpudError(f"cannot heal {name}: {why}", kind="not-found", hint="see: gpuctl gpus")

"""GPUs set aside because they are broken, and taken back.

Called by core/sights.py (what looks and the driver tell, and a person's heal) and by
core/reconcile.py (another boot). A quarantine is committed: a restart of gpud does not lift it.
"""

from __future__ import annotations

from msgspec import structs

from gpud.core.health import Gpu, Quarantine
from gpud.core.model import JobId
from gpud.core.state import State


def quarantine(
    state: State, uuid: str, why: str, now_ms: int, *, base_mib: int | None = None
) -> None:
    """Kept until it is healed: the first reason stays. `base_mib`: for memory that is not given
    back; it is lifted when no more than this is in use."""
    gpu = state.health.of(uuid)
    if gpu.quarantine is None:
        gpu.quarantine = Quarantine(why, now_ms, state.boot_id, base_mib)
        state.changes.quarantines[uuid] = gpu.quarantine
        state.tell(JobId(0), 0, "gpu-quarantined", now_ms, gpu=uuid, why=why)


def heal(state: State, uuid: str, now_ms: int, why: str) -> bool:
    """Whether there was anything to heal."""
    gpu = state.health.of(uuid)
    if gpu.quarantine is None and not gpu.unreleased_since_ms:
        return False
    if gpu.quarantine is not None:
        gpu.quarantine = state.changes.quarantines[uuid] = None
    gpu.base_mib, gpu.unreleased_since_ms = None, 0  # what is in use now is usual
    gpu.sight, gpu.seen_at_ms = None, 0  # and nothing is known until the next look
    gpu.healed_at_ms = now_ms
    state.tell(JobId(0), 0, "gpu-healed", now_ms, gpu=uuid, why=why)
    return True


def lift_for_memory(state: State, gpu: Gpu, uuid: str, now_ms: int) -> None:
    """What was not given back is."""
    if gpu.quarantine is not None and gpu.quarantine.base_mib is not None:
        gpu.quarantine = state.changes.quarantines[uuid] = None
        state.tell(JobId(0), 0, "gpu-healed", now_ms, gpu=uuid, why="its memory is free again")


def on_boot_known(state: State, now_ms: int) -> None:
    """Another boot lifts a quarantine; one from before the runner had told the boot is of this."""
    for uuid, gpu in state.health.gpus.items():
        found = gpu.quarantine
        if found is None or found.boot_id == state.boot_id:
            continue
        if found.boot_id:
            heal(state, uuid, now_ms, "the machine was started again")
        else:
            gpu.quarantine = structs.replace(found, boot_id=state.boot_id)
            state.changes.quarantines[uuid] = gpu.quarantine

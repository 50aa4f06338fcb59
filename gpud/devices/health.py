"""Faults of a GPU that the driver remembers: bad memory, and what it says must be done.

Called by devices/looking.py and devices/events.py, in the GPU helper. Some of these questions take
the driver milliseconds, so they are not asked in every look.
"""

from __future__ import annotations

from typing import Any

from gpud.devices.nvml import maybe
from gpud.devices.xids import needed

FIELD_RECOVERY_ACTION = 230  # nvml.h: NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, drivers since R565
ECC_UNCORRECTED = 1  # nvmlMemoryErrorType_t
ECC_VOLATILE = 0  # nvmlEccCounterType_t: since the driver was loaded
PENDING = 1  # nvmlEnableState_t


def fault(gpu: Any) -> str:
    """A clause, or "". Raises NvmlTrouble when the GPU or the driver is gone."""
    rows = maybe("DeviceGetRemappedRows", gpu)  # corrected, uncorrected, pending, failed
    if rows is not None and rows[3]:
        return "a bad row of its memory could not be replaced"
    action = recovery_action(gpu)
    if action is not None:
        # The driver's own judgement: a contained error leaves a count of 1 and needs nothing.
        return needed(action) if action else ""
    errors = maybe("DeviceGetTotalEccErrors", gpu, ECC_UNCORRECTED, ECC_VOLATILE)
    if errors:
        times = "once" if errors == 1 else f"{errors} times"
        return f"ECC could not correct its memory ({times} since the driver was loaded)"
    if rows is None and maybe("DeviceGetRetiredPagesPendingStatus", gpu) == PENDING:
        return "bad pages of its memory are put out of use when it is reset"
    return ""


def recovery_action(gpu: Any) -> int | None:
    """What the GPU needs by the driver's own judgement (xids.RECOVERY); None: it does not say."""
    values = maybe("DeviceGetFieldValues", gpu, [FIELD_RECOVERY_ACTION])
    if values is None or values[0].nvmlReturn != 0:
        return None
    return int(values[0].value.uiVal)

"""Which Xids make a GPU useless, and what the driver's recovery actions mean.

Called by devices/events.py and devices/health.py. Pure tables.

Sources: NVIDIA's "Analyzing Xid Errors with the Xid Catalog" (docs.nvidia.com/deploy/xid-errors;
the column "immediate action"), "GPU Memory Error Management" (docs.nvidia.com/deploy/
a100-gpu-mem-error-mgmt; the recovery action, and that a row remapping that is only pending leaves a
GPU usable), and for Xids of applications the list of NVIDIA's device plugin for Kubernetes.

Rule 1: an Xid whose immediate action is a reset, a restart or a look at the cables, whatever else
    the driver says: the GPU is broken.
Rule 2: with drivers since R565 the driver itself says what a GPU needs (field 230, and Xid 154 when
    it changes). What it says counts: an application's Xid 13 can leave a GPU that needs a reset,
    and an ECC error that was contained (Xids 48 and 94) one that does not.
Rule 3: with older drivers, an Xid after which a GPU usually needs a reset does mean that.
Everything else is caused by applications (13, 31, 43, 45, 68, 69, 109 …), is corrected (63, 92) or
concerns one application only (94), and is ignored.
"""

from __future__ import annotations

# Rule 1.
BROKEN = {
    46: "it stopped and does not go on",
    54: "its power cable is not connected",
    62: "its power controller has halted",
    64: "bad memory could not be put out of use",
    79: "it has fallen off the bus",
    95: "a memory error has spread beyond one program",
    110: "it reports a security fault",
    119: "its system processor (GSP) does not answer",
    120: "its system processor (GSP) has failed",
    140: "memory errors that ECC could not correct",
    143: "it could not be initialised",
    158: "it did not answer in time",
}
# Rule 3.
BROKEN_UNLESS_SAID_OTHERWISE = {
    48: "a memory error that ECC could not correct",
    74: "an NVLink connection has failed",
    136: "an NVLink connection could not be trained",
    154: "the driver asks for a reset or a restart",
}
# nvml.h: nvmlDeviceGpuRecoveryAction_t; 0 is none.
RECOVERY = {
    1: "it must be reset",
    2: "the machine must be restarted",
    3: "everything that uses it together with other GPUs must end, then it may need a reset",
    4: "its jobs must end, then it must be reset",
    5: "its IMEX domain must be recovered",
    6: "its PCIe bus must be reset",
    7: "the machine must be restarted",
}


def needed(action: int) -> str:
    """A recovery action other than none, as a clause."""
    return RECOVERY.get(action) or f"the driver asks for recovery action {action}"


def is_broken_for_sure(xid: int) -> bool:
    """Rule 1: nothing more needs to be asked."""
    return xid in BROKEN


def judge(xid: int, action: int | None) -> str:
    """ "Xid 79: it has fallen off the bus", or "" for one that leaves the GPU usable.

    `action`: what the driver says the GPU needs; None: it does not say.
    """
    if xid in BROKEN:
        return f"Xid {xid}: {BROKEN[xid]}"
    if action:
        return f"Xid {xid}: {needed(action)}"
    if action is None and xid in BROKEN_UNLESS_SAID_OTHERWISE:
        return f"Xid {xid}: {BROKEN_UNLESS_SAID_OTHERWISE[xid]}"
    return ""

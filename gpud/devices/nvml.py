"""The edge to NVML: every call goes through here, and comes back as a value or a `NvmlTrouble`.

Used inside the GPU helper only (devices/child.py): a call may block in the kernel for ever. Owns
what the driver's error codes mean. An `NVMLError` has `__eq__` without `__hash__` and cannot be
compared with other exceptions, so none gets further than `call`.
"""

from __future__ import annotations

import ctypes
from typing import Any

import pynvml

from gpud.config.limits import MOST_GPUS

NONSENSE = -1  # none of NVML's: it succeeds, and says what cannot be
UNINITIALIZED = 1
NOT_SUPPORTED = 3
NO_PERMISSION = 4
INSUFFICIENT_SIZE = 7
DRIVER_NOT_LOADED = 9
TIMEOUT = 10
IRQ_ISSUE = 11
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
CORRUPTED_INFOROM = 14
GPU_IS_LOST = 15
RESET_REQUIRED = 16
OPERATING_SYSTEM = 17
LIB_RM_VERSION_MISMATCH = 18
ARGUMENT_VERSION_MISMATCH = 25
GPU_NOT_FOUND = 28
UNKNOWN = 999

CLAUSES = {
    UNINITIALIZED: "the NVIDIA driver was unloaded",
    NOT_SUPPORTED: "the driver does not tell {what}",
    NO_PERMISSION: "permission denied",
    DRIVER_NOT_LOADED: "the NVIDIA driver is installed and not loaded",
    TIMEOUT: "the driver ran out of time",
    IRQ_ISSUE: "the interrupts of the GPU do not arrive",
    LIBRARY_NOT_FOUND: "no NVIDIA driver found (NVML library missing)",
    FUNCTION_NOT_FOUND: "the driver is too old to tell {what}",
    CORRUPTED_INFOROM: "the memory of its board (infoROM) is corrupted",
    GPU_IS_LOST: "it has fallen off the bus",
    RESET_REQUIRED: "it must be reset",
    OPERATING_SYSTEM: "the operating system blocked the question",
    LIB_RM_VERSION_MISMATCH: "the driver was updated: restart the machine",
    ARGUMENT_VERSION_MISMATCH: "nvidia-ml-py and the driver do not fit together",
    GPU_NOT_FOUND: "it is no longer there",
    UNKNOWN: "the driver gives an unknown error",
}
# What a call asks for, of those whose failure people are told.
QUESTIONS = {
    "Init": "what it has",
    "DeviceGetCount": "how many GPUs it has",
    "DeviceGetHandleByIndex": "how to reach it",
    "DeviceGetUUID": "its UUID",
    "DeviceGetMemoryInfo": "how much memory it has",
    "DeviceGetComputeRunningProcesses_v2": "what runs on it",
    "DeviceGetComputeRunningProcesses_v3": "what runs on it",
}
OF_THE_GPU = (GPU_IS_LOST, RESET_REQUIRED, GPU_NOT_FOUND)
OF_THE_DRIVER = (
    NONSENSE,
    UNINITIALIZED,
    DRIVER_NOT_LOADED,
    LIBRARY_NOT_FOUND,
    LIB_RM_VERSION_MISMATCH,
)


class NvmlTrouble(Exception):
    """What a call came back with. `why` is a clause."""

    def __init__(self, code: int, call: str = "", why: str = "") -> None:
        super().__init__(code)
        self.code = code
        clause = CLAUSES.get(code) or f"the driver gives error {code}"
        self.why = why or clause.format(what=QUESTIONS.get(call, f"nvml{call}"))

    @property
    def broken(self) -> bool:
        """The GPU is of no use until somebody does something about it."""
        return self.code in OF_THE_GPU

    @property
    def whole(self) -> bool:
        """It is not about this GPU: the driver cannot be asked."""
        return self.code in OF_THE_DRIVER


def call(name: str, *arguments: object) -> Any:
    """pynvml's function `nvml` + `name`; one that this pynvml does not have is one that the driver
    does not have. Raises NvmlTrouble."""
    function = getattr(pynvml, f"nvml{name}", None)
    code = FUNCTION_NOT_FOUND
    if function is not None:
        try:
            return function(*arguments)
        except pynvml.NVMLError as error:
            code = int(error.value)
    raise NvmlTrouble(code, name)


def maybe(name: str, *arguments: object) -> Any:
    """The same, and None where the driver does not say. Raises NvmlTrouble when it is about all of
    the GPU, or all of the driver."""
    try:
        return call(name, *arguments)
    except NvmlTrouble as trouble:
        if trouble.broken or trouble.whole:
            raise
        return None


def gpu_count() -> int:
    """Raises NvmlTrouble; one that cannot be is trouble with the whole driver."""
    count = ctypes.c_int(call("DeviceGetCount")).value
    if not 0 <= count <= MOST_GPUS:
        why = f"the NVIDIA driver says that it has {count} GPUs"
        raise NvmlTrouble(NONSENSE, why=why)
    return count

"""Which GPUs this machine has, asked of the NVIDIA driver once (NVML).

Called by `gpud serve` when nobody named the slots, and by `gpud doctor`. Blocks, for seconds where
the driver has to wake its GPUs. A device found here is known by its UUID: CUDA counts from the
fastest GPU on, NVML by PCI bus, and an index moves when a GPU falls off the bus.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from gpud.config.gpu_words import VARIABLE, cpu_lane, from_variable
from gpud.core.model import Device
from gpud.errors import GpudError

HINT = "name the slots yourself: --gpus 0,1 (or --gpus none, for jobs that need no GPU)"


class Gpu(NamedTuple):
    number: int  # NVML's index: in the order of the PCI bus
    uuid: str
    name: str
    memory_mib: int


class Survey(NamedTuple):
    """`problems`: a sentence for each GPU that is there and cannot be used."""

    driver: str
    gpus: tuple[Gpu, ...]
    problems: tuple[str, ...]


def detect(cpu_slots: int = 0) -> tuple[Device, ...]:
    """All GPUs, one job each, and the lane `cpu`. Raises GpudError when there are none.

    A CUDA_VISIBLE_DEVICES that gpud itself was given says which GPUs are its own.
    """
    given = os.environ.get(VARIABLE)
    if given is not None:
        return from_variable(given, cpu_slots)
    found = survey()
    if not found.gpus:
        why = "; ".join(found.problems) or "the NVIDIA driver has none"
        raise GpudError(f"cannot find a GPU: {why}", hint=HINT)
    return tuple(Device(gpu.uuid, (gpu.uuid,)) for gpu in found.gpus) + cpu_lane(cpu_slots)


def survey() -> Survey:
    """What the driver says. Raises GpudError when there is none, or it cannot be asked."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise GpudError(
            f"cannot ask the NVIDIA driver for GPUs: {_why(error)}", hint=HINT
        ) from error
    gpus, problems = [], []
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                gpus.append(_gpu(pynvml, index))
            except pynvml.NVMLError as error:
                problems.append(f"GPU {index} cannot be used: {_why(error)}")
    except pynvml.NVMLError as error:
        raise GpudError(f"cannot list the GPUs: {_why(error)}", hint=HINT) from error
    finally:
        pynvml.nvmlShutdown()
    return Survey(driver, tuple(gpus), tuple(problems))


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle).total
    return Gpu(index, nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle), memory >> 20)


def _why(error: Any) -> str:
    """A clause; NVML's own words are a last resort."""
    known = {
        "NVMLError_LibraryNotFound": "no NVIDIA driver found (NVML library missing)",
        "NVMLError_DriverNotLoaded": "the NVIDIA driver is installed and not loaded",
        "NVMLError_LibRmVersionMismatch": "the driver was updated: restart the machine",
        "NVMLError_NoPermission": "permission denied",
        "NVMLError_GpuIsLost": "it has fallen off the bus",
    }
    return known.get(type(error).__name__, str(error))

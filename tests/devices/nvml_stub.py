"""A stand-in for the NVIDIA driver, compiled once per test process, and the hand that drives it.

The real pynvml loads it in the place of libnvidia-ml.so.1, in processes that are started with
`Stub.environment`. It reads its state again at every call, so that what a test changes counts at
once. The state is `key value` lines:

    count 2                           driver 999.01
    at.0 1                            at index 0 there is GPU 1; without it, GPU 0
    gpu0.uuid GPU-…                   gpu0.name, total_mib, used_mib, util, temperature, power_mw,
                                      energy_mj: a value that is missing is one not supported
    gpu0.free_mib 100                 if it is to be another than the rest
    gpu0.reserved_mib 500             what the driver keeps for itself
    gpu0.compute 4711:500 4712:-1     PID:MIB (-1: not told); graphics, mps likewise
    gpu0.samples 4711:80:1000000      PID:SM:MICROSECONDS of processes' use
    gpu0.ecc, remap_failed, remap_pending, retired_pending, recovery
    gpu0.mig 1, gpu0.mig0.uuid MIG-…  MIG is on, with an instance; its values: gpu0.mig0.used_mib …
    gpu0.places 7                     how many instances there may be
    near.0.1 30, nvlink.0.1 1         how near two GPUs are (nvmlGpuTopologyLevel_t)
    fail.nvmlInitWithFlags 9          that call fails; fail.FUNCTION.GPU, fail.*.GPU: on that GPU
    hang.…, crash.…                   likewise: it does not return while that stands, or dies
                                      (crash 2: once)

A process that writes `GPU MIB` or `GPU MIB INSTANCE` into nvml.holders/PID uses that GPU, or that
MIG instance, for as long as it lives.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCES = [HERE / "stub_nvml.c", HERE / "stub_state.c"]
NAME = "libnvidia-ml.so.1"


@cache
def library() -> Path:
    """The directory that holds it. Skips the test where nothing can compile it."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler for the stub of NVML")
    directory = Path(tempfile.mkdtemp(prefix="stub-nvml-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    command = [compiler, "-shared", "-fPIC", "-O1", f"-Wl,-soname,{NAME}", "-o", directory / NAME]
    subprocess.run([*command, *SOURCES, "-lpthread"], check=True, timeout=60)
    return directory


def uuid(index: int) -> str:
    return f"GPU-{index:08}-aaaa-bbbb-cccc-dddddddddddd"


def mig_uuid(index: int, place: int) -> str:
    return f"MIG-{index:08}-aaaa-bbbb-cccc-{place:012}"


class Stub:
    """One driver, with its state in `directory`."""

    def __init__(self, directory: Path, gpus: int = 0) -> None:
        self.state = directory / "nvml"
        self.values: dict[str, str] = {"driver": "999.01"}
        os.mkfifo(directory / "nvml.events")
        self._events = os.open(directory / "nvml.events", os.O_RDWR)  # kept while nobody reads
        self.holders = directory / "nvml.holders"
        self.holders.mkdir()
        self.have(gpus)

    @property
    def variables(self) -> dict[str, str]:
        """What a process needs that is to find this driver."""
        return {"LD_LIBRARY_PATH": str(library()), "STUB_NVML": str(self.state)}

    @property
    def environment(self) -> dict[str, str]:
        env = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
        return env | self.variables

    def use_here(self, patch: pytest.MonkeyPatch) -> None:
        """It is the driver of this process, and of those that it starts."""
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        for key, value in self.variables.items():
            patch.setenv(key, value)

    def put(self, values: dict[str, object]) -> None:
        """None takes a key away. The file is replaced at once: no call sees half of it."""
        for key, value in values.items():
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = str(value)
        beside = self.state.with_suffix(".new")
        beside.write_text("".join(f"{key} {value}\n" for key, value in self.values.items()))
        beside.replace(self.state)

    def have(self, gpus: int) -> None:
        """So many GPUs that are well and do nothing."""
        self.put({"count": gpus})
        for index in range(gpus):
            self.gpu(
                index,
                uuid=uuid(index),
                name=f"Stub {index}",
                total_mib=(80 + index) * 1024,
                used_mib=0,
                util=0,
                temperature=30 + index,
                power_mw=60_000,
                energy_mj=1_000_000,
                ecc=0,
                remap_failed=0,
            )

    def gpu(self, index: int, **values: object) -> None:
        self.put({f"gpu{index}.{key}": value for key, value in values.items()})

    def instance(self, index: int, place: int, **values: object) -> None:
        """A MIG instance; the GPU must have `mig=1`."""
        whole = {"uuid": mig_uuid(index, place), "total_mib": 10 * 1024, "used_mib": 0} | values
        self.put({f"gpu{index}.mig{place}.{key}": value for key, value in whole.items()})

    def order(self, word: str, function: str, gpu: int | None = None, code: object = 1) -> None:
        """`fail` with a code, `hang` or `crash`; code None: no longer. Function "*": any."""
        where = "" if gpu is None else f".{gpu}"
        self.put({f"{word}.{function}{where}": code})

    def xid(self, index: int, xid: int, instance: int | None = None) -> None:
        """Whoever waits for events next hears of it."""
        line = f"{index} {xid}" + ("" if instance is None else f" {instance}")
        os.write(self._events, f"{line}\n".encode())

    def close(self) -> None:
        os.close(self._events)

    def hold(self, pid: int, index: int, mib: int) -> None:
        """This process uses the GPU for as long as it lives."""
        beside = self.holders.with_suffix(f".{pid}")
        beside.write_text(f"{index} {mib}\n")
        beside.replace(self.holders / str(pid))

"""A real GPU and a program that uses one, for the tests that run where there is a GPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gpud.devices.survey import survey
from gpud.errors import GpudError
from gpud.ports import GpusFound

HELD_MIB = 1024
NO_CUDA = "needs the CUDA driver: there is a GPU that no program can use"
# The CUDA driver's own interface, so that nothing needs to be installed.
CUDA_PROGRAM = f"""
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
def do(name, *arguments):
    if code := getattr(cuda, name)(*arguments):
        sys.exit(f"{{name}}: CUDA error {{code}}")
device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
do("cuInit", 0)
do("cuDeviceGet", ctypes.byref(device), 0)
do("cuCtxCreate_v2", ctypes.byref(context), 0, device)
do("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t({HELD_MIB} << 20))
print("ready", flush=True)
sys.stdin.readline()
"""


def real_gpus() -> GpusFound:
    """What there is. Skips the test where that is nothing."""
    try:
        found = survey()
    except GpudError as error:
        pytest.skip(f"needs a GPU: {error.message}")
    if not found.gpus:
        pytest.skip(f"needs a GPU that works: {found.unusable}")
    return found


@contextmanager
def cuda_job(uuid: str) -> Iterator[int]:
    """A job's shell, by its pid, whose child holds memory on the GPU until the block ends."""
    line = 'CUDA_VISIBLE_DEVICES=$1 "$2" -c "$3"; :'
    with subprocess.Popen(
        ["/bin/sh", "-c", line, "sh", uuid, sys.executable, CUDA_PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as shell:
        assert shell.stdout is not None
        if shell.stdout.readline() != b"ready\n":
            pytest.skip(NO_CUDA)
        yield shell.pid

"""A stand-in for the NVIDIA driver's library, compiled once per test process.

`environment(...)` is what a child process needs to find it in the place of a real one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("stub_nvml.c")
NAME = "libnvidia-ml.so.1"


def build(directory: Path) -> Path:
    """The directory that holds the library. Skips the test where nothing can compile it."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler for the stub of NVML")
    command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{NAME}", "-o", str(directory / NAME)]
    subprocess.run([*command, str(SOURCE)], check=True, timeout=60)
    return directory


def environment(directory: Path, **settings: object) -> dict[str, str]:
    """`settings`: gpus=2, init=9, lost=1, ... (see stub_nvml.c)."""
    env = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    env["LD_LIBRARY_PATH"] = str(directory)
    env |= {f"STUB_NVML_{key.upper()}": str(value) for key, value in settings.items()}
    return env

"""What it costs to keep an eye on GPUs: the daemon and its helper, over a stand-in for the driver.

A real driver adds its own time in the kernel to every look; tests/devices/test_real_gpu.py measures
that where there is one.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from .instance import Daemon
from .measure import Bench, Measured

GPUS = 8


def polling(bench: Bench) -> Iterator[Measured]:
    """Nothing runs and nothing waits."""
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        yield Measured("gpu-polling", skipped="needs a C compiler")
        return
    from tests.devices.nvml_stub import Stub

    place = bench.fresh("polling")
    (place / "driver").mkdir()
    stub = Stub(place / "driver", gpus=GPUS)
    try:
        with Daemon(place, *map(str, range(GPUS)), environment=stub.variables) as gpud:
            gpud.meet_runner()
            time.sleep(bench.effort.settle_s)
            pids = [gpud.pid, *gpud.children()]
            before = sum(map(_used_s, pids))
            begun = time.monotonic()
            time.sleep(bench.effort.polling_s)
            per_cent = 100 * (sum(map(_used_s, pids)) - before) / (time.monotonic() - begun)
    finally:
        stub.close()
    yield Measured("gpu-polling", [per_cent], detail={"seconds": bench.effort.polling_s})


def _used_s(pid: int) -> float:
    """Processor time of all threads, to the nanosecond."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((t / "schedstat").read_text().split()[0]) for t in threads) / 1e9

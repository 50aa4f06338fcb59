"""A real GPU, where there is one: what NVML says of it, against nvidia-smi and a CUDA context."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from gpud.core.events import GpusSeen
from gpud.core.sight import GpuProcess, GpuSight
from gpud.devices.survey import survey
from gpud.devices.watcher import BUSY_S, IDLE_S, NvmlWatcher
from gpud.errors import GpudError
from gpud.ports import GpusFound, GpuWatcher, Watched
from tests.contracts.watchers import NEVER_S, Box
from tests.devices.test_watcher import cpu_s

pytestmark = pytest.mark.gpu
HELD_MIB = 1024
RELEASE_S = 30
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
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def real() -> GpusFound:
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
            pytest.skip("needs the CUDA driver: there is a GPU that no program can use")
        yield shell.pid


@asynccontextmanager
async def watching(watched: Watched) -> AsyncIterator[tuple[GpuWatcher, Box]]:
    watcher, box = NvmlWatcher(idle_s=NEVER_S, busy_s=NEVER_S), Box()
    try:
        await watcher.find()
        watcher.watch(box, lambda: watched, box.found.append)
        yield watcher, box
    finally:
        await watcher.close()


def of(seen: GpusSeen, uuid: str) -> GpuSight:
    (found,) = (sight for sight in seen.gpus if sight.uuid == uuid)
    assert found.problem == ""
    return found


def using(seen: GpusSeen, uuid: str, held_before: frozenset[int]) -> list[GpuProcess]:
    return [process for process in of(seen, uuid).processes if process.pid not in held_before]


def test_it_finds_what_nvidia_smi_lists(real: GpusFound) -> None:
    if shutil.which("nvidia-smi") is None:
        pytest.skip("needs nvidia-smi")
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    lines = [line for line in listed.stdout.splitlines() if "UUID: " in line]
    uuids = [line.rpartition("UUID: ")[2].rstrip(")") for line in lines]
    with_mig = {lines.index(line) - 1 for line in lines if line.startswith("  MIG")}
    expected = [u for at, u in enumerate(uuids) if not (u.startswith("GPU-") and at in with_mig)]
    assert [gpu.uuid for gpu in real.gpus] == expected
    assert all(gpu.memory_mib > 0 and gpu.model for gpu in real.gpus)


@pytest.mark.anyio
async def test_a_context_is_seen_is_the_attempts_and_goes_away(real: GpusFound) -> None:
    uuid = real.gpus[0].uuid
    async with watching(Watched()) as (watcher, box):
        before = of(await box.look(watcher), uuid)
    there = frozenset(process.pid for process in before.processes)
    with cuda_job(uuid) as shell:
        async with watching(Watched({shell: (7, 2)})) as (watcher, box):
            during = await box.look(watcher)
            assert of(during, uuid).used_mib >= (before.used_mib or 0) + HELD_MIB
            if real.blind:
                assert not of(during, uuid).attributable
            else:
                (process,) = using(during, uuid, there)
                assert (process.job, process.attempt, process.compute) == (7, 2, True)
                assert process.mib is None or process.mib >= HELD_MIB
            others = [gpu.uuid for gpu in real.gpus if gpu.uuid != uuid]
            assert not any(p.job == 7 for one in others for p in of(during, one).processes)
        async with watching(Watched()) as (watcher, box):
            assert all(p.job == 0 for p in using(await box.look(watcher), uuid, there))
    async with watching(Watched()) as (watcher, box), asyncio.timeout(RELEASE_S):
        while of(await box.look(watcher), uuid).used_mib > (before.used_mib or 0) + HELD_MIB / 2:
            pass


@pytest.mark.anyio
async def test_what_a_job_takes_is_seen_within_two_looks(real: GpusFound) -> None:
    """By itself: nobody asks for a look."""
    uuid = real.gpus[0].uuid
    watcher, box = NvmlWatcher(), Box()
    await watcher.find()
    attempts: dict[int, tuple[int, int]] = {}
    watcher.watch(box, lambda: Watched(attempts), box.found.append)
    used = of(await box.seen(lambda seen: True), uuid).used_mib or 0
    with cuda_job(uuid) as shell:
        attempts[shell] = (7, 2)
        async with asyncio.timeout(2 * BUSY_S + 1):
            await box.seen(lambda seen: (of(seen, uuid).used_mib or 0) >= used + HELD_MIB)
    await watcher.close()


@pytest.mark.anyio
async def test_energy_counts_up(real: GpusFound) -> None:
    uuid = real.gpus[0].uuid
    async with watching(Watched()) as (watcher, box):
        first = of(await box.look(watcher), uuid).energy_mj
        if first is None:
            pytest.skip("needs a GPU that counts energy (Volta or newer, no MIG)")
        async with asyncio.timeout(10):
            while (of(await box.look(watcher), uuid).energy_mj or 0) <= first:
                pass


@pytest.mark.anyio
async def test_what_polling_a_real_driver_costs(real: GpusFound) -> None:
    """As for eight such GPUs, idle: under 0.2 % of a core, the kernel's part included."""
    async with watching(Watched()) as (watcher, box):
        await box.look(watcher)
        assert isinstance(watcher, NvmlWatcher)
        helper = watcher._driver._helper
        assert helper is not None
        before_s, looks = cpu_s("self") + cpu_s(helper.pid), 20
        for _ in range(looks):
            await box.look(watcher)
        cost_s = (cpu_s("self") + cpu_s(helper.pid) - before_s) / looks
    share = cost_s * 8 / len(real.gpus) / IDLE_S
    print(f"{cost_s * 1e3:.2f} ms a look, {len(real.gpus)} GPUs: {share:.3%} of a core for eight")
    assert share < 0.002

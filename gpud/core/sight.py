"""What a look at the GPUs shows: facts, as the driver told them.

Made by `devices/`, judged by core/health.py. A GPU is known by its UUID; a MIG instance is a GPU
of its own. Memory is in MiB, energy in millijoules since the driver was loaded, power in
milliwatts, utilisation in per cent: of a GPU over the driver's last sample (up to a second), of a
process since the look before. None: the driver does not say.
"""

from __future__ import annotations

from msgspec import Struct

MOST_POWER_MW = 10_000_000  # several times what any board takes
NOT_LISTED = "the driver does not list it any more"


class GpuProcess(Struct, frozen=True, gc=False):
    """A process that uses a GPU. `job` 0: not one of ours; `job` -1: of this gpud, and nobody knows
    which job's."""

    pid: int
    name: str  # of the program, "" where it cannot be read
    user: str
    mib: int | None = None
    util: int | None = None
    job: int = 0
    attempt: int = 0
    compute: bool = True  # False: draws only (a desktop)


class GpuSight(Struct, frozen=True, gc=False):
    """One GPU in one look. With a `problem` nothing else in it counts."""

    uuid: str
    problem: str = ""  # a clause: why it could not be looked at
    broken: bool = False  # the problem does not go away by itself
    total_mib: int | None = None
    used_mib: int | None = None
    free_mib: int | None = None
    util: int | None = None
    temperature_c: int | None = None
    power_mw: int | None = None
    energy_mj: int | None = None
    processes: tuple[GpuProcess, ...] = ()
    attributable: bool = True  # False: whose its processes are cannot be known from here


class GpuInfo(Struct, frozen=True, gc=False):
    """A GPU as found: what does not change while the driver is loaded."""

    uuid: str
    index: int  # the driver's: in the order of the PCI bus; of a MIG instance its GPU's
    model: str
    memory_mib: int  # that programs can get
    mig: bool = False
    # uuid -> how far: 0 NVLink, then the steps of `nvidia-smi topo -m`: 1 PIX, 2 PXB, 3 PHB,
    # 4 NODE, 5 SYS. Who is not in it is not known to be near.
    distance: dict[str, int] = {}

"""A GPU as `gpuctl gpus` shows it: slots, jobs, and what the last look has seen."""

from __future__ import annotations

from msgspec import Struct


class GpuProcessView(Struct, frozen=True):
    pid: int
    name: str
    user: str
    mib: int | None
    job: int  # 0: of somebody else; -1: of gpud, and nobody knows which job's


class GpuSightView(Struct, frozen=True):
    """null: the driver does not say."""

    uuid: str
    seen_at_ms: int
    total_mib: int | None = None
    used_mib: int | None = None
    free_mib: int | None = None
    util: int | None = None  # per cent
    temperature_c: int | None = None
    power_w: float | None = None
    processes: tuple[GpuProcessView, ...] = ()


class GpuView(Struct, frozen=True, omit_defaults=True):
    key: str
    ids: tuple[str, ...]
    slots: int
    free_milli: int
    jobs: tuple[int, ...]
    problem: str  # why it takes no work, if it takes none
    model: str = ""
    guest: bool = False
    quarantined: bool = False  # `heal` would put it to work again
    gpus: tuple[GpuSightView, ...] = ()  # each of its GPUs, as last seen; none: cannot be seen
    promised_mib: int | None = None  # to jobs, on each of its GPUs; null: the lane of the CPU
    kept_for: int = 0  # what is free of it is kept for this job, which waits; 0: for nobody

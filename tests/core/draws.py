"""What the machine (machine.py) draws from: pools, jobs, ends, and how far a turn gets."""

from __future__ import annotations

from hypothesis import strategies as st

from gpud.core.health import GpuPolicy
from gpud.core.model import AUTO_VRAM, CPU_LANE, Device, JobSpec, Outcome, Request, RetryPolicy

from .turns import Fate

ONE, TWO = Device("a", ("a",)), Device("b", ("b",))
SHARED, THIRDS = Device("c", ("c",), 2), Device("d", ("d",), 3)
PAIR, CPUS = Device("p0,p1", ("p0", "p1")), Device(CPU_LANE, (), 2)
ROOMY = Device("m", ("m",), 2, memory_mib=16_000)  # its memory is configured, nothing can be seen
POOLS = [
    (ONE,),
    (ONE, TWO),
    (ONE, TWO, CPUS),
    (SHARED, CPUS),
    (THIRDS, ONE),
    (PAIR, ONE),
    (PAIR, SHARED, TWO, CPUS),
    (Device("a", ("a",), 2), TWO),  # the first device again, shared now
    (Device("a,b", ("a", "b")), CPUS),  # the same GPUs, leased as one
    (Device("p0", ("p0",)), Device("p1", ("p1",), 2)),  # a pair taken apart
    (ROOMY, ONE),
    (CPUS,),
    (),
]


def gpu(name: str, *, slots: int = 1, guest: bool = False, **distance: int) -> Device:
    """One that can be looked at."""
    steps = {f"GPU-{other}": step for other, step in distance.items()}
    return Device(
        key=f"GPU-{name}",
        ids=(str(ord(name) - ord("u")),),
        slots=slots,
        uuids=(f"GPU-{name}",),
        model="H100",
        memory_mib=40_000,
        guest=guest,
        distance=steps,
    )


U, V, HALVES, GUEST = gpu("u", v=0), gpu("v", u=0), gpu("w", slots=2), gpu("x", guest=True)
BOTH = Device("0,1", ("0", "1"), uuids=("GPU-u", "GPU-v"), model="H100", memory_mib=40_000)
STRANGE = Device("7", ("7",), problem="the NVIDIA driver knows no GPU 7")
WATCHED = [
    (U,),
    (U, V, CPUS),
    (HALVES, U),
    (U, GUEST),
    (GUEST, CPUS, STRANGE),
    (BOTH, HALVES),
    (U, V, HALVES, GUEST),
]
RICH = (ONE, TWO, SHARED, PAIR, CPUS, U, V, HALVES)  # serves every request below
POLICIES_OF_POOL = [
    GpuPolicy(),
    GpuPolicy(tolerance_mib=100, ignored=("dcgm",), idle_ms=15_000),
    GpuPolicy(idle_ms=5_000, stop_idle=True),
    GpuPolicy(respect_others=False, release_wait_ms=5_000),
]

REQUESTS = [
    *[Request(), Request(), Request(1), Request(2), Request(0), Request(3)],
    *[Request(share_milli=300), Request(1, share_milli=500), Request(exclusive=True)],
    *[Request(vram_mib=15_000), Request(vram_mib=25_000), Request(1, vram_mib=9_000)],
    *[Request(2, vram_mib=20_000), Request(gpu_model="h100"), Request(2, exclusive=True)],
    *[Request(vram_mib=AUTO_VRAM, likeness="x"), Request(1, vram_mib=AUTO_VRAM, likeness="y")],
]
POLICIES = [
    RetryPolicy(),
    RetryPolicy(1, backoff_s=0),
    RetryPolicy(3, backoff_s=10, backoff_max_s=25),
    RetryPolicy(2, backoff_s=1, on=(Outcome.FAILED, Outcome.NOT_STARTED)),
    RetryPolicy(1, backoff_s=5, backoff_max_s=2, on=(Outcome.LOST, Outcome.SUCCEEDED)),
    RetryPolicy(2, backoff_s=0, on=(), oom=True),
    RetryPolicy(2, backoff_s=2, on=(Outcome.KILLED,), codes=(3, 75)),
]
ENDS = [
    {"exit_code": 0},
    {"exit_code": 0},
    {"exit_code": 3},
    {"exit_code": 1, "oom": "cuda"},
    {"signal": 9},
    {"signal": 15, "timed_out": True},
]

BREAKDOWNS = [
    Fate.CRASH_BEFORE_COMMIT,
    Fate.CRASH_BEFORE_ACTIONS,
    Fate.CRASH_AMID_ACTIONS,
    Fate.STORE_FULL,
]

fates = st.sampled_from([Fate.WHOLE, Fate.WHOLE, Fate.WHOLE, Fate.LATER])
often = st.sampled_from([True, True, True, False])
specs = st.builds(
    JobSpec,
    command=st.just(b"train"),
    request=st.sampled_from(REQUESTS),
    priority=st.sampled_from([0, 0, 1, -1]),
    retry=st.sampled_from(POLICIES),
    held=st.sampled_from([False, False, False, True]),
    time_limit_s=st.sampled_from([None, None, 1.0, 30.0, 1000.0]),
    begin_ms=st.sampled_from([0, 0, 0, 1_000_010, 1_012_000]),
    deadline_ms=st.sampled_from([0, 0, 0, 1_000_030, 1_040_000, 2_500_000]),
    grace_s=st.sampled_from([10.0, 0.5]),
    checkpoint=st.sampled_from([0, 10]),
)
picks = st.lists(st.integers(0, 30), min_size=1, max_size=4)
steps = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["launch", "launch", "refuse", "linger"])),
    min_size=1,
    max_size=5,
)

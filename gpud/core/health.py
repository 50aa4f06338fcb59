"""Which GPUs may be used now, and why the others may not.

Judges what looks at the GPUs have shown. Called by core/watching.py (before each dispatch) and by
core/sights.py. A GPU that nobody can look at (no driver) is always usable.

The reasons, the first that holds; those of rule 1 stay until a person heals the GPU or the machine
is started again, the others go away when the next look no longer shows them:

Rule 1: it is quarantined: the driver reported a fault of the hardware, or rule 4 held for too long.
    The latter goes away with the memory.
Rule 2: the driver does not answer, or not for this GPU.
Rule 3: a process uses it that is not of an attempt with a lease on it. Of an attempt that has ended
    since the last look nobody knows that: rule 5.
Rule 4: memory of an attempt that has ended is not given back yet. Where processes cannot be told
    apart it may be anybody's: after a while it is left at that.
Rule 5: nobody has looked since the last attempt on it ended, or for FRESH_MS. Before the next
    start on it somebody does: the scheduler asks for a look.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct, structs

from gpud.amounts import format_size
from gpud.core.model import Attempt, Device, JobId
from gpud.core.sight import GpuProcess, GpuSight

FRESH_MS = 2_000  # for so long after it was heard of something is started on the word of a look
RELEASE_TOLERANCE_MIB = 512  # what drivers keep for themselves moves by less
LOOK_AGAIN_MS = 2_000  # while a job waits for a GPU that others use or that gives memory back
LOOK_WAIT_MS = 15_000  # longer than a look takes with a driver that hangs

# Desktops and the server of CUDA MPS: they are there before anybody computes.
NEVER_FOREIGN = (
    "Xorg",
    "Xwayland",
    "X",
    "gnome-shell",
    "kwin_wayland",
    "kwin_x11",
    "nvidia-cuda-mps-server",
    "nvidia-cuda-mps",  # as /proc/PID/comm cuts it
    "nvidia-cuda-mps-control",
)


class GpuPolicy(Struct, frozen=True):
    """What an administrator decides about other people's work and idle jobs."""

    respect_others: bool = True
    tolerance_mib: int = 0  # a process that has no more than this is no reason
    ignored: tuple[str, ...] = ()  # names of programs, beside NEVER_FOREIGN
    release_wait_ms: int = 60_000  # then memory that is not given back is told as a fault
    idle_ms: int = 1_800_000  # a job whose GPUs did nothing for this long is pointed out; 0: never
    stop_idle: bool = False


DEFAULT_POLICY = GpuPolicy()
Holders = dict[str, set[tuple[int, int]]]  # by UUID, attempts (job, number) with a lease
Promise = tuple[Attempt, int]  # an attempt and the MiB of each GPU of a device it is promised


class Quarantine(Struct, frozen=True):
    why: str  # a clause
    at_ms: int
    boot_id: str  # of the boot it was noticed under: another one lifts it
    base_mib: int | None = None  # for memory that is not given back: what may stay in use


class Gpu(Struct):
    """What is known of one GPU."""

    sight: GpuSight | None = None
    seen_at_ms: int = 0  # when that look began
    heard_at_ms: int = 0  # and when it was heard of; 0: it is not to be relied on
    ended_at_ms: int = 0  # of the last attempt on it
    healed_at_ms: int = 0  # a look that began before this says nothing of it
    last_job: JobId = JobId(0)  # whose memory is not known to be given back; 0: nobody's
    base_mib: int | None = None  # used by nobody that the driver lists, when all was well
    unreleased_mib: int = 0
    unreleased_since_ms: int = 0
    energy_mj: int | None = None  # the counter when it was last read
    claimed_mj: int = 0  # reckoned since then, for attempts that have ended
    quarantine: Quarantine | None = None

    @property
    def is_outdated(self) -> bool:
        """An attempt on it has ended since the last look began."""
        return self.seen_at_ms <= self.ended_at_ms


class Health:
    """All GPUs by UUID. `asked_at_ms`: a look was asked for and has not come; 0: none is."""

    def __init__(self, policy: GpuPolicy = DEFAULT_POLICY) -> None:
        self.policy = policy
        self.gpus: dict[str, Gpu] = {}
        self.problem = ""  # the driver could not be asked at the last look
        self.seen_at_ms = 0  # when the last look began
        self.looked_at_ms = 0  # and when it was heard of
        self.asked_at_ms = 0

    def of(self, uuid: str) -> Gpu:
        found = self.gpus.get(uuid)
        if found is None:
            found = self.gpus[uuid] = Gpu()
        return found

    def counters(self, uuids: Iterable[str]) -> dict[str, int]:
        """Millijoules at the last look."""
        found = {uuid: self.of(uuid).energy_mj for uuid in uuids}
        return {uuid: mj for uuid, mj in found.items() if mj is not None}

    def base_mib(self, uuids: Iterable[str]) -> dict[str, int]:
        """What is in use by nobody, as far as that is known."""
        found = {uuid: self.of(uuid).base_mib for uuid in uuids}
        return {uuid: mib for uuid, mib in found.items() if mib is not None}

    def note_end(self, uuids: Iterable[str], job: JobId, at_ms: int, *, seen: bool) -> None:
        """An attempt on these GPUs is over: the next one waits for a look that began after the end,
        and that was judged without the attempt (`seen`: there was one)."""
        for uuid in uuids:
            gpu = self.of(uuid)
            gpu.ended_at_ms, gpu.last_job = max(at_ms, gpu.ended_at_ms), job
            if not seen:
                gpu.heard_at_ms = 0

    def reason(self, device: Device, holders: Holders) -> tuple[str, bool]:
        """Rules 1 to 4: why the device is not to be counted on, or "", and whether that will be
        over in a moment."""
        if device.problem:
            return device.problem, False
        for uuid in device.uuids:
            if (quarantine := self.of(uuid).quarantine) is not None:
                return quarantine.why, False
        if self.problem and device.uuids:
            return self.problem, False
        being_given_back = ""
        for uuid in device.uuids:
            gpu = self.of(uuid)
            if gpu.sight is None:
                continue
            if gpu.sight.problem:
                return gpu.sight.problem, False
            sight = without_ours(gpu.sight) if gpu.is_outdated else gpu.sight
            if user := occupant(sight, self.policy, holders.get(uuid, set())):
                return f"used by {user}", False
            if gpu.unreleased_since_ms:
                being_given_back = f"{unreleased(gpu)} being given back"
        return being_given_back, bool(being_given_back)

    def is_quarantined(self, device: Device) -> bool:
        return any(self.of(uuid).quarantine is not None for uuid in device.uuids)

    def is_stale(self, device: Device, now_ms: int) -> bool:
        """Rule 5."""
        for uuid in device.uuids:
            gpu = self.of(uuid)
            if gpu.is_outdated:
                return True
            if not 0 <= now_ms - gpu.heard_at_ms <= FRESH_MS:
                return True
        return False

    def seen_free_mib(self, device: Device, attempts: Sequence[Promise]) -> int | None:
        """Memory that a look found free on each GPU of the device, less what was promised to the
        attempts there and is not in use yet; None: not known."""
        least: int | None = None
        for uuid in device.uuids:
            sight = self.of(uuid).sight
            if sight is None or sight.free_mib is None:
                return None
            free = sight.free_mib - unused_mib(sight, attempts)
            least = free if least is None else min(least, free)
        return least


def without_ours(sight: GpuSight) -> GpuSight:
    return structs.replace(sight, processes=tuple(p for p in sight.processes if not p.job))


def occupant(sight: GpuSight, policy: GpuPolicy, holders: set[tuple[int, int]]) -> str:
    """Who uses a GPU without a lease on it, as a clause, or ""."""
    for process in strangers(sight, policy, holders):
        return describe(process)
    return ""


def strangers(
    sight: GpuSight, policy: GpuPolicy, holders: set[tuple[int, int]]
) -> Iterator[GpuProcess]:
    """Processes that keep work from a GPU. `holders`: the attempts (job, number) with a lease on
    it."""
    if not policy.respect_others or not sight.attributable:
        return
    for process in sight.processes:
        if (process.job, process.attempt) in holders or (process.job < 0 and holders):
            continue
        if not is_ignored(process, policy):
            yield process


def unreleased(gpu: Gpu) -> str:
    """ "11.2 GiB of job 7, which has ended, are"."""
    job = f"job {gpu.last_job}" if gpu.last_job else "a job"
    return f"{format_size(gpu.unreleased_mib)} of {job}, which has ended, are"


def is_ignored(process: GpuProcess, policy: GpuPolicy) -> bool:
    if not process.compute or process.name in NEVER_FOREIGN or process.name in policy.ignored:
        return True
    return process.mib is not None and process.mib <= policy.tolerance_mib and not process.job


def describe(process: GpuProcess) -> str:
    """ "pid 4711 (python of alice, 11.2 GiB)"."""
    who = process.name or "?"
    if process.user:
        who += f" of {process.user}"
    if process.mib is not None:
        who += f", {format_size(process.mib)}"
    if process.job > 0:
        return f"job {process.job}, pid {process.pid} ({who}), which was not given it"
    return f"pid {process.pid} ({who})"


def memory_of(sight: GpuSight, attempt: Attempt) -> int:
    """MiB that an attempt's processes have there, as far as the driver says."""
    return sum(
        process.mib or 0
        for process in sight.processes
        if process.job == attempt.job and process.attempt == attempt.no
    )


def unused_mib(sight: GpuSight, attempts: Sequence[Promise]) -> int:
    """Memory of a GPU that attempts are promised and do not use yet. Where nobody knows who uses
    what, they use all that is used."""
    if sight.attributable and all(p.mib is not None and p.job >= 0 for p in sight.processes):
        return sum(max(0, promised - memory_of(sight, attempt)) for attempt, promised in attempts)
    return max(0, sum(promised for _, promised in attempts) - (sight.used_mib or 0))


def unaccounted_mib(sight: GpuSight) -> int | None:
    """Memory in use by nobody that the driver lists; None: it does not say."""
    if sight.used_mib is None or any(process.mib is None for process in sight.processes):
        return None
    return max(0, sight.used_mib - sum(process.mib or 0 for process in sight.processes))

"""What looks at the GPUs have shown to the daemon that lives, written down beside the core.

Used by tests/core/turns.py. Says of every GPU why nothing may be started on it, from the looks
alone and without core/health.py, core/watching.py and core/sights.py; what the core blocks must be
exactly that. Quarantines outlive the daemon and are in the ledger (tests/core/promises.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct

from gpud.core.events import GpusSeen
from gpud.core.health import GpuPolicy
from gpud.core.model import Device, Phase
from gpud.core.sight import GpuProcess, GpuSight
from gpud.core.state import State

from .world import Key

FRESH_MS = 2_000
TOLERATED_MIB = 512  # of memory that nobody has
DESKTOPS = ("Xorg", "gnome-shell", "nvidia-cuda-mps-server")


class Seen(Struct):
    """The last look at one GPU, and what happened since."""

    sight: GpuSight | None = None
    began_ms: int = 0
    ended_ms: int = 0  # the last end there
    healed_ms: int = 0  # by a person, or by another boot
    heard_ms: int | None = None  # of the look; None: not since the last end was heard of
    base_mib: int | None = None  # nobody's, and nothing to worry about
    unreleased_ms: int | None = None  # since when
    to_be_released: bool = False  # an attempt has ended, and no look has shown its memory free


class Watch:
    def __init__(self) -> None:
        self.gpus: dict[str, Seen] = {}
        self.began_ms = 0
        self.problem = ""

    def of(self, uuid: str) -> Seen:
        return self.gpus.setdefault(uuid, Seen())

    # -- facts that were handled -------------------------------------------------------------------

    def note_look(
        self,
        look: GpusSeen,
        now_ms: int,
        busy: Collection[str],
        wait_ms: int,
        memory: dict[str, int],
        broken: Collection[str],
    ) -> bool:
        """False: there was a later one already. `busy`: GPUs that attempts have leased whose
        payload lives, before the look was handled. `wait_ms`: for memory to be given back; after
        that the GPU is in `memory`, with what may be in use there, unless it is `broken`."""
        if look.at_ms < self.began_ms:
            return False
        self.began_ms, self.problem = look.at_ms, look.problem
        for sight in self.judged(look):
            seen = self.of(sight.uuid)
            seen.sight, seen.began_ms, seen.heard_ms = sight, look.at_ms, now_ms
            if sight.problem or sight.uuid in busy:
                continue
            kept_mib = self._judge_memory(seen, sight, now_ms, wait_ms, memory.get(sight.uuid))
            if kept_mib is None:
                memory.pop(sight.uuid, None)
            elif kept_mib >= 0 and sight.uuid not in broken:
                memory[sight.uuid] = kept_mib
        return True

    def judged(self, look: GpusSeen) -> list[GpuSight]:
        """Without GPUs that were healed after it had begun: it says nothing of those."""
        return [sight for sight in look.gpus if look.at_ms >= self.of(sight.uuid).healed_ms]

    def _judge_memory(
        self, seen: Seen, sight: GpuSight, now_ms: int, wait_ms: int, kept_mib: int | None
    ) -> int | None:
        """None: all is well; -1: not yet; else it is a fault while more than this is in use."""
        assert sight.used_mib is not None
        loose = sight.used_mib - sum(process.mib or 0 for process in sight.processes)
        if kept_mib is not None:
            seen.base_mib = kept_mib
        elif seen.base_mib is None or not seen.to_be_released:
            seen.base_mib = loose
        if loose > seen.base_mib + TOLERATED_MIB:
            if seen.unreleased_ms is None:
                seen.unreleased_ms = now_ms
            if now_ms - seen.unreleased_ms < wait_ms:
                return -1
            if sight.attributable:
                return seen.base_mib
            seen.base_mib = loose  # it may be anybody's
        seen.base_mib, seen.unreleased_ms = min(loose, seen.base_mib), None
        seen.to_be_released = seen.began_ms <= seen.ended_ms
        return None

    def note_end(self, uuids: Collection[str], at_ms: int, *, looked_at: bool) -> None:
        for uuid in uuids:
            seen = self.of(uuid)
            seen.ended_ms, seen.to_be_released = max(at_ms, seen.ended_ms), True
            if not looked_at:
                seen.heard_ms = None

    def note_heal(self, uuid: str, now_ms: int) -> None:
        self.gpus[uuid] = Seen(ended_ms=self.of(uuid).ended_ms, healed_ms=now_ms)

    # -- what follows from them --------------------------------------------------------------------

    def faults(
        self, uuid: str, policy: GpuPolicy, holders: Collection[Key], now_ms: int
    ) -> set[str]:
        """Why nothing may be started on a GPU, but for a quarantine."""
        seen, found = self.of(uuid), set()
        if self.problem:
            found.add("the driver")
        if seen.sight is None or seen.heard_ms is None or seen.began_ms <= seen.ended_ms:
            found.add("unseen")
        elif now_ms - seen.heard_ms > FRESH_MS:
            found.add("old news")
        if seen.sight is not None and seen.sight.problem:
            found.add("trouble")
        elif seen.sight is not None:
            if is_occupied(seen.sight, policy, holders):
                found.add("others")
            if seen.unreleased_ms is not None:
                found.add("memory")
        return found

    def seen_free_mib(self, state: State) -> dict[str, int]:
        """By device: memory that the look found free and that nobody is promised."""
        found: dict[str, int] = {}
        for key, device in state.pool.devices.items():
            sights = [self.of(uuid).sight for uuid in device.uuids]
            if sights and all(sight is not None and not sight.problem for sight in sights):
                found[key] = min(_left_mib(state, key, sight) for sight in sights)
        return found


def _left_mib(state: State, key: str, sight: GpuSight) -> int:
    """Without what live attempts there are promised and do not use yet."""
    promised = {
        (job, attempt.no): part.mib
        for job, attempt in state.attempts.items()
        for part in attempt.lease
        if part.device == key
    }
    if not sight.attributable:
        return sight.free_mib - max(0, sum(promised.values()) - sight.used_mib)
    for process in sight.processes:
        if (owner := (process.job, process.attempt)) in promised:
            promised[owner] -= process.mib
    return sight.free_mib - sum(mib for mib in promised.values() if mib > 0)


def is_occupied(sight: GpuSight, policy: GpuPolicy, holders: Collection[Key]) -> bool:
    """By somebody who has no lease on it."""
    if not policy.respect_others or not sight.attributable:
        return False
    return any(
        is_foreign(process, policy) and (process.job, process.attempt) not in holders
        for process in sight.processes
    )


def is_foreign(process: GpuProcess, policy: GpuPolicy) -> bool:
    if process.name in (*DESKTOPS, *policy.ignored):
        return False
    return bool(process.job) or process.mib is None or process.mib > policy.tolerance_mib


def holders_of(state: State) -> dict[str, set[Key]]:
    """By UUID, the live attempts with a lease on that GPU."""
    found: dict[str, set[Key]] = {}
    for job, attempt in state.attempts.items():
        for uuid in uuids_of(attempt.lease, state.pool.devices):
            found.setdefault(uuid, set()).add((job, attempt.no))
    return found


def uuids_of(lease, devices: Mapping[str, Device]) -> list[str]:
    return [uuid for part in lease for uuid in part.uuids]


def check_guests(state: State, watch: Watch, policy: GpuPolicy) -> None:
    """After a look: on a guest GPU with its owner on it nothing goes on."""
    for attempt in state.attempts.values():
        for part in attempt.lease:
            device = state.pool.devices.get(part.device)
            if device is None or not device.guest or watch.problem or not policy.respect_others:
                continue
            for sight in filter(None, (watch.of(uuid).sight for uuid in device.uuids)):
                if sight.attributable and any(
                    is_foreign(p, policy) and not p.job for p in sight.processes
                ):
                    going_on = attempt.phase in (Phase.STARTING, Phase.RUNNING)
                    assert not going_on, f"{attempt} goes on beside the owner of {device}"

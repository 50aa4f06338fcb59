"""The pool: all devices, what is leased of each, and which of them may not be used now.

Owns capacity: `take` and `give_back` are the only places where it changes. Which device a job gets
is decided in core/placement.py, and which may not be used in core/watching.py, which tells the pool
by `block`.

A device has two capacities: thousandths of it, and MiB of its memory. A job that says nothing
about memory is promised its share of it (core/placement.py), so that such jobs and jobs that ask
for memory can be neighbours. Where the memory is not known nothing is promised.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from gpud.core.model import FULL_MILLI, Device, LeasePart, Request

Lease = tuple[LeasePart, ...]


class Pool:
    """All devices with their capacity.

    `leased` counts thousandths per device key, and `promised` MiB of the memory of each of its
    GPUs, also of devices that have left the pool while a lease on them lives on. Until it ends,
    their GPUs are not given out under another grouping. `blocked`: why a device takes no work now,
    as a clause. `seen_free` is how much memory a look has found and nobody is promised.
    """

    def __init__(self, devices: Iterable[Device], unknown: str = "") -> None:
        self.leased: dict[str, int] = {}
        self.promised: dict[str, int] = {}
        self.usual_mib: dict[str, int] = {}  # likeness -> what earlier runs took
        self._uuids: dict[str, tuple[str, ...]] = {}  # of leased devices, when they were leased
        self.replace(devices, unknown)

    def replace(self, devices: Iterable[Device], unknown: str = "") -> None:
        """Another set of devices; leases stay where they are. `unknown`: why no GPU may be used."""
        self.unknown = unknown
        self.devices: dict[str, Device] = {device.key: device for device in devices}
        self.has_gpus = any(device.ids for device in self.devices.values())
        self.watched = any(device.uuids or device.problem for device in self.devices.values())
        self.has_gates = any(device.gates for device in self.devices.values())
        self.blocked: dict[str, str] = {}  # until somebody judges them
        self.blocked_for_a_moment: set[str] = set()
        self.seen_free: dict[str, int] = {}
        self._look_for_held()

    def _look_for_held(self) -> None:
        """Ids of leased devices that are not in the pool, or are other GPUs now."""
        held: set[str] = set()
        for key in self.leased:
            if key not in self.devices:
                held.update(key.split(","))
            elif self.is_another(key):
                held.add(key)
            else:
                self._uuids[key] = self.devices[key].uuids
                continue
            held.update(self._uuids.get(key, ()))
        self._still_held = frozenset(held)

    def is_another(self, key: str) -> bool:
        """Whether other GPUs are called so now than when it was leased: indexes have moved up."""
        leased = self._uuids.get(key, ())
        return bool(leased) and leased != self.devices[key].uuids

    # -- capacity --------------------------------------------------------------------------------

    def free_milli(self, device: Device) -> int:
        """Thousandths that nobody has; never negative."""
        if self._still_held and not self._still_held.isdisjoint(
            (*device.ids, *device.uuids, device.key)
        ):
            return 0
        return max(0, FULL_MILLI - self.leased.get(device.key, 0))

    def free_slots(self, device: Device) -> int:
        return self.free_milli(device) // device.slot_milli

    def unpromised_mib(self, device: Device) -> int:
        """Memory that nobody is promised; of a device whose memory is not known, 0."""
        return device.memory_mib - self.promised.get(device.key, 0)

    def is_full(self, *, gpus: bool, but: Collection[str]) -> bool:
        """Whether no GPU (or the lane) has anything left that may be used now, except for `but`."""
        leased, blocked = self.leased, self.blocked
        for key, device in self.devices.items():
            if leased.get(key, 0) >= FULL_MILLI or bool(device.ids) != gpus:
                continue
            if key not in blocked and key not in but and self.free_milli(device) > 0:
                return False
        return True

    def has_room(self, device: Device, milli: int, mib: int, *, seen_mib: int) -> bool:
        """Whether that much of a device can be promised, and so much memory was seen to be free."""
        key = device.key
        if milli > self.free_milli(device):
            return False
        if seen_mib and self.seen_free.get(key, seen_mib) < seen_mib:
            return False
        return not mib or self.promised.get(key, 0) + mib <= device.memory_mib

    def take(self, lease: Lease) -> None:
        for part in lease:
            key = part.device
            if part.uuids:
                self._uuids[key] = part.uuids
            elif key not in self.leased and key in self.devices:
                self._uuids[key] = self.devices[key].uuids
            self.leased[key] = self.leased.get(key, 0) + part.milli
            if part.mib:
                self.promised[key] = self.promised.get(key, 0) + part.mib
                if key in self.seen_free:
                    self.seen_free[key] -= part.mib
            if key not in self.devices or self.is_another(key):
                self._look_for_held()

    def give_back(self, lease: Lease) -> None:
        for part in lease:
            key = part.device
            if part.mib:
                self._less(self.promised, key, part.mib)
            if self._less(self.leased, key, part.milli):
                self._uuids.pop(key, None)
                if self._still_held:
                    self._look_for_held()

    @staticmethod
    def _less(counts: dict[str, int], key: str, by: int) -> bool:
        """Whether nothing is left there."""
        left = counts[key] - by
        if left:
            counts[key] = left
            return False
        del counts[key]
        return True

    def label(self, key: str) -> str:
        """What people call a device, in the pool or not."""
        device = self.devices.get(key)
        return key if device is None else device.label

    # -- what may be used now ----------------------------------------------------------------------

    def block(self, reasons: dict[str, str], soon: set[str], seen_free: dict[str, int]) -> None:
        """From now on exactly these devices take no work, and there is that much memory. `soon`:
        those of them that will take some in a moment, as far as anybody can tell."""
        self.blocked, self.blocked_for_a_moment, self.seen_free = reasons, soon, seen_free

    def lasting(self) -> dict[str, str]:
        """What is blocked for longer than a moment, and why."""
        soon = self.blocked_for_a_moment
        return {key: why for key, why in self.blocked.items() if key not in soon}

    def may_be_counted_on(self, device: Device) -> bool:
        return device.key not in self.blocked or device.key in self.blocked_for_a_moment

    def copy(self) -> Pool:
        """With leases and blocks of its own."""
        other = Pool(self.devices.values(), self.unknown)
        other.leased, other.promised = dict(self.leased), dict(self.promised)
        other.usual_mib, other._uuids = self.usual_mib, dict(self._uuids)
        other._look_for_held()
        other.block(dict(self.blocked), set(self.blocked_for_a_moment), dict(self.seen_free))
        return other

    # -- requests --------------------------------------------------------------------------------

    def wanted(self, request: Request) -> int | None:
        """How many GPUs; None: one slot of any. On a pool without GPUs, a job that does not say is
        a job for the lane."""
        if request.gpus is None and not (self.has_gpus or self.unknown or needs_gpu(request)):
            return 0
        return request.gpus


def needs_gpu(request: Request) -> bool:
    """Whether it can only be meant for a GPU, without saying how many."""
    return bool(request.share_milli or request.vram_mib or request.gpu_model or request.exclusive)

"""The pool of devices, and which of their slots a job gets.

Owns capacity: `take` and `give_back` are the only places where it changes. Called by core/state.py
and core/scheduler.py. The rule, stable and explainable: a job that asks for no number gets one
slot of the device with the largest free share, the first in pool order among equals; a job that
asks for n GPUs gets a group of exactly n GPUs that is free as a whole slot, else a slot on each of
n single GPUs by the same rule.
"""

from __future__ import annotations

from collections.abc import Iterable

from gpud.core.model import CPU_LANE, FULL_MILLI, Device, LeasePart, Request

Lease = tuple[LeasePart, ...]


class Pool:
    """All devices with their capacity.

    `leased` counts thousandths per device key, also of devices that have left the pool while a
    lease on them lives on. Until it ends, their GPUs are not given out under another grouping.
    """

    def __init__(self, devices: Iterable[Device]) -> None:
        self.devices: dict[str, Device] = {}
        self.leased: dict[str, int] = {}
        self._still_held: frozenset[str] = frozenset()  # ids of leased devices not in the pool
        self.replace(devices)

    def replace(self, devices: Iterable[Device]) -> None:
        """Another set of devices; leases stay where they are."""
        self.devices = {device.key: device for device in devices}
        self._look_for_held()

    def _look_for_held(self) -> None:
        gone = self.leased.keys() - self.devices.keys()
        self._still_held = frozenset(i for key in gone for i in key.split(","))

    def free_milli(self, device: Device) -> int:
        """Free thousandths, rounded down to whole slots; never negative."""
        if self._still_held and not self._still_held.isdisjoint(device.ids):
            return 0
        free = FULL_MILLI - self.leased.get(device.key, 0)
        return max(0, free // device.slot_milli * device.slot_milli)

    def take(self, lease: Lease) -> None:
        for part in lease:
            self.leased[part.device] = self.leased.get(part.device, 0) + part.milli
            if part.device not in self.devices:
                self._look_for_held()

    def give_back(self, lease: Lease) -> None:
        for part in lease:
            left = self.leased[part.device] - part.milli
            if left:
                self.leased[part.device] = left
            else:
                del self.leased[part.device]
                if part.device not in self.devices:
                    self._look_for_held()

    def wanted(self, request: Request) -> int | None:
        """How many GPUs; None: one slot of any. On a pool without GPUs, a job that does not say is
        a job for the lane."""
        if request.gpus is None and not any(d.ids for d in self.devices.values()):
            return 0
        return request.gpus

    def place(self, request: Request) -> Lease | None:
        """The lease this request would get now, or None while nothing fits. Takes nothing."""
        gpus = self.wanted(request)
        if gpus is None:
            device = self._freest(d for d in self.devices.values() if d.ids)
            return (LeasePart(device.key, device.slot_milli),) if device else None
        if gpus == 0:
            lane = self.devices.get(CPU_LANE)
            if lane is None or self.free_milli(lane) < lane.slot_milli:
                return None
            return (LeasePart(lane.key, lane.slot_milli),)
        group = self._freest(d for d in self.devices.values() if len(d.ids) == gpus)
        if group is not None:
            return (LeasePart(group.key, group.slot_milli),)
        singles = [d for d in self.devices.values() if len(d.ids) == 1 and self.free_milli(d)]
        if len(singles) < gpus:
            return None
        singles.sort(key=self.free_milli, reverse=True)  # stable: pool order among equals
        chosen = set(singles[:gpus])
        return tuple(LeasePart(d.key, d.slot_milli) for d in self.devices.values() if d in chosen)

    def unsatisfiable(self, request: Request) -> str:
        """Why this pool could never serve the request, as a sentence; "" when it could."""
        gpus = self.wanted(request)
        if gpus is None:
            return ""
        if gpus == 0:
            return "" if CPU_LANE in self.devices else "needs the lane cpu, which has no slots"
        widths = [len(d.ids) for d in self.devices.values() if d.key != CPU_LANE]
        if gpus in widths or widths.count(1) >= gpus:
            return ""
        total = len({i for d in self.devices.values() for i in d.ids})
        if total < gpus:
            return f"needs {_gpus(gpus)}, this machine has {total}"
        return f"needs {_gpus(gpus)}, and no group of slots has exactly that many"

    def _freest(self, devices: Iterable[Device]) -> Device | None:
        best: Device | None = None
        most = 0
        for device in devices:
            free = self.free_milli(device)
            if free > most:
                best, most = device, free
        return best


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"

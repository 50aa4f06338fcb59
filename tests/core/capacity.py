"""Capacity, counted afresh from leases alone, without core/pool.py and core/placement.py.

Used by tests/core/promises.py after each dispatch, and by test_placement.py. What a job takes of a
device is written down here a second time, from docs and not from the code.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import combinations
from math import ceil

from msgspec import structs

from gpud.core.model import AUTO_VRAM, CPU_LANE, Device, LeasePart, Request

NOTHING: Mapping[str, int] = {}


class Free:
    """What is free of each device. `blocked`: keys that take no work now. `seen_mib`: by key, what
    a look has found free of its memory and nobody is promised. `usual_mib`: what earlier runs took.
    """

    def __init__(
        self,
        devices: Iterable[Device],
        leases: Iterable[Sequence[LeasePart]],
        blocked: Collection[str] = (),
        seen_mib: Mapping[str, int] = NOTHING,
        usual_mib: Mapping[str, int] = NOTHING,
    ) -> None:
        self.devices = {device.key: device for device in devices}
        self.blocked = blocked
        self.usual_mib = usual_mib
        self.seen_mib = dict(seen_mib)
        self.milli: dict[str, int] = {}  # taken
        self.mib: dict[str, int] = {}
        self.uuids: dict[str, set[str]] = {}
        for lease in leases:
            self._count(lease)

    def _count(self, lease: Sequence[LeasePart]) -> None:
        for part in lease:
            self.milli[part.device] = self.milli.get(part.device, 0) + part.milli
            self.mib[part.device] = self.mib.get(part.device, 0) + part.mib
            self.uuids.setdefault(part.device, set()).update(part.uuids)

    def take(self, lease: Sequence[LeasePart]) -> None:
        self._count(lease)
        for part in lease:
            if part.device in self.seen_mib:
                self.seen_mib[part.device] -= part.mib

    # -- of a device -------------------------------------------------------------------------------

    def milli_left(self, device: Device) -> int:
        """None while one of its GPUs is in use under another grouping."""
        for key in self.milli.keys() - self.devices.keys():
            held = self.uuids[key] | set(key.split(","))
            if held & {*device.ids, *device.uuids, device.key}:
                return 0
        return max(0, 1000 - self.milli.get(device.key, 0))

    def is_open(self, device: Device) -> bool:
        """Whether anything at all could be started on it."""
        return device.key not in self.blocked and self.milli_left(device) > 0

    def needs(self, device: Device, request: Request) -> tuple[int, int]:
        """(thousandths, MiB) of this device."""
        memory = device.memory_mib
        if request.exclusive:
            return 1000, memory
        if request.share_milli:
            milli = request.share_milli
        elif request.vram_mib and request.gpus is None and memory:
            milli = min(1000, max(1, ceil(Fraction(1000 * request.vram_mib, memory))))
        else:
            milli = 1000 // device.slots
        return milli, request.vram_mib or memory * milli // 1000

    def has_room(self, device: Device, request: Request) -> bool:
        if device.key in self.blocked:
            return False
        milli, mib = self.needs(device, request)
        if milli > self.milli_left(device):
            return False
        if mib and self.mib.get(device.key, 0) + mib > device.memory_mib:
            return False
        wanted = request.vram_mib
        return not wanted or self.seen_mib.get(device.key, wanted) >= wanted

    # -- of requests -------------------------------------------------------------------------------

    def asked(self, request: Request) -> Request:
        """What `--vram auto` comes to."""
        if request.vram_mib != AUTO_VRAM:
            return request
        usual = self.usual_mib.get(request.likeness)
        of_model = [d for d in self.devices.values() if suits_model(d, request)]
        need = None if usual is None else usual + usual * 15 // 100
        if need is None or not any(need * 10 <= d.memory_mib * 9 for d in of_model):
            return structs.replace(request, vram_mib=0, exclusive=True)
        return structs.replace(request, vram_mib=need)

    def is_for_cpu(self, request: Request) -> bool:
        if request.gpus is not None:
            return request.gpus == 0
        plain = not (
            request.share_milli or request.vram_mib or request.gpu_model or request.exclusive
        )
        return plain and not self.devices.keys() - {CPU_LANE}

    def suited(self, request: Request) -> list[Device]:
        """Devices that have what is asked for, free or not; the request is `asked`."""
        gpus = [device for device in self.devices.values() if device.key != CPU_LANE]
        if self.is_for_cpu(request):
            return [device for device in self.devices.values() if device.key == CPU_LANE]
        found = [d for d in gpus if suits_model(d, request) and d.memory_mib >= request.vram_mib]
        if request.share_milli:
            found = [device for device in found if len(device.ids) == 1]
        if request.gpus is not None:
            found = [device for device in found if len(device.ids) in (1, request.gpus)]
            found = [device for device in found if not (device.mig and request.gpus > 1)]
        return found

    def is_enough(self, request: Request, devices: Sequence[Device]) -> bool:
        """Whether these devices are what is asked for, or more."""
        if not request.gpus or request.gpus == 1:
            return bool(devices)
        widths = [len(device.ids) for device in devices]
        return request.gpus in widths or widths.count(1) >= request.gpus

    def fits(self, request: Request, but: Collection[str] = ()) -> bool:
        """Whether it could start now, on other devices than `but`."""
        request = self.asked(request)
        roomy = [d for d in self.suited(request) if d.key not in but and self.has_room(d, request)]
        return self.is_enough(request, roomy)

    def could_ever_fit(self, request: Request) -> bool:
        """Of an empty pool: whether it can be taken at all."""
        if request.vram_mib and not any(device.memory_mib for device in self.devices.values()):
            return False
        return self.fits(request)

    def check_lease(self, request: Request, lease: Sequence[LeasePart]) -> None:
        """The lease is what was asked for, and it was free."""
        request = self.asked(request)
        keys = [part.device for part in lease]
        assert keys, "a lease of nothing"
        assert len(set(keys)) == len(keys), f"{lease} has a device twice"
        assert set(keys) <= {d.key for d in self.suited(request)}, f"{lease} is not {request}"
        for part in lease:
            device = self.devices[part.device]
            assert (part.milli, part.mib) == self.needs(device, request), f"{lease} for {request}"
            assert part.uuids == device.uuids, f"{lease} is not what {device} is"
            assert self.has_room(device, request), f"{lease} on {device} with {self.milli}"
        gpus = sum(len(self.devices[key].ids) for key in keys)
        if request.gpus is None:
            assert len(keys) == 1, f"{lease} for one slot"
        else:
            assert gpus == request.gpus, f"{lease} for {request}"


def suits_model(device: Device, request: Request) -> bool:
    return request.gpu_model.lower() in device.model.lower()


def spread_of(devices: Sequence[Device]) -> int:
    """The steps between all pairs of single GPUs; 6 where nothing is known."""
    pairs = combinations(devices, 2)
    return sum(one.distance.get(other.uuids[0], 6) if other.uuids else 6 for one, other in pairs)

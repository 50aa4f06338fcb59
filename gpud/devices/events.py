"""Hears the driver's Xid events, in a thread of the GPU helper that is blocked in NVML.

Started by devices/child.py. Where the driver offers no events (WSL, vGPU) there are none; what an
Xid leaves behind is then seen by devices/health.py.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from gpud.devices.finding import Unit
from gpud.devices.health import recovery_action
from gpud.devices.nvml import TIMEOUT, NvmlTrouble, call
from gpud.devices.xids import is_broken_for_sure, judge

XID_CRITICAL_ERROR = 0x8  # nvml.h: nvmlEventTypeXidCriticalError
WAIT_MS = 600_000  # it wakes up for nothing six times an hour
ERROR_PAUSE_S = 10.0  # a lost GPU makes every wait fail at once


class Listener:
    """`broke` is called from the thread, with UUIDs and a clause; `stir` with the UUIDs of a GPU
    about which there was any Xid at all.

    An event names its GPU by a handle. Which GPU a handle means does not change; its index does.
    """

    def __init__(
        self,
        broke: Callable[[tuple[str, ...], str], None],
        stir: Callable[[tuple[str, ...]], None],
    ) -> None:
        self._broke, self._stir = broke, stir
        self._units: dict[int, tuple[Unit, ...]] = {}  # by the address that a handle is
        self._asked: set[int] = set()  # for the events of these addresses
        self._events: Any = None

    def heed(self, index: int, units: Sequence[Unit]) -> None:
        """What is at this index now. Asks for a GPU's events the first time."""
        if units:
            self._units[_address(units[0].gpu)] = tuple(units)
            self._ask_for_events(units[0].gpu)
        else:
            known = self._units.items()
            self._units = {at: here for at, here in known if here[0].at != index}

    def _ask_for_events(self, gpu: Any) -> None:
        if _address(gpu) in self._asked:
            return
        self._asked.add(_address(gpu))
        try:
            if self._events is None:
                self._events = call("EventSetCreate")
                threading.Thread(target=self._listen, daemon=True).start()
            call("DeviceRegisterEvents", gpu, XID_CRITICAL_ERROR, self._events)
        except NvmlTrouble:
            pass

    def _listen(self) -> None:
        while True:
            try:
                event = call("EventSetWait_v2", self._events, WAIT_MS)
            except NvmlTrouble as trouble:
                if trouble.whole:
                    return
                if trouble.code != TIMEOUT:
                    time.sleep(ERROR_PAUSE_S)
                continue
            units = self._units.get(_address(event.device))
            if units and event.eventType & XID_CRITICAL_ERROR:
                self._judge(units, int(event.eventData), event.gpuInstanceId)

    def _judge(self, units: tuple[Unit, ...], xid: int, instance: int) -> None:
        self._stir(_uuids(units))
        action = None
        if not is_broken_for_sure(xid):
            try:
                action = recovery_action(units[0].gpu)
            except NvmlTrouble:
                pass
            here = tuple(unit for unit in units if unit.mig and unit.mig[0] == instance)
            units = here or units  # an Xid can be of one MIG instance
        if why := judge(xid, action):
            self._broke(_uuids(units), why)


def _uuids(units: Sequence[Unit]) -> tuple[str, ...]:
    return tuple(unit.uuid for unit in units)


def _address(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0

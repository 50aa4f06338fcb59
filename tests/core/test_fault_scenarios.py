"""A thousand bad weeks on GPUs that others use too, that break, and that are looked at late.

Besides all the promises that tests/core/scenarios.py checks after each step, two things are counted
here by themselves: starts on a GPU that a foreign process occupied at the
last look before the dispatch, and GPUs that are leased to more than the whole of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from gpud.core.actions import Action, StartAttempt
from gpud.core.events import GpusSeen
from gpud.core.sight import GpuSight

from .scenarios import live
from .turns import Daemon
from .watch import is_foreign

SCENARIOS = 1000


class Counts:
    """Patched into the daemon of each scenario."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.found: Counter[str] = Counter()
        self.shown: dict[str, GpuSight] = {}  # by UUID: the latest look that this daemon heard of
        self.began_ms = 0
        dispatch, handle, restart = Daemon.dispatch, Daemon.handle, Daemon.restart

        def counting(daemon: Daemon, now_ms: int) -> list[Action]:
            actions = dispatch(daemon, now_ms)
            self.count(daemon, actions)
            return actions

        def hearing(daemon: Daemon, event, now_ms: int) -> Sequence[Action]:
            if isinstance(event, GpusSeen):
                self.hear(event)
            return handle(daemon, event, now_ms)

        def forgetting(daemon: Daemon) -> None:
            self.shown, self.began_ms = {}, 0
            restart(daemon)

        patch.setattr(Daemon, "dispatch", counting)
        patch.setattr(Daemon, "handle", hearing)
        patch.setattr(Daemon, "restart", forgetting)

    def hear(self, look: GpusSeen) -> None:
        self.found["looks"] += 1
        if look.at_ms >= self.began_ms:
            self.began_ms = look.at_ms
            self.shown |= {sight.uuid: sight for sight in look.gpus}

    def count(self, daemon: Daemon, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, StartAttempt):
                self.found["starts"] += 1
                for part in action.lease:
                    for uuid in daemon.gpus.of_key.get(part.device, ()):
                        self.found["on GPUs that can be looked at"] += 1
                        self.found["on an occupied GPU"] += self.is_occupied(daemon, uuid)
        self.found["leased twice"] += len(overfull(daemon))

    def is_occupied(self, daemon: Daemon, uuid: str) -> bool:
        sight = self.shown.get(uuid)
        if sight is None or not daemon.policy.respect_others or not sight.attributable:
            return False
        return any(p.job == 0 and is_foreign(p, daemon.policy) for p in sight.processes)


def overfull(daemon: Daemon) -> list[str]:
    """GPUs of which more than the whole is leased, or more memory than there is."""
    milli: Counter[str] = Counter()
    mib: Counter[str] = Counter()
    for attempt in daemon.state.attempts.values():
        for part in attempt.lease:
            for uuid in daemon.gpus.of_key.get(part.device, (part.device,)):
                milli[uuid] += part.milli
                mib[uuid] += part.mib
    gpus = daemon.gpus.by_uuid
    full = {uuid for uuid, taken in milli.items() if taken > 1000}
    return [*full, *(uuid for uuid in mib.keys() & gpus if mib[uuid] > gpus[uuid].total_mib)]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_fault_starts_a_job_on_an_occupied_gpu_or_loses_capacity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = Counts(monkeypatch)
    for seed in range(SCENARIOS):
        machine = live(seed)
        pool = machine.daemon.state.pool
        counts.found["leaked"] += len(pool.leased) + len(pool.promised)
    found = counts.found
    assert found["on GPUs that can be looked at"] > 3 * SCENARIOS, f"too little happened: {found}"
    wrong = {what: found[what] for what in ("on an occupied GPU", "leased twice", "leaked")}
    assert not any(wrong.values()), f"in {SCENARIOS} scenarios: {found}"

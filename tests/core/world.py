"""The runner, faked: a journal, payloads that live and end, and what it says of them.

Used by tests/core/turns.py. Checks by itself what it may be asked: an attempt is started at most
once, with one lease. What the real one does is in docs/runner-protocol.md and gpud/ports.py.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import count

from msgspec import Struct

from gpud.core.actions import StartAttempt
from gpud.core.events import (
    AttemptEnded,
    AttemptLingering,
    AttemptNotStarted,
    AttemptStarted,
    KnownAttempt,
    RunnerReady,
)
from gpud.core.model import JobId, LeasePart, Outcome

Key = tuple[JobId, int]
Fact = AttemptStarted | AttemptLingering | AttemptEnded | AttemptNotStarted

LOST_BY_RUNNER = "the runner died while it ran"


class Payload(Struct):
    """What the runner's journal and the machine hold of one attempt."""

    lease: tuple[LeasePart, ...]
    pid: int = 0  # 0 until its process is made
    orphan: bool = False  # its runner died: nobody can know how it ends
    stopped: bool = False  # or asked for a checkpoint
    paused: bool = False
    older: bool = False  # its runner knows neither pause nor checkpoint
    started: AttemptStarted | None = None
    end: AttemptEnded | AttemptNotStarted | None = None


class FakeRunner:
    """Starts nothing; knows exactly what was started, what lives and how it ended."""

    def __init__(self) -> None:
        self.boot = 1
        self.connected = False
        self.journal: dict[Key, Payload] = {}
        self.ever: dict[Key, tuple[LeasePart, ...]] = {}  # accepted, in any boot
        self.truth: dict[Key, set[Outcome]] = {}  # what may be said of an end, but for a cancel
        self.ends: dict[Key, AttemptEnded] = {}  # in any boot
        self.wire: list[Fact] = []  # said, and not yet heard
        self.past: list[Fact] = []  # all that was ever said
        self._pids = count(100)

    @property
    def boot_id(self) -> str:
        return f"boot-{self.boot}"

    def alive(self) -> dict[Key, Payload]:
        return {key: payload for key, payload in self.journal.items() if payload.end is None}

    # -- what it is asked --------------------------------------------------------------------

    def start(self, action: StartAttempt) -> None:
        if not self.connected:
            return
        key = action.job, action.attempt
        if key in self.journal:
            payload = self.journal[key]
            assert payload.lease == action.lease, f"{key} is sent with two leases"
            if payload.end is not None:
                self._say(payload.end)
            elif payload.started is not None:
                self._say(payload.started)
            return
        assert key not in self.ever, f"{key} is started a second time"
        others = [other for other in self.alive() if other[0] == action.job]
        assert not others, f"{key} is started while {others} live"
        self.ever[key] = action.lease
        self.journal[key] = Payload(action.lease)

    def stop(self, key: Key) -> None:
        """Or a checkpoint, which an older runner takes for a stop."""
        if self.connected and key in self.journal:
            self.journal[key].stopped, self.journal[key].paused = True, False

    def pause(self, key: Key, *, paused: bool = True) -> None:
        if self.connected and key in self.journal:
            assert not self.journal[key].older, f"{key} has a runner that knows no pause"
            self.journal[key].paused = paused and not self.journal[key].stopped

    def forget(self, key: Key) -> None:
        """Also compacts: from here on only the core keeps the attempt from a second start."""
        if self.connected and key in self.journal:
            assert self.journal[key].end is not None, f"{key} lives and shall be forgotten"
            del self.journal[key]

    def meet(self) -> RunnerReady:
        """A daemon says hello; what was on its way on the old connection is gone."""
        self.connected = True
        self.wire = [payload.end for payload in self.journal.values() if payload.end]
        known = [KnownAttempt(*key, phase(p), p.pid, p.older) for key, p in self.journal.items()]
        return RunnerReady(self.boot_id, tuple(known))

    # -- what happens to it ------------------------------------------------------------------

    def disconnect(self) -> None:
        self.connected = False
        self.wire.clear()

    def die(self) -> None:
        """The runner, not the payloads: what lives is adopted and ends as lost."""
        self.disconnect()
        for payload in self.alive().values():
            payload.orphan = True

    def grow_old(self, paused: Collection[Key]) -> None:
        """gpud was upgraded: what lives keeps its runner, new attempts get another. Who is `paused`
        has one that can do that."""
        self.disconnect()
        for key, payload in self.alive().items():
            payload.older = payload.older or key not in paused

    def reboot(self, now_ms: int, *, remembers: bool) -> None:
        """No payload survives; the journal does, or its last writes are gone with the power."""
        self.disconnect()
        self.boot += 1
        if remembers:
            for key in self.alive():
                self.end(key, now_ms, lost="the machine was restarted")
            self.wire.clear()
        else:
            for key in self.journal:
                self.truth.setdefault(key, set()).add(Outcome.LOST)
            self.journal.clear()

    # -- what happens to payloads --------------------------------------------------------------

    def launch(self, key: Key, now_ms: int) -> None:
        payload = self.journal[key]
        if not payload.pid and not payload.orphan:
            payload.pid = next(self._pids)
            payload.started = AttemptStarted(*key, payload.pid, now_ms)
            self._say(payload.started)

    def refuse(self, key: Key, now_ms: int) -> None:
        """Its directory does not exist, or something like that."""
        payload = self.journal[key]
        if not payload.pid and not payload.orphan:
            payload.end = AttemptNotStarted(*key, now_ms, "cwd", "the directory /x does not exist")
            self.truth[key] = {Outcome.NOT_STARTED}
            self._say(payload.end)

    def linger(self, key: Key, now_ms: int) -> None:
        if self.journal[key].pid:
            self._say(AttemptLingering(*key, now_ms, ("sleep (7)",)))

    def end(self, key: Key, now_ms: int, **how: object) -> None:
        payload = self.journal[key]
        if payload.orphan and "lost" not in how:
            how = {"lost": LOST_BY_RUNNER}
        elif not payload.pid and "lost" not in how:
            self.launch(key, now_ms)
        stopped = payload.stopped
        payload.end = self.ends[key] = AttemptEnded(*key, now_ms, stopped=stopped, **how)
        if "lost" in how:
            self.truth[key] = {Outcome.LOST}
        elif how.get("timed_out"):
            self.truth[key] = {Outcome.TIMED_OUT}
        elif "signal" in how:
            self.truth[key] = {Outcome.KILLED}
        else:
            self.truth[key] = {Outcome.FAILED if how["exit_code"] else Outcome.SUCCEEDED}
        self._say(payload.end)

    def _say(self, fact: Fact) -> None:
        self.past.append(fact)
        if self.connected:
            self.wire.append(fact)


def phase(payload: Payload) -> str:
    if payload.end is not None:
        return "not-started" if isinstance(payload.end, AttemptNotStarted) else "ended"
    if payload.stopped:
        return "stopping"
    if payload.paused:
        return "paused"
    return "running" if payload.pid else "starting"

"""The part of the machine about GPUs that can be looked at: what happens to them, and looks.

A mixin of tests/core/machine.py. Foreign processes come and go, GPUs break and are healed, memory
stays in use, the driver is silent; looks are told late, twice, and in any order.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from gpud.core.events import Event, GpuBroke, HealRequested

from .draws import fates, often, picks
from .gpus import NO_ANSWER
from .turns import Daemon, Fate

MOST_LOOKS = 6  # one after the other, before a world that answers at once lets time pass

which = st.integers(0, 3)


def is_watched(machine: LooksAtGpus) -> bool:
    return machine.daemon.state.pool.watched


class LooksAtGpus:
    daemon: Daemon
    now_ms: int

    def post(self, event: Event, fate: Fate) -> None:
        raise NotImplementedError  # a mixin: CoreMachine has it

    def request(self) -> int:
        raise NotImplementedError  # the same

    def uuid(self, which: int) -> str:
        """Those with a lease on them above all."""
        gpus, alive = self.daemon.gpus, self.daemon.runner.alive().values()
        leased = [u for p in alive for part in p.lease for u in gpus.of_key.get(part.device, ())]
        uuids = [*sorted(leased), *sorted(gpus.by_uuid)]
        return uuids[which % len(uuids)]

    def begin_look_if_asked(self) -> None:
        if self.daemon.gpus.asked:
            self.daemon.gpus.begin_look(self.now_ms, self.daemon.runner)

    def tell_looks(self) -> None:
        """All that are under way."""
        gpus = self.daemon.gpus
        self.begin_look_if_asked()
        while gpus.under_way:
            self.now_ms += 1
            self.daemon.post(gpus.under_way[0])
            gpus.told.append(gpus.under_way.pop(0))
            self.daemon.turn(self.now_ms)

    def tell_look(self, place: int, fate: Fate) -> None:
        gpus = self.daemon.gpus
        look = gpus.under_way.pop(place)
        gpus.told.append(look)
        self.post(look, fate)

    def answer_looks(self) -> None:
        """Whoever asks for a look gets it at once."""
        gpus = self.daemon.gpus
        for _ in range(MOST_LOOKS):
            if not gpus.asked:
                return
            self.now_ms += 1
            gpus.begin_look(self.now_ms, self.daemon.runner)
            self.now_ms += 1
            look = gpus.under_way.pop()
            gpus.told.append(look)
            self.daemon.post(look)
            self.daemon.turn(self.now_ms)
        assert not gpus.asked, "looks are asked for again and again"

    # -- looks -----------------------------------------------------------------------------------

    def see(self) -> None:
        self.now_ms += 1
        self.daemon.gpus.begin_look(self.now_ms, self.daemon.runner)
        self.tell_looks()

    @precondition(is_watched)
    @rule(at_once=often, ms=st.sampled_from([1, 3, 300]), fate=fates)
    def look(self, at_once: bool, ms: int, fate: Fate) -> None:
        self.now_ms += 1
        self.daemon.gpus.begin_look(self.now_ms, self.daemon.runner)
        if at_once:
            self.now_ms += ms
            self.tell_look(-1, fate)

    @precondition(lambda self: is_watched(self) and self.daemon.gpus.under_way)
    @rule(pick=which, fate=fates)
    def look_is_told_late(self, pick: int, fate: Fate) -> None:
        self.tell_look(pick % len(self.daemon.gpus.under_way), fate)

    @precondition(lambda self: is_watched(self) and self.daemon.gpus.told)
    @rule(picks=picks, fate=fates)
    def look_is_told_again(self, picks: list[int], fate: Fate) -> None:
        told = self.daemon.gpus.told
        for pick in picks:
            self.daemon.post(told[-1 - pick % len(told)])
        self.post(told[-1], fate)

    # -- what happens to GPUs --------------------------------------------------------------------

    @precondition(is_watched)
    @rule(
        which=which,
        comes=often,
        name=st.sampled_from(["python", "python", "Xorg", "dcgm"]),
        mib=st.sampled_from([50, 20_000]),
        seen=often,
    )
    def others(self, which: int, comes: bool, name: str, mib: int, seen: bool) -> None:
        uuid = self.uuid(which)
        if comes:
            self.daemon.gpus.guest_comes(uuid, mib, name)
        else:
            self.daemon.gpus.by_uuid[uuid].foreign = ()
        if seen:
            self.see()

    @precondition(is_watched)
    @rule(
        which=which,
        how=st.sampled_from(["xid", "look", "trouble", "mended"]),
        seen=often,
        fate=fates,
    )
    def gpu_breaks(self, which: int, how: str, seen: bool, fate: Fate) -> None:
        uuid = self.uuid(which)
        gpu = self.daemon.gpus.by_uuid[uuid]
        if how == "xid":
            self.post(GpuBroke(uuid, self.now_ms, "Xid 79: it has fallen off the bus"), fate)
        gpu.broken = "it hung" if how == "look" else ""
        gpu.trouble = "it is being reset" if how == "trouble" else ""
        if seen:
            self.see()

    @precondition(is_watched)
    @rule(which=which, mib=st.sampled_from([0, 0, 400, 2_000]), idle=st.booleans(), seen=often)
    def memory_is_left(self, which: int, mib: int, idle: bool, seen: bool) -> None:
        gpu = self.daemon.gpus.by_uuid[self.uuid(which)]
        gpu.leaked_mib, gpu.idle = mib, idle
        if seen:
            self.see()

    @precondition(is_watched)
    @rule(silent=st.sampled_from([False] * 3 + [True]), blind=st.sampled_from([False] * 4 + [True]))
    def driver(self, silent: bool, blind: bool) -> None:
        gpus = self.daemon.gpus
        gpus.driver_problem, gpus.blind = NO_ANSWER * silent, blind

    @precondition(is_watched)
    @rule(picks=st.lists(which, max_size=2), mended=often, fate=fates)
    def heal(self, picks: list[int], mended: bool, fate: Fate) -> None:
        uuids = tuple(dict.fromkeys(map(self.uuid, picks)))
        if mended:
            for uuid in uuids or self.daemon.gpus.by_uuid:
                self.daemon.gpus.by_uuid[uuid].broken = ""
        self.post(HealRequested(self.request(), uuids), fate)

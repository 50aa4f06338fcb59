"""The NVIDIA driver, asked through helpers that may hang and crash.

Used by devices/watcher.py. Owns the helper, the time limits, and what is known of each GPU between
two helpers. No call waits for a driver longer than its limits say.

Rule 1: a helper that is silent for too long is killed and left; the next one takes its place.
Rule 2: a GPU at which it was silent is not touched again, until somebody asks `find` afresh.
Rule 3: a GPU at which it crashed twice since the last whole look is not touched again either.
Rule 4: silence and crashes at no GPU, and a driver that refuses, are trouble with all of it: the
    next try comes after a pause, which grows until a look succeeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct, structs

from gpud.core.sight import GpuInfo, GpuSight
from gpud.devices.helper import DEATH_WAIT_S, Helper
from gpud.devices.patience import USUAL, Limits, Lost, Trouble, receive
from gpud.devices.wire import At, Broke, Find, Found, Look, Looked, Seen
from gpud.errors import GpudError
from gpud.ports import GpusFound, Watched

MOST_PAUSE_S = 60.0

NO_ANSWER = "the NVIDIA driver does not answer"
NOT_LISTED = "the driver does not list it any more"
NOT_YET = "the driver has not answered for it yet"


class Sights(Struct):
    """A look as far as it has come."""

    by_uuid: dict[str, GpuSight] = {}
    done: set[int] = set()  # indices


class Driver:
    def __init__(
        self,
        broke: Callable[[Broke], None],
        *,
        blind: str,
        limits: Limits = USUAL,
        warn: Callable[..., None] = lambda event, **values: None,
    ) -> None:
        self._broke = broke
        self._blind = blind
        self._limits = limits
        self._warn = warn
        self._helper: Helper | None = None
        self._dying: set[Helper] = set()
        self._talking = asyncio.Lock()  # one conversation at a time
        self._found: Found | None = None
        self._at: dict[int, tuple[GpuInfo, ...]] = {}  # what was last known at each index
        self._skipped: dict[int, str] = {}  # index -> why it is not touched
        self._known: dict[str, None] = {}  # all UUIDs since `find` was asked
        self._crashes: dict[int, int] = {}  # at each index, since the last whole look
        self._count = 0  # of GPUs, as last heard: what indices mean depends on it
        self._pause_s = 0.0
        self._trouble = Trouble(NO_ANSWER)
        self._not_before = 0.0  # by the loop's clock

    # -- what there is -------------------------------------------------------------------------

    async def find(self) -> GpusFound:
        """Afresh: no GPU is left out, whatever it did before. Raises Trouble."""
        async with self._talking:
            self._skipped.clear()
            self._known.clear()
            self._not_before = 0.0
            self._crashes.clear()
            if self._helper is not None:
                self._put_away(self._helper)  # a new one sees what a driver update has brought
            await self._ready()
            return self.found

    @property
    def found(self) -> GpusFound:
        """As far as is known."""
        if self._found is None:
            return GpusFound("", (), blind=self._blind)
        reasons = {**self._found.unread, **self._found.unusable, **self._skipped}
        return GpusFound(
            self._found.driver,
            tuple(gpu for index in sorted(self._at) for gpu in self._at[index]),
            tuple(
                f"GPU {index} cannot be used: {reasons[index]}"
                for index in sorted(reasons)
                if not self._at.get(index)
            ),
            self._blind,
        )

    @property
    def count(self) -> int:
        """How many GPUs the driver has, whatever their state."""
        return self._count

    def _heard_count(self, count: int) -> None:
        if count != self._count:  # an index means another GPU now
            self._count = count
            self._at.clear()
            self._skipped.clear()
            self._crashes.clear()

    def _learn(self, found: Found) -> None:
        self._heard_count(found.count)
        self._found = found
        self._skipped = {i: why for i, why in self._skipped.items() if i in found.skipped}
        out_of_reach = {*found.unread, *found.skipped}
        kept = {gpu.uuid for index in out_of_reach for gpu in self._at.get(index, ())}
        before = {gpu.uuid: gpu for gpus in self._at.values() for gpu in gpus}
        for index in range(found.count):
            if index not in out_of_reach:
                self._at[index] = tuple(
                    _with_distances(gpu, before.get(gpu.uuid), kept)
                    for gpu in found.gpus
                    if gpu.index == index
                )
        self._known.update(dict.fromkeys(gpu.uuid for here in self._at.values() for gpu in here))

    # -- how it is -----------------------------------------------------------------------------

    async def look(self, watched: Watched, sights: Sights, *, health: bool) -> None:
        """One look at all GPUs, into `sights` as it goes. Raises Trouble."""
        async with self._talking:
            while True:
                helper = await self._ready()
                with self._putting_away(helper):
                    await self._look(helper, watched, sights, health)
                    break
            self._crashes.clear()
            self._pause_s = 0.0
            for index, why in self._skipped.items():
                self._tell_all(index, sights, why, broken=True)
            for uuid in self._known:
                if uuid not in sights.by_uuid:
                    sights.by_uuid[uuid] = GpuSight(uuid, NOT_LISTED, broken=True)

    def all_of(self, sights: Sights) -> tuple[GpuSight, ...]:
        """All known GPUs in a steady order, also those that the look has not come to."""
        return tuple(sights.by_uuid.get(uuid) or GpuSight(uuid, NOT_YET) for uuid in self._known)

    async def _look(self, helper: Helper, watched: Watched, sights: Sights, health: bool) -> None:
        skip, done = tuple(self._skipped), tuple(sights.done)
        blind = bool(self._blind)
        helper.send(Look(watched.attempts, watched.runners, skip, done, health, blind))
        at: int | None = None
        while True:
            match await receive(helper, at, self._limits.look_s):
                case At(index, of):
                    at = index
                    if of != self._count:
                        self._heard_count(of)
                        sights.done.clear()
                case Seen(index, seen, problem, broken):
                    sights.done.add(index)
                    sights.by_uuid.update((sight.uuid, sight) for sight in seen)
                    if problem:
                        self._tell_all(index, sights, problem, broken=broken)
                case Looked(found):
                    if found is not None:
                        self._learn(found)
                    return

    def _tell_all(self, index: int, sights: Sights, problem: str, *, broken: bool) -> None:
        for gpu in self._at.get(index, ()):
            sights.by_uuid[gpu.uuid] = GpuSight(gpu.uuid, problem, broken)

    # -- helpers -------------------------------------------------------------------------------

    async def _ready(self) -> Helper:
        """A helper that has said what there is. Raises Trouble."""
        loop = asyncio.get_running_loop()
        if self._helper is not None and self._helper.is_over:
            self._warn("gpu_helper_lost", gpu=None, why="ended while nobody asked it anything")
            self._put_away(self._helper)
        while self._helper is None:
            if loop.time() < self._not_before:
                raise Trouble(self._trouble.why, missing=self._trouble.missing)
            try:
                helper = await Helper.start(self._broke)
            except GpudError as error:
                raise self._pause(Trouble(error.message)) from error
            with self._putting_away(helper):
                self._learn(await self._find(helper))
                self._helper = helper
        return self._helper

    @contextmanager
    def _putting_away(self, helper: Helper) -> Iterator[None]:
        """Whatever interrupts a conversation, this helper has no other. One that is lost at a GPU
        is made up for: the block ends without an exception. Raises Trouble."""
        try:
            yield
        except Lost as lost:
            self._put_away(helper)
            self._lose(lost)
        except Trouble as trouble:
            self._put_away(helper)
            raise self._pause(trouble) from None
        except BaseException:
            self._put_away(helper)
            raise

    async def _find(self, helper: Helper) -> Found:
        helper.send(Find(tuple(self._skipped), self._count))
        at: int | None = None
        limit_s = self._limits.init_s
        while True:
            match await receive(helper, at, limit_s):
                case At(index, of):
                    self._heard_count(of)
                    at, limit_s = index, self._limits.wake_s
                case Found() as found:
                    return found

    def _lose(self, lost: Lost) -> None:
        """Rules 2 to 4. Raises Trouble."""
        self._warn("gpu_helper_lost", gpu=lost.at, why=lost.why)
        if lost.at is None:
            how = f"the GPU helper {lost.why}" if lost.crashed else NO_ANSWER
            raise self._pause(Trouble(how)) from None
        if lost.crashed:
            self._crashes[lost.at] = self._crashes.get(lost.at, 0) + 1
            if self._crashes[lost.at] < 2:
                return
        why = f"the GPU helper {lost.why} at it, twice" if lost.crashed else lost.why
        self._skipped[lost.at] = why

    def _pause(self, trouble: Trouble) -> Trouble:
        least_s = self._limits.first_pause_s
        self._pause_s = min(max(least_s, 2 * self._pause_s), MOST_PAUSE_S)
        self._not_before = asyncio.get_running_loop().time() + self._pause_s
        self._trouble = trouble
        return trouble

    def _put_away(self, helper: Helper) -> None:
        if self._helper is helper:
            self._helper = None
        helper.kill()
        self._dying = {one for one in self._dying if not one.is_dead}
        self._dying.add(helper)

    async def close(self) -> None:
        """Returns at once, also when a helper cannot die."""
        if self._helper is not None:
            self._put_away(self._helper)
        deadline = asyncio.get_running_loop().time() + DEATH_WAIT_S
        for helper in self._dying:
            left_s = max(0.0, deadline - asyncio.get_running_loop().time())
            if not await helper.dead(left_s):
                helper.abandon()
        self._dying.clear()


def _with_distances(gpu: GpuInfo, before: GpuInfo | None, kept: set[str]) -> GpuInfo:
    """How far the GPUs are that could not be asked this time is as it was."""
    old = {uuid: far for uuid, far in before.distance.items() if uuid in kept} if before else {}
    return structs.replace(gpu, distance=old | gpu.distance) if old else gpu

"""The NVIDIA driver, asked through helpers that may hang and crash.

Used by devices/watcher.py. Owns the helper and the time limits; what its answers mean is
devices/knowledge.py's. No call waits for a driver longer than its limits say.

Rule 1: a helper that is silent for too long is killed and left; the next one takes its place.
Rule 2: a GPU at which it was silent is not touched again, until somebody asks afresh.
Rule 3: a GPU at which it crashed twice since the last whole look is not touched again either.
Rule 4: silence and crashes at no GPU, and a driver that refuses, are trouble with all of it: the
    next try comes after a pause, which grows until a look succeeds.
Rule 5: asked afresh, no pause is kept, and the GPUs of rules 2 and 3 are touched again, one between
    two looks, so that a look at the others waits for one of them at the most. One at which a
    helper is lost once more is left alone at once.
Rule 6: asked afresh about a GPU that fails by the driver's own word, or that is gone, another
    helper takes the place of this one, which may never see it come back. Until the new one is ready
    the old one stays, which keeps the GPUs awake.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpud.devices.helper import DEATH_WAIT_S, Helper
from gpud.devices.knowledge import Knowledge, Sights
from gpud.devices.patience import USUAL, Limits, Lost, Trouble, receive
from gpud.devices.wire import At, Broke, Find, Found, Look, Looked, Seen, Touch
from gpud.errors import GpudError
from gpud.ports import GpusFound, Watched

MOST_PAUSE_S = 60.0

NO_ANSWER = "the NVIDIA driver does not answer"


class Driver:
    def __init__(
        self,
        broke: Callable[[Broke], None],
        *,
        blind: str,
        limits: Limits = USUAL,
        warn: Callable[..., None] = lambda event, **values: None,
    ) -> None:
        self.knowledge = Knowledge(blind)
        self._broke = broke
        self._blind = bool(blind)
        self._limits = limits
        self._warn = warn
        self._helper: Helper | None = None
        self._dying: set[Helper] = set()
        self._talking = asyncio.Lock()  # one conversation at a time
        self._afresh = False
        self._pause_s = 0.0
        self._trouble = Trouble(NO_ANSWER)
        self._not_before = 0.0  # by the loop's clock

    # -- conversations -------------------------------------------------------------------------

    async def find(self) -> GpusFound:
        """All of it: no GPU is left out, whatever it did before. Raises Trouble."""
        async with self._talking:
            self.knowledge.forget()
            self._not_before = 0.0
            if self._helper is not None:
                self._put_away(self._helper)  # a new one sees what a driver update has brought
            await self._ready()
            return self.knowledge.found

    def ask_afresh(self) -> None:
        """Rules 5 and 6, from the next look on."""
        self._afresh = True

    @property
    def is_asked_afresh(self) -> bool:
        """Since the last look began."""
        return self._afresh

    async def look(self, watched: Watched, sights: Sights, *, health: bool) -> None:
        """One look at all GPUs that may be touched, into `sights` as it goes. Raises Trouble."""
        async with self._talking:
            if self._afresh:
                self._afresh = False
                self._not_before = 0.0
                renews = self.knowledge.asks_for_another
                self.knowledge.begin_afresh()
                if renews:
                    await self._renew()
            while True:
                helper = await self._ready()
                with self._putting_away(helper):
                    await self._look(helper, watched, sights, health)
                    break
            self._pause_s = 0.0
            self.knowledge.looked(sights)

    async def touch_again(self) -> bool:
        """Rule 5: one GPU. Whether what came of it is worth a look."""
        async with self._talking:
            helper, again = self._helper, self.knowledge.again
            if helper is None or not again or self._afresh:
                return False
            index = min(again)
            again.discard(index)
            try:
                with self._putting_away(helper):
                    await self._touch(helper, index)
            except Trouble:
                pass  # the next look tells of it
            return True

    async def _look(self, helper: Helper, watched: Watched, sights: Sights, health: bool) -> None:
        skip, done = tuple(self.knowledge.skipped), tuple(sights.done)
        helper.send(Look(watched.attempts, watched.runners, skip, done, health, self._blind))
        at: int | None = None
        while True:
            match await receive(helper, at, self._limits.look_s):
                case At(index, of):
                    at = index
                    if of != self.knowledge.count:
                        self.knowledge.heard_count(of)
                        sights.done.clear()
                case Seen() as seen:
                    self.knowledge.saw(seen, sights)
                case Looked(found):
                    if found is not None:
                        self.knowledge.learn(found)
                    return

    async def _touch(self, helper: Helper, index: int) -> None:
        helper.send(Touch(index, self.knowledge.count))
        at: int | None = None
        while True:
            match await receive(helper, at, self._limits.look_s):
                case At():
                    at = index
                case Seen() as seen:
                    self.knowledge.touched(seen)
                case Looked():
                    return

    # -- helpers -------------------------------------------------------------------------------

    async def _ready(self) -> Helper:
        """A helper that has said what there is. Raises Trouble."""
        loop = asyncio.get_running_loop()
        if self._helper is not None and self._helper.is_over:
            self._warn("gpu_helper_lost", why="ended while nobody asked it anything")
            self._put_away(self._helper)
        while self._helper is None:
            if loop.time() < self._not_before:
                raise Trouble(self._trouble.why, missing=self._trouble.missing)
            try:
                helper = await Helper.start(self._broke)
            except GpudError as error:
                raise self._pause(Trouble(error.message)) from error
            with self._putting_away(helper):
                self.knowledge.learn(await self._find(helper))
                self._helper = helper
        return self._helper

    async def _renew(self) -> None:
        """Rule 6. Raises Trouble."""
        old, self._helper = self._helper, None
        try:
            await self._ready()
        finally:
            if old is not None:
                self._put_away(old)

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
        helper.send(Find(tuple(self.knowledge.skipped), self.knowledge.count))
        at: int | None = None
        limit_s = self._limits.init_s
        while True:
            match await receive(helper, at, limit_s):
                case At(index, of):
                    self.knowledge.heard_count(of)
                    at, limit_s = index, self._limits.wake_s
                case Found() as found:
                    return found

    def _lose(self, lost: Lost) -> None:
        """Rules 2 to 4. Raises Trouble."""
        at = {} if lost.at is None else {"gpu": lost.at}
        self._warn("gpu_helper_lost", **at, why=lost.why)
        if lost.at is None:
            how = f"the GPU helper {lost.why}" if lost.crashed else NO_ANSWER
            raise self._pause(Trouble(how)) from None
        self.knowledge.lost_at(lost.at, lost.why, crashed=lost.crashed)

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

"""Reading a queue file: look by look, batch by batch, each committed with its position.

Owns the order of things. A look opens the file, compares it with what is known, decides, writes
the file out to the disk, and takes what is complete; `look` says when the next one is due at the
latest. How a change is noticed:
- nothing changed (same file, size and time of change): nothing is read;
- the same file grew, and the 4 KiB before what is read next are the same: an append. Only the new
  bytes are read. (Files up to `FULL_CHECK_BYTES` are compared in full once a minute all the same.)
- anything else: the taken beginning is compared in full, by digest. If it is not the same, the
  file must be at rest for `settle_s` before tracker.py decides, so that an editor that empties a
  file and writes it again is not taken for somebody who empties it.

Called by queue_file.py; a new `Reader` for each run, since a thread of a cancelled one may still
be reading. How bytes become entries is scan.py's. It must not know what rings for a look, nor how
often one fails.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec import structs

from gpud.core.model import NewJob
from gpud.errors import GpudError, why_os
from gpud.ports import SourceHost
from gpud.sources import file_sight
from gpud.sources.aside import patiently
from gpud.sources.build import Template
from gpud.sources.file_sight import Missing, Prefix, Sight, Stamp
from gpud.sources.lexer import Limits
from gpud.sources.scan import Scan, keys_of, matcher_at
from gpud.sources.settling import Settling, Timing
from gpud.sources.tracker import (
    MAX_SKIPPED,
    Matcher,
    Position,
    begin,
    decide,
    filled_in,
    pack_skipped,
    parse_position,
)

T = TypeVar("T")

BATCH = 10_000  # entries in one `take`
BATCH_BYTES = 32 * 1024 * 1024
INLINE_BYTES = 32 * 1024  # of a local file: read on the loop, for a millisecond at most
FULL_CHECK_BYTES = 16 * 1024 * 1024
FULL_CHECK_S = 60.0


class Reader:
    def __init__(
        self,
        path: str,
        template: Template,
        host: SourceHost,
        *,
        boot_id: str,
        start_at_end: bool,
        local: bool,
        clock: Callable[[], float],
        slow: Callable[[], None],
        timing: Timing,
        limits: Limits,
        owner: int | None = None,
    ) -> None:
        self.note = ""
        self._path = path
        self._template = template
        self._host = host
        self._boot = boot_id
        self._start_at_end = start_at_end
        self._local = local
        self._clock = clock
        self._slow = slow
        self._timing = timing
        self._limits = limits
        self._owner = owner  # who alone may have a say in the file; None: nobody looks
        stored = host.position()
        known = None if stored is None else parse_position(stored)
        # None until the file is seen; `_first` is where reading begins then.
        self._position, self._first = begin(known, path, boot_id)
        self._dirty = self._position != known  # the position changed since it was committed
        self._scan = Scan(Position(), limits)
        self._stamp: Stamp | None = None  # of the last look that was understood
        self._verified_at = 0.0
        self._settling = Settling(timing)
        self._missing_since: float | None = None
        self._directory: tuple[int, int] | None = None  # where the file was last seen
        self._matcher: Matcher | None = None
        self._counting, self._new, self._old = "", 0, 0  # a note whose numbers still grow

    async def look(self) -> float | None:
        """Take all that is complete. Seconds until the next look is due, None: at a change."""
        try:
            return await self._look()
        except OSError as error:
            self._stamp = None
            raise GpudError(f"cannot read {self._path}: {why_os(error)}") from error

    async def _look(self) -> float | None:
        sight = await self._call(functools.partial(file_sight.open_file, self._path, self._owner))
        if isinstance(sight, Missing):
            return await self._file_is_missing(sight)
        if self._missing_since is not None:
            self._missing_since = None
            self.note = "the file is there again"
        self._directory = sight.directory
        if self._position is None:
            await self._first_sight(sight)
        elif not await self._is_append(sight):
            wait = await self._compare(sight)
            if wait is not None:
                sight.close()
                return wait
        await self._read(sight)
        sight.close()
        deadline = self._scan.deadline
        return None if deadline is None else max(0.0, deadline - self._clock())

    # -- what happened to the file ---------------------------------------------------------

    async def _file_is_missing(self, missing: Missing) -> float | None:
        now = self._clock()
        position = self._position
        self._stamp = None
        self._settling.over()
        if self._missing_since is None:
            self._missing_since = now
            self.note = "the file is not there: waiting for it"
        if position is None:
            if self._start_at_end:  # whatever it will contain is new
                await self._keep(self._first)
        elif position.offset and not position.away and missing.directory == self._directory:
            # The directory of an unmounted file system is another one.
            wait = self._missing_since + self._timing.away_s - now
            if wait > 0:
                return wait
            await self._keep(structs.replace(position, away=True))
        return None

    async def _is_append(self, sight: Sight) -> bool:
        """Whether nothing happened, or nothing but an append."""
        known, found = self._stamp, sight.stamp
        if known is None:
            return False
        if known == found:
            return True
        if known[:2] != found[:2] or found.size <= known.size:
            return False
        due = self._clock() - self._verified_at >= FULL_CHECK_S
        scan = self._scan
        if due and scan.offset <= FULL_CHECK_BYTES:
            return False
        check = functools.partial(file_sight.window_is, sight, scan.window, scan.read_to)
        return await self._call(check)

    async def _compare(self, sight: Sight) -> float | None:
        """Compare the taken beginning, and decide; a number: look again after so many seconds."""
        position, stamp = self._position, sight.stamp
        assert position is not None
        offset = position.offset
        if stamp.size >= offset:
            read = functools.partial(file_sight.read_prefix, sight, offset)
            before = await self._call(read, big=offset > INLINE_BYTES)
            if offset == 0 or before[0].hexdigest() == position.digest:
                await self._same_beginning(position, sight, before)
                return None
        if wait := self._settling.left_s(stamp, self._clock()):
            self.note = "the file was changed: waiting until it is at rest"
            return wait
        decision = decide(position, stamp.size, self._boot)
        self._settling.over()
        self._dirty = True
        self._count(decision.note)
        if decision.at_end:
            await self._skip(decision.position, sight)
        else:
            await self._restart(decision.position, sight)
        await self._commit([])
        return None

    async def _same_beginning(self, position: Position, sight: Sight, before: Prefix) -> None:
        known = self._stamp
        if self._settling.under_way or (known is not None and known[:2] != sight.stamp[:2]):
            self.note = "the file was written anew and begins as before: reading goes on"
        self._settling.over()
        if position.boot != self._boot or position.away:
            position = structs.replace(position, boot=self._boot, away=False)
            self._dirty = True
        if position.offset < position.match_until < sight.stamp.size and known != sight.stamp:
            # Replaced once more, or gpud was not there to see: match all that is there now.
            position = structs.replace(position, match_until=sight.stamp.size)
            self._dirty = True
        await self._restart(position, sight, before)

    # -- where reading starts --------------------------------------------------------------

    async def _first_sight(self, sight: Sight) -> None:
        self._dirty = True
        if self._start_at_end:
            self._count('skipped {old_jobs} of the file at its first sight (start = "end")')
            await self._skip(self._first, sight)
            await self._commit([])
        else:
            if sight.stamp.size:
                self._count("took {new_jobs} of the file at its first sight")
            await self._restart(self._first, sight)

    async def _skip(self, position: Position, sight: Sight) -> None:
        """Go to the end of the last complete entry, and remember what was skipped."""
        await self._restart(position, sight)
        keys: list[bytes] = []
        more, big = True, sight.stamp.size > INLINE_BYTES
        while more:
            skip = functools.partial(keys_of, self._scan, sight, BATCH, self._clock())
            found, more = await self._call(skip, big=big)
            keys += found
        self._old = len(keys)
        many = len(keys) > MAX_SKIPPED
        packed = "" if many else pack_skipped(keys)
        self._position = structs.replace(position, skipped=packed, skipped_many=many)

    async def _restart(
        self, position: Position, sight: Sight, before: Prefix | None = None
    ) -> None:
        """Read on at the position, of which `before` is what `read_prefix` found before it."""
        self._position = position
        self._scan = Scan(position, self._limits, before)
        self._stamp = sight.stamp
        self._verified_at = self._clock()
        self._matcher = None
        if position.offset < position.match_until:
            taken = await self._host.taken(position.base)
            again = functools.partial(matcher_at, position, taken, sight, self._limits)
            self._matcher = await self._call(again, big=True)

    # -- reading and taking ----------------------------------------------------------------

    async def _read(self, sight: Sight) -> None:
        unread = sight.stamp.size - self._scan.read_to
        if unread > 0:
            await self._call(functools.partial(file_sight.sync, sight), big=True)
        batch = functools.partial(self._batch, sight)
        done = False
        while not done:
            jobs, done = await self._call(batch, big=unread > INLINE_BYTES)
            if jobs or self._dirty or self._matcher is not None:
                await self._commit(jobs)
        if self._matcher is None:
            self._counting = ""
        self._stamp = None if self._scan.short else sight.stamp

    def _batch(self, sight: Sight) -> tuple[list[NewJob], bool]:
        """The next jobs, and whether they were the last ones of this look."""
        assert self._position is not None
        now = self._clock()
        jobs: list[NewJob] = []
        size = 0
        while True:
            entries, more = self._scan.entries(sight, BATCH - len(jobs), now)
            for entry in entries:
                if self._matcher is not None and entry.offset < self._position.match_until:
                    self._dirty = True
                    if self._matcher.was_taken(entry.command):
                        self._old += 1
                        continue
                self._new += 1
                size += len(entry.command)
                jobs.append(self._template.build(entry, self._position.key(entry.offset)))
            if not more or len(jobs) >= BATCH or size >= BATCH_BYTES:
                return jobs, not more

    async def _commit(self, jobs: list[NewJob]) -> None:
        """Hand on jobs and position together. Only complete entries lie before the position."""
        assert self._position is not None
        position = self._scan.moved(self._position)
        await self._keep(position, jobs)
        if position.offset >= position.match_until:
            self._matcher = None
        if self._counting:
            self.note = filled_in(self._counting, self._new, self._old)

    async def _keep(self, position: Position, jobs: Sequence[NewJob] = ()) -> None:
        await self._host.take(jobs, position.cursor(self._template.spec.source))
        self._position = position
        self._dirty = False

    def _count(self, note: str) -> None:
        self._counting, self._new, self._old = note, 0, 0
        self.note = filled_in(note, 0, 0)

    async def _call(self, call: Callable[[], T], *, big: bool = False) -> T:
        """Inline for what is small and local, else aside, and with a sentence when it hangs."""
        if self._local and not big:
            return call()
        return await patiently(call, self._timing.answer_s, self._slow)

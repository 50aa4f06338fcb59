"""Jobs that wait for nothing but capacity, and the order in which they are offered it.

Owns three levels. A `Line` holds jobs that ask for the same; their ranks are its heap. A `Shelf`
holds lines that ask for the same but for how much memory: where one of them has no room, those that
want more have none either, so a dispatch asks for the first in rank of those that want less. There
are few shelves, however many different requests wait.

Rule 1: everything is pruned lazily. A rank in a line counts only while the job's record agrees with
it. A line counts in its shelf under the rank it was last listed with (`Line.listed`), which is that
of its first job or a smaller one.
Rule 2: which memory a request for `auto` means changes as gpud learns, and what any request means
changes with the devices: then lines are put on other shelves (`learn`, `resolve_all`).

Called by core/state.py, and by core/scheduler.py to see who is next.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from gpud.core.minima import Minima
from gpud.core.model import Job, JobId, JobState, Request
from gpud.core.placement import resolved
from gpud.core.pool import Pool
from gpud.core.shape import Shape, shape_of

MEMORY_BITS = 32  # of a number of MiB
ANY_MEMORY = 1 << MEMORY_BITS

# (-priority, place, id of the record): the total order of dispatch. Of a record that stands for
# many elements of an array the place is that of the next one.
Rank = tuple[int, float, JobId]
Kind = tuple[int | None, int, str, bool, bool]
Head = tuple[Rank, int, "Shelf"]  # the first job of a shelf, and the memory it asks for


class Line:
    """Jobs that ask for the same. `asks` is the request as it is meant now."""

    __slots__ = ("asks", "listed", "no", "ranks", "shape")

    def __init__(self, shape: Shape, asks: Request, no: int) -> None:
        self.shape = shape
        self.asks = asks
        self.no = no
        self.ranks: list[Rank] = []
        self.listed: Rank | None = None


class Shelf:
    """Lines that ask for the same but for how much memory, by memory."""

    __slots__ = ("firsts", "kind", "lines", "on_gpus", "within_s")

    def __init__(self, kind: Kind, within_s: int, *, on_gpus: bool) -> None:
        self.kind = kind
        self.within_s = within_s
        self.on_gpus = on_gpus  # or in the lane
        self.lines: dict[int, list[tuple[Rank, int, Line]]] = {}  # memory -> heap
        self.firsts: Minima[tuple[Rank, int]] = Minima(MEMORY_BITS if kind[-1] else 0)

    @property
    def names_memory(self) -> bool:
        return self.kind[-1]


class Ready:
    """See the rules above. `jobs` are all that are not done."""

    def __init__(self, jobs: dict[JobId, Job], pool: Pool) -> None:
        self._jobs = jobs
        self._pool = pool
        self._lines: dict[Shape, Line] = {}
        self._alike: dict[str, set[Shape]] = {}  # likeness -> lines that ask for `auto`
        self._shelves: dict[tuple[Kind, int], Shelf] = {}
        self._made = 0

    def __bool__(self) -> bool:
        """Whether anybody may wait: False is certain."""
        return bool(self._lines)

    # -- who waits -------------------------------------------------------------------------------

    def push(self, job: Job) -> None:
        line, rank = self._line_of(shape_of(job)), rank_of(job)
        heappush(line.ranks, rank)
        if line.listed is None or rank < line.listed:
            self._list(line, rank)

    def load(self, jobs: Iterable[Job]) -> None:
        """Many at once; fastest into an empty queue."""
        if self:
            for job in jobs:
                self.push(job)
            return
        for job in jobs:
            self._line_of(shape_of(job)).ranks.append(rank_of(job))
        for line in self._lines.values():
            heapify(line.ranks)
            self._list(line, line.ranks[0])

    def waiting(self) -> set[tuple[Shape, Rank]]:
        """Who will be offered capacity, and as what: for core/invariants.py."""
        found: set[tuple[Shape, Rank]] = set()
        for shelf in self._shelves.values():
            for mib, lines in shelf.lines.items():
                first = shelf.firsts.least(mib + 1)
                for listed, _, line in lines:
                    if listed == line.listed and first is not None and first[0] <= listed:
                        found.update((line.shape, rank) for rank in line.ranks if rank >= listed)
        return found

    # -- who is next -----------------------------------------------------------------------------

    def heads(self) -> list[Head]:
        """The first job of each shelf, as a heap."""
        found = []
        for key, shelf in [*self._shelves.items()]:
            if (head := self.first(shelf)) is not None:
                found.append(head)
            else:
                del self._shelves[key]
        heapify(found)
        return found

    def first(self, shelf: Shelf, below: int = ANY_MEMORY) -> Head | None:
        """The first job of those that ask for less memory than that, in MiB."""
        while (found := shelf.firsts.least(below)) is not None:
            rank, mib = found
            lines = shelf.lines[mib]
            first = self._first_of(lines)
            if first == rank:
                return rank, mib, shelf
            shelf.firsts.set(mib, None if first is None else (first, mib))
            if first is None:
                del shelf.lines[mib]
        return None

    def asks(self, head: Head) -> Request:
        """What the job that `heads` or `first` just gave asks for."""
        _, mib, shelf = head
        return shelf.lines[mib][0][2].asks

    def _first_of(self, lines: list[tuple[Rank, int, Line]]) -> Rank | None:
        while lines:
            listed, _, line = lines[0]
            if listed != line.listed:
                heappop(lines)
                continue
            rank = self._head(line)
            if rank == listed:
                return rank
            heappop(lines)
            line.listed = rank
            if rank is not None:
                heappush(lines, (rank, line.no, line))
            elif self._lines.get(line.shape) is line:
                self._drop(line)
        return None

    def _head(self, line: Line) -> Rank | None:
        ranks, jobs = line.ranks, self._jobs
        while ranks:
            rank = ranks[0]
            job = jobs.get(rank[-1])
            if (
                job is not None
                and is_ready(job)
                and rank_of(job) == rank
                and shape_of(job) == line.shape
            ):
                return rank
            heappop(ranks)  # left over from a start, a hold, a cancel or a change
        return None

    # -- lines and shelves -----------------------------------------------------------------------

    def _line_of(self, shape: Shape) -> Line:
        line = self._lines.get(shape)
        if line is None:
            line = self._lines[shape] = self._new_line(shape)
            if shape[0].likeness:
                self._alike.setdefault(shape[0].likeness, set()).add(shape)
        return line

    def _new_line(self, shape: Shape) -> Line:
        self._made += 1
        return Line(shape, resolved(self._pool, shape[0]), self._made)

    def _drop(self, line: Line) -> None:
        del self._lines[line.shape]
        if likeness := line.shape[0].likeness:
            alike = self._alike[likeness]
            alike.discard(line.shape)
            if not alike:
                del self._alike[likeness]

    def _list(self, line: Line, rank: Rank) -> None:
        line.listed = rank
        shelf, mib = self._shelf_of(line), line.asks.vram_mib
        lines = shelf.lines.setdefault(mib, [])
        heappush(lines, (rank, line.no, line))
        if lines[0][0] == rank:
            shelf.firsts.set(mib, (rank, mib))

    def _shelf_of(self, line: Line) -> Shelf:
        asks, within_s = line.asks, line.shape[1]
        kind = (asks.gpus, asks.share_milli, asks.gpu_model, asks.exclusive, asks.vram_mib > 0)
        shelf = self._shelves.get((kind, within_s))
        if shelf is None:
            on_gpus = self._pool.wanted(asks) != 0
            shelf = self._shelves[kind, within_s] = Shelf(kind, within_s, on_gpus=on_gpus)
        return shelf

    # -- what a request means --------------------------------------------------------------------

    def learn(self, likeness: str) -> None:
        """Jobs of this likeness take other memory than was known."""
        for shape in self._alike.get(likeness, ()):
            self._resolve(shape)

    def resolve_all(self) -> None:
        """The pool has other devices."""
        self._shelves.clear()
        for shape in self._lines:
            self._resolve(shape)

    def _resolve(self, shape: Shape) -> None:
        before = self._lines[shape]
        line = self._lines[shape] = self._new_line(shape)
        line.ranks, before.listed = before.ranks, None
        if line.ranks:
            self._list(line, line.ranks[0])


def rank_of(job: Job) -> Rank:
    return -job.priority, job.place or (job.rest[0][0] if job.rest else job.id), job.id


def is_ready(job: Job) -> bool:
    """Queued, and nothing but capacity keeps it waiting."""
    return job.state is JobState.QUEUED and not job.not_before_ms and not job.unmet

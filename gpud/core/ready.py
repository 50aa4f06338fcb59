"""Jobs that wait for nothing but capacity and gates, and the order in which they are offered it.

Owns the bays, rows, shelves and lines (core/shelves.py) they stand in. A dispatch asks each row for
its first job, and after one that finds no room for the first of those that want less memory. There
are few bays, and as many rows as users, however many different requests and gates there are.

Rule 1: everything is pruned lazily. A rank in a line counts only while the job's record agrees with
it. A line counts on its shelf, and a shelf in its row, under the rank it was last listed with: that
of its first job, or a smaller one.
Rule 2: which memory a request for `auto` means changes as gpud learns, and what any request means
changes with the devices: then lines are put on other shelves (`learn`, `resolve_all`).
Rule 3: a shelf that a dispatch meets while its gate is closed goes onto the pile of that gate. When
the gate may have opened (`reopen`) the pile as a whole stands in the row again, and gives back one
shelf after the other as they are met. So what a gate costs does not depend on how much is behind
it. Which gates there are changes seldom: then all is built anew (`rebuild`).

Called by core/state.py, and by core/heads.py to see who is next.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush, heapreplace

from gpud.amounts import URGENT
from gpud.core.gates import Gates
from gpud.core.model import Job, JobId, JobState, Request
from gpud.core.placement import resolved
from gpud.core.pool import Pool
from gpud.core.shape import shape_of
from gpud.core.shelves import (
    ANY_MEMORY,
    ANYBODY,
    Bay,
    First,
    Kind,
    Line,
    Pile,
    Rank,
    Row,
    Shelf,
    Spot,
)


class Ready:
    """See the rules above. `jobs` are all that are not done. `by_user`: each user's jobs stand in
    bays of their own. `by_kind` has all bays, `piles` all piles, by gate."""

    def __init__(self, jobs: dict[JobId, Job], pool: Pool, gates: Gates | None = None) -> None:
        self._jobs = jobs
        self._pool = pool
        self._gates = gates or Gates()
        self.by_user = False
        self._lines: dict[Spot, Line] = {}
        self._alike: dict[str, set[Spot]] = {}  # likeness -> lines that ask for `auto`
        self.by_kind: dict[tuple[Kind, int], Bay] = {}  # and user
        self.piles: dict[str, dict[Row, Pile]] = {}
        self._made = 0
        self._urgent: set[JobId] = set()
        self._first_of_users: dict[int, Rank] | None = None  # since the last dispatch

    def __bool__(self) -> bool:
        """Whether anybody may wait: False is certain."""
        return bool(self._lines)

    # -- who waits -------------------------------------------------------------------------------

    def push(self, job: Job) -> None:
        line, rank = self._line_of(self.spot_of(job)), rank_of(job)
        if job.priority >= URGENT:
            self._urgent.add(job.id)
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
            self._line_of(self.spot_of(job)).ranks.append(rank_of(job))
            if job.priority >= URGENT:
                self._urgent.add(job.id)
        for line in self._lines.values():
            heapify(line.ranks)
            self._list(line, line.ranks[0])

    def rebuild(self, *, by_user: bool) -> None:
        """Other gates than before, or fair share is on or off."""
        self.by_user = by_user
        self._lines.clear()
        self._alike.clear()
        self.by_kind.clear()
        self.piles.clear()
        self.load(job for job in self._jobs.values() if is_ready(job))

    def spot_of(self, job: Job) -> Spot:
        return shape_of(job), self._gates.of(job.belongs), job.uid if self.by_user else ANYBODY

    def urgent(self) -> list[Job]:
        """Those that are, in the order of their ranks, behind gates or not."""
        found = [job for job in map(self._jobs.get, self._urgent) if job is not None]
        found = [job for job in found if is_ready(job) and job.priority >= URGENT]
        self._urgent = {job.id for job in found}
        return sorted(found, key=rank_of)

    # -- who is next -----------------------------------------------------------------------------

    def bays(self) -> list[Bay]:
        """For a dispatch, which begins with it."""
        self._first_of_users = None
        return [*self.by_kind.values()]

    def first_of_users(self, now_ms: int) -> dict[int, Rank]:
        """Of those who have a job that waits for GPUs and for no gate, the first; for people, and
        as of the first time that anybody asks after a dispatch."""
        if self._first_of_users is None:
            found: dict[int, Rank] = {}
            for bay in [*self.by_kind.values()] if self.by_user else ():
                for row in [*bay.rows.values()] if bay.on_gpus else ():
                    if (first := self.first(row, now_ms)) is not None:
                        found[bay.user] = min(first[0], found.get(bay.user, first[0]))
            self._first_of_users = found
        return self._first_of_users

    def first(self, row: Row, now_ms: int, below: int = ANY_MEMORY) -> First | None:
        """The first job of the row that no gate holds back, of those that ask for less memory than
        that, in MiB."""
        if below < ANY_MEMORY:
            return self._first_below(row, now_ms, below)
        heap = row.heap
        while heap:
            rank, _, on = heap[0]
            if rank != on.listed or (isinstance(on, Shelf) and on.pile is not None):
                heappop(heap)
            elif isinstance(on, Pile):
                self._meet(on, now_ms)
            elif gate := self._gates.closed(on.gates, now_ms):
                heappop(heap)
                self._pile_up(on, rank, gate)
            elif (first := self._first_on(on)) is None:
                heappop(heap)
                self._take_down(on)
            else:
                if first[0] != rank:
                    on.listed = first[0]
                    heapreplace(heap, (first[0], on.no, on))
                if heap[0][2] is on:
                    return *first, on
        return None

    def _first_below(self, row: Row, now_ms: int, below: int) -> First | None:
        found: First | None = None
        if below <= max(row.floor, row.bay.names_memory):
            return None  # nobody names so little, or nobody names any
        nobody = True
        for shelf in row.shelves.values():
            listed = shelf.listed
            if below <= shelf.floor or listed is None:
                continue
            if found is not None and found[0] < listed:
                continue
            first = self._first_on(shelf, below)
            if first is None:
                shelf.floor = below
                continue
            nobody = False
            if found is not None and found[0] < first[0]:
                continue
            if not self._gates.closed(shelf.gates, now_ms):
                found = *first, shelf
        if nobody:
            row.floor = below
        return found

    def is_open(self, shelf: Shelf, now_ms: int) -> bool:
        return not self._gates.closed(shelf.gates, now_ms)

    def asks(self, first: First) -> Request:
        """What the job that `first` just gave asks for."""
        _, mib, shelf = first
        return shelf.lines[mib][0][2].asks

    def _first_on(self, shelf: Shelf, below: int = ANY_MEMORY) -> tuple[Rank, int] | None:
        checked = None
        while (found := shelf.firsts.least(below)) is not None:
            if found == checked:
                return found
            rank, mib = found
            first = self._first_of(shelf.lines[mib])
            if first == rank:
                return found
            if first is None:
                shelf.firsts.set(mib, None)
                del shelf.lines[mib]
            else:
                checked = first, mib
                shelf.firsts.set(mib, checked)
        return None

    def _first_of(self, lines: list[tuple[Rank, int, Line]]) -> Rank | None:
        while lines:
            listed, _, line = lines[0]
            if listed != line.listed:
                heappop(lines)
                continue
            rank = line.listed = self._head(line)
            if rank is None:
                heappop(lines)
                if self._lines.get(line.spot) is line:
                    self._drop(line)
                continue
            if rank != listed:
                heapreplace(lines, (rank, line.no, line))
            if lines[0][2] is line:
                return rank
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
                and self.spot_of(job) == line.spot
            ):
                return rank
            heappop(ranks)  # left over from a start, a hold, a cancel or a change
        return None

    # -- lines and shelves -----------------------------------------------------------------------

    def _line_of(self, spot: Spot) -> Line:
        line = self._lines.get(spot)
        if line is None:
            line = self._lines[spot] = self._new_line(spot)
            if likeness := spot[0][0].likeness:
                self._alike.setdefault(likeness, set()).add(spot)
        return line

    def _new_line(self, spot: Spot) -> Line:
        return Line(spot, resolved(self._pool, spot[0][0]), self._number())

    def _drop(self, line: Line) -> None:
        del self._lines[line.spot]
        if likeness := line.spot[0][0].likeness:
            alike = self._alike[likeness]
            alike.discard(line.spot)
            if not alike:
                del self._alike[likeness]

    def _list(self, line: Line, rank: Rank) -> None:
        line.listed = rank
        shelf, mib = self._shelf_of(line), line.asks.vram_mib
        lines = shelf.lines.setdefault(mib, [])
        heappush(lines, (rank, line.no, line))
        if lines[0][0] == rank:
            shelf.firsts.set(mib, (rank, mib))
        shelf.floor = min(shelf.floor, mib)
        shelf.row.floor = min(shelf.row.floor, mib)
        if shelf.listed is None or rank < shelf.listed:
            self._put_up(shelf, rank)

    def _shelf_of(self, line: Line) -> Shelf:
        asks, ((_, within_s), gates, user) = line.asks, line.spot
        kind = (asks.gpus, asks.share_milli, asks.gpu_model, asks.exclusive, asks.vram_mib > 0)
        bay = self.by_kind.get((kind, user))
        if bay is None:
            on_gpus = self._pool.wanted(asks) != 0
            bay = self.by_kind[kind, user] = Bay(kind, user, self._number(), on_gpus=on_gpus)
        row = bay.rows.get(within_s)
        if row is None:
            row = bay.rows[within_s] = Row(bay, within_s, self._number())
        shelf = row.shelves.get(gates)
        if shelf is None:
            shelf = row.shelves[gates] = Shelf(row, gates, self._number())
        return shelf

    def _put_up(self, shelf: Shelf, rank: Rank) -> None:
        """In its row, or in the pile that it is in."""
        shelf.listed = rank
        pile = shelf.pile
        if pile is None:
            self._put_in_row(shelf.row, rank, shelf)
            return
        heappush(pile.heap, (rank, shelf.no, shelf))
        if pile.listed is not None and rank < pile.listed:
            self._put_up_pile(pile)

    def _put_in_row(self, row: Row, rank: Rank, on: Shelf | Pile) -> None:
        heappush(row.heap, (rank, on.no, on))
        if row.bay.low is None or rank < row.bay.low:
            row.bay.low = rank

    def _take_down(self, shelf: Shelf) -> None:
        """Nobody stands on it any more."""
        shelf.listed = None
        row = shelf.row
        bay = row.bay
        del row.shelves[shelf.gates]
        if not row.shelves:
            del bay.rows[row.within_s]
        if not bay.rows:
            del self.by_kind[bay.kind, bay.user]

    def _number(self) -> int:
        self._made += 1
        return self._made

    # -- gates -----------------------------------------------------------------------------------

    def reopen(self, gate: str) -> None:
        """This gate may be open now."""
        for pile in [*self.piles.get(gate, {}).values()]:
            self._put_up_pile(pile)

    def reopen_all(self) -> None:
        for gate in [*self.piles]:
            self.reopen(gate)

    def _pile_up(self, shelf: Shelf, rank: Rank, gate: str) -> None:
        piles = self.piles.setdefault(gate, {})
        pile = piles.get(shelf.row)
        if pile is None:
            pile = piles[shelf.row] = Pile(shelf.row, gate, self._number())
        shelf.pile = pile
        heappush(pile.heap, (rank, shelf.no, shelf))

    def _meet(self, pile: Pile, now_ms: int) -> None:
        """It is the first of its row: it waits on, or gives back its first shelf."""
        heappop(pile.row.heap)
        if self._gates.closed((pile.gate,), now_ms):
            pile.listed = None
            return
        rank, _, shelf = heappop(pile.heap)
        shelf.pile = None
        self._put_up(shelf, rank)
        self._put_up_pile(pile)

    def _put_up_pile(self, pile: Pile) -> None:
        """In its row, with its first shelf; away with it when there is none."""
        heap = pile.heap
        while heap and (heap[0][-1].pile is not pile or heap[0][-1].listed != heap[0][0]):
            heappop(heap)
        pile.listed = heap[0][0] if heap else None
        if pile.listed is not None:
            self._put_in_row(pile.row, pile.listed, pile)
            return
        piles = self.piles[pile.gate]
        del piles[pile.row]
        if not piles:
            del self.piles[pile.gate]

    # -- what a request means --------------------------------------------------------------------

    def learn(self, likeness: str) -> None:
        """Jobs of this likeness take other memory than was known."""
        for spot in self._alike.get(likeness, ()):
            self._resolve(spot)

    def resolve_all(self) -> None:
        """The pool has other devices."""
        self.by_kind.clear()
        self.piles.clear()
        for spot in self._lines:
            self._resolve(spot)

    def _resolve(self, spot: Spot) -> None:
        before = self._lines[spot]
        line = self._lines[spot] = self._new_line(spot)
        line.ranks, before.listed = before.ranks, None
        if line.ranks:
            self._list(line, line.ranks[0])


def rank_of(job: Job) -> Rank:
    return -job.priority, job.place or (job.rest[0][0] if job.rest else job.id), job.id


def is_ready(job: Job) -> bool:
    """Queued, and nothing but capacity and gates keep it waiting."""
    return job.state is JobState.QUEUED and not job.not_before_ms and not job.unmet

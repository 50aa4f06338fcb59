"""The first job of each row, in the order in which they are offered capacity: for one dispatch.

Called by core/dispatching.py. The order is: the higher priority; then, where fair share is on, the
user who has had less; then whoever was submitted first. Jobs behind closed gates are not in it.

Most jobs wait for what is known to have no room, and are never looked at: a bay stands under `low`,
which is the rank of its first job or a smaller one, and its rows under that with which their heaps
begin, until their turn comes. A start may close a gate and makes its user have more, so a head is
checked again then.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace

from gpud.amounts import URGENT
from gpud.core.ready import Ready
from gpud.core.shares import Shares
from gpud.core.shelves import ANY_MEMORY, Bay, First, Kind, Rank, Row


class Room:
    """What this dispatch knows of room. In a bay of this kind only who asks for less memory than
    `least` says, in MiB, can have any; apart from it those who fit into the gap of a reservation:
    who is gone within `gap_s`."""

    def __init__(self) -> None:
        self.full: set[bool] = set()  # lanes: True is the GPUs
        self.gap_s = 0
        self.least: dict[tuple[Kind, bool], int] = {}

    def into_gap(self, row: Row) -> bool:
        return 0 < row.within_s <= self.gap_s

    def below(self, row: Row) -> int:
        """0: there is none."""
        if row.bay.on_gpus in self.full:
            return 0
        return self.least.get((row.bay.kind, self.into_gap(row)), ANY_MEMORY)

    def is_none_for(self, bay: Bay) -> bool:
        """False where the rows differ."""
        if bay.on_gpus in self.full:
            return True
        return not self.gap_s and not self.least.get((bay.kind, False), ANY_MEMORY)


Order = tuple[int, float, Rank]  # -priority, the user's share, rank
Head = tuple[Order, int, Row | Bay, First | None]  # None: not looked at yet


class Heads:
    def __init__(self, ready: Ready, shares: Shares, now_ms: int) -> None:
        self._ready = ready
        self._shares = shares
        self._by_user = bool(shares)
        self._now_ms = now_ms
        self._share: dict[int, float] = {}  # of users, as of now
        self._bays = ready.bays()
        self._heap: list[Head] = [
            (self._order(bay.low, bay), bay.no, bay, None) for bay in self._bays if bay.low
        ]
        heapify(self._heap)

    def are_urgent(self) -> bool:
        """Whether the first may be: False is certain."""
        return bool(self._heap) and self._heap[0][0][0] <= -URGENT

    def anybody(self, of: Callable[[Bay], bool]) -> bool:
        """Whether somebody waits in such a bay and could be offered something."""
        return any(
            self._ready.first(row, self._now_ms)
            for bay in self._bays
            if of(bay)
            for row in [*bay.rows.values()]
        )

    def next(self, room: Room) -> First | None:
        """Who is offered something next; after it `go_on`."""
        heap = self._heap
        while heap:
            order, _, on, first = heap[0]
            if isinstance(on, Bay):
                self._open(on, room)
            elif not (below := room.below(on)):
                heappop(heap)
            else:
                if first is None or not self._still(order, first, below):
                    first = self._look(on, below)
                if first is not None and heap[0][3] is first:
                    heappop(heap)
                    return first
        return None

    def go_on(self, before: First, below: int) -> None:
        """With the next one of the same row."""
        row = before[-1].row
        if (first := self._ready.first(row, self._now_ms, below)) is not None:
            heappush(self._heap, (self._order(first[0], row.bay), row.no, row, first))

    def more(self, room: Room) -> bool:
        """Whether anybody else waits, of those for whom there may be room."""
        heap = self._heap
        while heap and heap[0][-1] is None:
            on = heap[0][2]
            if isinstance(on, Bay):
                self._open(on, room)
            else:
                self._look(on, ANY_MEMORY)
        return bool(heap)

    def has_had(self, uid: int) -> None:
        """This user's job was started."""
        self._share.pop(uid, None)

    def _still(self, order: Order, first: First, below: int) -> bool:
        rank, mib, shelf = first
        if mib >= below or not self._ready.is_open(shelf, self._now_ms):
            return False
        return not self._by_user or self._order(rank, shelf.row.bay) == order

    def _open(self, bay: Bay, room: Room) -> None:
        """The bay is the first of all: its rows in its place."""
        heappop(self._heap)
        if room.is_none_for(bay):
            return
        ranks = [(row.heap[0][0], row) for row in bay.rows.values() if row.heap]
        bay.low = min((rank for rank, _ in ranks), default=None)
        for rank, row in ranks:
            heappush(self._heap, (self._order(rank, bay), row.no, row, None))

    def _look(self, row: Row, below: int) -> First | None:
        """At the row that is the first of all: where does it stand really?"""
        first = self._ready.first(row, self._now_ms, below)
        if first is None:
            heappop(self._heap)
        else:
            heapreplace(self._heap, (self._order(first[0], row.bay), row.no, row, first))
        return first

    def _order(self, rank: Rank, bay: Bay) -> Order:
        if not self._by_user or not bay.on_gpus:
            return rank[0], 0.0, rank
        share = self._share.get(bay.user)
        if share is None:
            share = self._share[bay.user] = self._shares.share(bay.user, self._now_ms)
        return rank[0], share, rank

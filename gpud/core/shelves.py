"""Where jobs stand that wait for capacity: lines, shelves, rows and bays. Plain containers.

A `Line` holds jobs that ask for the same behind the same gates; their ranks are its heap. A `Shelf`
holds lines that differ in memory only, a `Row` shelves that differ in their gates only, and a `Bay`
rows that differ in how soon they are gone only: of one user, where users take turns. What one job
is refused for want of room, nobody of that kind gets. Filled and pruned by core/ready.py.
"""

from __future__ import annotations

from gpud.core.minima import Minima
from gpud.core.model import JobId, Request
from gpud.core.shape import Shape

MEMORY_BITS = 32  # of a number of MiB
ANY_MEMORY = 1 << MEMORY_BITS
ANYBODY = -1  # the user of all bays while nobody asks whose turn it is

# (-priority, place, id of the record): the total order of dispatch. Of a record that stands for
# many elements of an array the place is that of the next one.
Rank = tuple[int, float, JobId]
Spot = tuple[Shape, tuple[str, ...], int]  # shape, gates, user
Kind = tuple[int | None, int, str, bool, bool]


class Bay:
    """`low` is the rank of its first job, or a smaller one; None: nobody is in it."""

    __slots__ = ("kind", "low", "no", "on_gpus", "rows", "user")

    def __init__(self, kind: Kind, user: int, no: int, *, on_gpus: bool) -> None:
        self.kind = kind
        self.user = user
        self.no = no
        self.on_gpus = on_gpus  # or in the lane
        self.rows: dict[int, Row] = {}  # by `within_s`
        self.low: Rank | None = None

    @property
    def names_memory(self) -> bool:
        return self.kind[-1]


class Row:
    """`heap`: shelves by their first; one that was met while a gate was closed is in its pile.
    `floor`: nobody in it asks for less memory."""

    __slots__ = ("bay", "floor", "heap", "no", "shelves", "within_s")

    def __init__(self, bay: Bay, within_s: int, no: int) -> None:
        self.bay = bay
        self.within_s = within_s
        self.no = no
        self.shelves: dict[tuple[str, ...], Shelf] = {}  # by gates
        self.heap: list[tuple[Rank, int, Shelf | Pile]] = []
        self.floor = 0


class Shelf:
    """`listed` is the rank it stands with in its pile, or in its row; `floor` as of its row."""

    __slots__ = ("firsts", "floor", "gates", "lines", "listed", "no", "pile", "row")

    def __init__(self, row: Row, gates: tuple[str, ...], no: int) -> None:
        self.row = row
        self.gates = gates
        self.no = no
        self.lines: dict[int, list[tuple[Rank, int, Line]]] = {}  # memory -> heap
        self.firsts: Minima[tuple[Rank, int]] = Minima(MEMORY_BITS if row.bay.names_memory else 0)
        self.floor = 0
        self.pile: Pile | None = None
        self.listed: Rank | None = None


class Pile:
    """Shelves of a row that were met while this gate was closed: a heap by their first. `listed` is
    the rank it stands in its row with; None: it waits for the gate to open."""

    __slots__ = ("gate", "heap", "listed", "no", "row")

    def __init__(self, row: Row, gate: str, no: int) -> None:
        self.row = row
        self.gate = gate
        self.no = no
        self.heap: list[tuple[Rank, int, Shelf]] = []
        self.listed: Rank | None = None


class Line:
    """`asks` is the request as it is meant now; `listed` the rank it stands on its shelf with."""

    __slots__ = ("asks", "listed", "no", "ranks", "spot")

    def __init__(self, spot: Spot, asks: Request, no: int) -> None:
        self.spot = spot
        self.asks = asks
        self.no = no
        self.ranks: list[Rank] = []
        self.listed: Rank | None = None


First = tuple[Rank, int, Shelf]  # of some that wait: the job, the memory it asks for, where

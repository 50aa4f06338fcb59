"""Who stands in the queues of ready jobs, and as what. Called by core/invariants.py.

Reads what core/ready.py fills and prunes: of its entries only those that would be found in time.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpud.core.ready import Ready
from gpud.core.shelves import Rank, Shelf, Spot


def waiting(ready: Ready) -> set[tuple[Spot, Rank]]:
    """Who will be offered capacity."""
    found: set[tuple[Spot, Rank]] = set()
    for row in (row for bay in ready.by_kind.values() for row in bay.rows.values()):
        in_row = {(rank, no) for rank, no, _ in row.heap}
        for shelf in row.shelves.values():
            if shelf.listed is not None and _is_met(ready, shelf, in_row):
                found.update(_on(shelf, shelf.listed))
    return found


def shut_by(ready: Ready) -> list[str]:
    """Gates at which somebody may wait."""
    piles = ((gate, pile) for gate, all_ in ready.piles.items() for pile in all_.values())
    return [gate for gate, pile in piles if pile.listed is None]


def _is_met(ready: Ready, shelf: Shelf, in_row: set[tuple[Rank, int]]) -> bool:
    """By a dispatch, when its gates are open."""
    pile, here = shelf.pile, (shelf.listed, shelf.no)
    if pile is None:
        return here in in_row
    if here not in {(rank, no) for rank, no, _ in pile.heap}:
        return False
    if ready.piles.get(pile.gate, {}).get(pile.row) is not pile:
        return False
    return pile.listed is None or (pile.listed, pile.no) in in_row


def _on(shelf: Shelf, since: Rank) -> Iterator[tuple[Spot, Rank]]:
    for mib, lines in shelf.lines.items():
        first = shelf.firsts.least(mib + 1)
        for listed, _, line in lines:
            if listed != line.listed or first is None or listed < max(first[0], since):
                continue
            yield from ((line.spot, rank) for rank in line.ranks if rank >= listed)

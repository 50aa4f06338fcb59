"""How much of a log that has grown too large is cut out of its middle, and when to look again.

Called by daemon/log_caps.py, which has the files. Pure. The first and the last quarter of the cap
stay, so that a log is cut once for each half of the cap that it grows, not at every look.
"""

from __future__ import annotations

from msgspec import Struct

SOONEST_S, LATEST_S = 1.0, 30.0


class Room(Struct, frozen=True):
    """A log file: its length, what it takes on the disk, and in what pieces; all in bytes."""

    size: int
    taken: int
    block: int


Cut = tuple[int, int]  # the first byte, and the first after them


def cut_of(room: Room, cap: int, earlier: Cut | None) -> Cut | None:
    """What is to be cut out now, with what was cut out before; None: nothing. In whole blocks: only
    these give room back."""
    if not cap or room.taken <= cap:
        return None
    first = _up(cap // 4, room.block)
    end = (room.size - cap // 4) // room.block * room.block
    if earlier is not None:
        first = min(first, earlier[0])
        if end <= earlier[1]:
            return None
    return (first, end) if end > first else None


def look_in_s(nearest: int, grown: int, since_s: float) -> float:
    """When to look again, if the log that is nearest to its cap is so many bytes away from it, and
    the one that grows fastest grew by `grown` in the last `since_s`: before it can be half past."""
    if nearest <= 0 or grown <= 0 or since_s <= 0:
        return LATEST_S if nearest > 0 else SOONEST_S
    return min(max(nearest / (grown / since_s) / 2, SOONEST_S), LATEST_S)


def _up(size: int, block: int) -> int:
    return -(-size // block) * block

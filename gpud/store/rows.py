"""Asking for many rows by id: lists of ids cut so that few statements have to be prepared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

SIZES = (1, 2, 4, 8, 64, 512)


def chunks(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """`ids` in parts of one of SIZES; the last id is repeated to fill a part."""
    for start in range(0, len(ids), SIZES[-1]):
        part = ids[start : start + SIZES[-1]]
        size = next(size for size in SIZES if size >= len(part))
        missing = size - len(part)
        yield [*part, *[part[-1]] * missing] if missing else part


def by_size(query: str) -> dict[int, str]:
    """The query for each size of a part: `{}` becomes that many parameters."""
    return {size: query.format(",".join("?" * size)) for size in SIZES}

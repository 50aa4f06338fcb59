"""The state diagram of docs/architecture.md, drawn from the table in core/lifecycle.py.

`python tests/core/diagram.py` writes it; test_lifecycle.py holds the page against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gpud.core.lifecycle import MOVES, Place
from gpud.core.model import JobState

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
BEGIN, END = "<!-- states:begin -->", "<!-- states:end -->"

# Where a new job is put (core/state.py, `add`), and why.
ARRIVALS: dict[Place, str] = {
    JobState.QUEUED: "submit",
    JobState.HELD: "submit, held",
    JobState.DONE: "a bad entry",
}


def diagram(moves: Mapping[tuple[Place, Place], str]) -> str:
    """A mermaid diagram: arrivals first, then the moves in the order of the table."""
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    [*] --> {place}: {why}" for place, why in ARRIVALS.items()]
    lines += [f"    {before} --> {after}: {why}" for (before, after), why in moves.items()]
    return "\n".join([*lines, "```"])


def section() -> str:
    """What stands in the page, markers included."""
    return f"{BEGIN}\n{diagram(MOVES)}\n{END}"


def write(page: Path) -> None:
    text = page.read_text() if page.exists() else f"# Architecture\n\n{BEGIN}\n{END}\n"
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    page.write_text(before + section() + after)


if __name__ == "__main__":
    write(PAGE)

"""Which jobs are alike enough to need the same memory: by their name, else by what they run.

Called where `--vram auto` is read, and by the engine when an attempt ends. Pure.
"""

from __future__ import annotations

import re
import shlex

LONGEST = 200  # characters

# They run what their first argument that is no option names.
_LAUNCHERS = re.compile(
    r"(?:python[0-9.]*|pypy3?|bash|sh|zsh|env|nice|nohup|time|exec|sudo|srun|mpirun|torchrun|"
    r"accelerate|deepspeed|uv|uvx|poetry|conda|pixi|run|launch|julia|Rscript|perl|ruby|node)"
)


def likeness_of(name: str, command: bytes, uid: int) -> str:
    """A short text: equal for jobs of one user that have the same name, or run the same program."""
    if name:
        return f"{uid}: {name}"[:LONGEST]
    line = command.split(b"\n", 1)[0].decode(errors="replace")
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    found = []
    for word in words:
        if word.startswith("-") or re.match(r"[A-Za-z_][A-Za-z0-9_]*=", word):
            continue
        found.append(word)
        if not _LAUNCHERS.fullmatch(word.rsplit("/", 1)[-1]):
            break
    return f"{uid}: {' '.join(found)}"[:LONGEST]

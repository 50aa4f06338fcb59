"""In which line of a TOML text each key stands, so that a problem can be found.

`tomllib` does not say. This looks at lines only: good enough to point at a place, never used to
decide anything. A key inside an inline table has the line of its table. Called by config/load.py.
"""

from __future__ import annotations

import re

Path = tuple[str, ...]

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_KEY = rf"{_PART}(?:\s*\.\s*{_PART})*"
_TABLE = re.compile(rf"\s*\[\[?\s*({_KEY})\s*\]")
_SETTING = re.compile(rf"\s*({_KEY})\s*=")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_MULTI = re.compile(r'"""|\'\'\'')


def key_lines(text: str) -> dict[Path, int]:
    """Each key and table of the text, as a path, with its line number (from 1)."""
    found: dict[Path, int] = {}
    table: Path = ()
    open_quote = ""
    for number, line in enumerate(text.split("\n"), 1):
        if not open_quote:
            if match := _TABLE.match(line):
                table = _parts(match[1])
                _note(found, table, number)
            elif match := _SETTING.match(line):
                _note(found, table + _parts(match[1]), number)
        for quote in _MULTI.findall(line):
            if not open_quote:
                open_quote = quote
            elif quote == open_quote:
                open_quote = ""
    return found


def line_of(found: dict[Path, int], path: tuple[str | int, ...]) -> int | None:
    """The line of the key, or of the innermost table around it that has one."""
    names: Path = tuple(part for part in path if isinstance(part, str))
    while names:
        if names in found:
            return found[names]
        names = names[:-1]
    return None


def dotted(path: tuple[str | int, ...]) -> str:
    """As a person would write it: source.nightly.priority, pool.gpus[1], env."MY VAR"."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if _BARE.fullmatch(part) else '"' + part.replace('"', '\\"') + '"'
            text += f".{shown}" if text else shown
    return text


def _note(found: dict[Path, int], path: Path, number: int) -> None:
    """`a.b = 1` is the first sight of `a` too."""
    for end in range(1, len(path) + 1):
        found.setdefault(path[:end], number)


def _parts(key: str) -> Path:
    return tuple(p[1:-1] if p[0] in "\"'" else p for p in re.findall(_PART, key))

"""The commands of `gpuctl submit -` and `--file`: the language of queue files and of `gpud run`.

Used by submit.py for these two only: the lexer costs what a submit of one job must not. Owns that
all of a file is understood before anything is sent; the first line that is not, refuses it all.
"""

from __future__ import annotations

import os
import sys

from gpud.client import wire
from gpud.config.arrays import show_array
from gpud.errors import GpudError, why_os
from gpud.sources.lexer import Lexer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from gpud.sources.lexer import Entry
    from gpud.sources.options import Options

STDIN = "-"
SLICE = 10_000  # entries at a time


def job_lines(path: str, directory: bytes) -> list[bytes]:
    """A line of the wire (JobFields) for each command of the file, of standard input for `-`.

    `directory` is what a relative `cwd=` starts at.
    """
    name = "standard input" if path == STDIN else path
    content = _content(path, name)
    lines = []
    for entry in _entries(content):
        line = wire.encode(_fields(entry, name, directory))
        if len(line) > wire.MAX_LINE_BYTES + 1:  # and its newline
            why = f"it is {len(line)} bytes long, and gpud reads lines of {wire.MAX_LINE_BYTES}"
            raise _refused(name, entry.line, why)
        lines.append(line)
    if not lines:
        raise GpudError(f"cannot submit: there is no command in {name}")
    return lines


def _content(path: str, name: str) -> bytes:
    try:
        if path != STDIN:
            with open(path, "rb") as file:
                return file.read()
        if sys.stdin is None:  # closed by the shell: `<&-`
            raise GpudError(f"cannot read {name}: it is closed")
        if sys.stdin.isatty():
            print("reading commands, one a line; Ctrl-D ends", file=sys.stderr, flush=True)
        return sys.stdin.buffer.read()
    except OSError as error:
        raise GpudError(f"cannot read {name}: {why_os(error)}") from error


def _entries(content: bytes) -> Iterator[Entry]:
    lexer = Lexer()
    lexer.feed(content, 0.0)
    lexer.finish()
    while entries := lexer.entries(SLICE, 0.0):
        yield from entries


def _fields(entry: Entry, name: str, directory: bytes) -> dict[str, Any]:
    if entry.problem:
        raise _refused(name, entry.line, entry.problem)
    if b"\0" in entry.command:
        raise _refused(name, entry.line, "it contains a NUL byte")
    fields: dict[str, Any] = {"command": wire.to_text(entry.command)}
    return fields | _options(entry, name, directory) if entry.options else fields


def _options(entry: Entry, name: str, directory: bytes) -> dict[str, Any]:
    """What the entry's `#gpud:` lines say, as JobFields."""
    from gpud.sources.options import OptionError, parse

    try:
        given: Options = parse(entry.options, submit=True)
    except OptionError as error:
        raise _refused(name, error.line, error.why) from error
    fields: dict[str, Any] = {**given}
    if "env" in given:
        pairs = fields.pop("env").items()
        fields["env_add"] = [wire.to_text(key + b"=" + value) for key, value in pairs]
    if "vram" in given:
        fields["vram_mib"] = fields.pop("vram")
    if "backoff" in given:
        first_s, longest_s = fields.pop("backoff")
        fields["backoff_s"] = first_s
        if longest_s is not None:
            fields.setdefault("backoff_max_s", longest_s)
    if "cwd" in given:
        fields["cwd"] = wire.to_text(os.path.join(directory, given["cwd"]))
    if "retry_args" in given:
        fields["retry_args"] = wire.to_text(given["retry_args"])
    if "array" in given:
        fields["array"] = show_array(*given["array"])
    if given.get("linger_s", 0) is None:
        fields["linger_s"] = "wait"
    return fields


def _refused(name: str, line: int, why: str) -> GpudError:
    return GpudError(
        f"cannot submit: {name}:{line}: {why}", kind="usage", hint="nothing was submitted"
    )

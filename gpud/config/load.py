"""The configuration file: read, checked as a whole, converted.

Owns the way from a path to a `Config`, and `ConfigError`, which holds every problem at once, each
one sentence with file and line: "gpud.toml:7: unknown key source.a.pritority: did you mean
priority?". Called by serve, check and doctor; opens no file but this one.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from gpud.config import meaning
from gpud.config.lines import key_lines, line_of
from gpud.config.schema import Config
from gpud.config.walk import Walk
from gpud.errors import GpudError, why_os

FILE_NAME = "gpud.toml"
SYSTEM_FILE = Path("/etc/gpud") / FILE_NAME
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_PLACE = re.compile(r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", re.DOTALL)


class ConfigError(GpudError):
    """`problems`: one sentence each, at least one."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        if len(self.problems) == 1:
            text = f"cannot use the configuration: {self.problems[0]}"
        else:
            lines = "".join(f"\n  {problem}" for problem in self.problems)
            text = f"cannot use the configuration: {len(self.problems)} problems{lines}"
        super().__init__(text, kind="config")


def default_path() -> Path | None:
    """The first that exists: `$XDG_CONFIG_HOME/gpud/gpud.toml` (or `~/.config`), `/etc/gpud/…`.

    `$GPUD_CONFIG` alone where it is set. None: gpud runs on its defaults.
    """
    given = os.environ.get("GPUD_CONFIG")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    places = [Path(base) / "gpud" / FILE_NAME, SYSTEM_FILE]
    return next((place for place in places if os.path.lexists(place)), None)


def load(path: Path) -> Config:
    """Raises ConfigError (exit status 78) with all problems."""
    return parse(_read(path), name=str(path), directory=Path(os.path.abspath(path)).parent)


def problems(path: Path) -> list[str]:
    """What is wrong with the file; empty: nothing."""
    try:
        load(path)
    except ConfigError as error:
        return error.problems
    return []


def parse(text: str, *, name: str, directory: Path) -> Config:
    """`name` is what problems begin with; relative paths are relative to `directory`."""
    document = _toml(text, name)
    walk = Walk(lambda value: expand(value, directory))
    clean = walk.document(document)
    config = None
    if not walk.problems:
        try:
            config = msgspec.convert(clean, Config, strict=True)
        except msgspec.ValidationError as error:  # the walk should have known
            raise ConfigError([f"{name}: {error}"]) from error
        for at, said in meaning.findings(config):
            walk.problem(at, said)
    if config is not None and not walk.problems:
        return config
    lines = key_lines(text)
    placed = [(line_of(lines, at), said) for at, said in walk.problems]
    placed.sort(key=lambda found: found[0] or 0)
    raise ConfigError([f"{_at(name, line)}: {_one_line(said)}" for line, said in placed])


def expand(value: str, directory: Path) -> str:
    """`~`, `$NAME` and `${NAME}`, then relative to `directory`. Raises GpudError."""

    def variable(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        found = os.environ.get(name)
        if not found:
            raise GpudError(f"cannot expand {value}: the variable {name} is not set", kind="config")
        return found

    text = value
    if text.startswith("~"):
        text = os.path.expanduser(text)
        if text.startswith("~"):
            user = text.split("/", 1)[0]
            raise GpudError(f"cannot expand {value}: no home directory for {user}", kind="config")
    return os.path.normpath(directory / _VARIABLE.sub(variable, text))


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: cannot read it: {why_os(error)}"]) from error
    except ValueError as error:  # a NUL in the path
        raise ConfigError([f"{path!r}: cannot read it: {error}"]) from error
    try:
        return data.decode("utf-8-sig")  # some editors write a byte order mark
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise ConfigError([f"{_at(str(path), line)}: not UTF-8: byte 0x{byte:02x}"]) from error


def _toml(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError([f"{name}: not TOML that gpud reads: nested too deeply"]) from error
    except ValueError as error:  # TOMLDecodeError, and what int() says to a giant number
        match = _PLACE.match(str(error))
        said = match[1] if match else str(error)
        said = said[:1].lower() + said[1:]
        if match and match[2]:
            place = f"{name}:{match[2]}:{match[3]}"
        else:
            place = _at(name, len(text.rstrip().split("\n")) if match else None)
        raise ConfigError([f"{place}: not TOML: {said}"]) from error


def _at(name: str, line: int | None) -> str:
    return name if line is None else f"{name}:{line}"


def _one_line(text: str) -> str:
    """A sentence may quote a value, and a value may have line ends and worse in it."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)

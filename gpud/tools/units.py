"""What `gpud install-service` puts where, and how it knows later whether a person changed it.

Used by tools/install.py and tools/uninstall.py. Reads the unit files that come with gpud (systemd/
in the repository, gpud/systemd in an installed package); writes nothing.

Each file begins with a line that holds the digest of the rest: a file that fits its digest is as
gpud left it, and may be replaced or removed. Any other is a person's, and is left alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import gpud
from gpud.errors import GpudError, why_os

ETC = Path("/etc")
UNIT = "gpud.service"
IN_UNIT = "/usr/bin/gpud"  # where the files say that gpud is
_STAMP = "# gpud install-service {}: the next one replaces this file, unless it was changed\n"
_STAMPED = re.compile(re.escape(_STAMP).replace(re.escape("{}"), "([0-9a-f]{16})"))
_PLAIN = re.compile(r"[A-Za-z0-9_./+@:,=-]+")
_CONFIG = """\
# The configuration of the gpud of this machine. Without a word here it runs on its defaults: every
# GPU, and jobs from gpuctl submit. All keys are in the project's config.example.toml; gpud check
# says what is wrong, gpuctl reload takes it over.
"""


class File(NamedTuple):
    target: Path
    text: str


def user_directory() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "systemd" / "user"


def files(*, user: bool, command: str) -> list[File]:
    """In the order in which they are to be written. `command`: the gpud that is to run. Raises
    GpudError."""
    if user:
        where = user_directory()
        pairs = [(where / UNIT, "user/" + UNIT), (where / "gpud-jobs.slice", "gpud-jobs.slice")]
        return [File(target, stamped(_text(name, command))) for target, name in pairs]
    where = ETC / "systemd" / "system"
    pairs = [
        (where / UNIT, UNIT),
        (where / "gpud-jobs.slice", "gpud-jobs.slice"),
        (ETC / "sysusers.d" / "gpud.conf", "sysusers.d/gpud.conf"),
        (ETC / "tmpfiles.d" / "gpud.conf", "tmpfiles.d/gpud.conf"),
    ]
    found = [File(target, stamped(_text(name, command))) for target, name in pairs]
    return [*found, File(ETC / "gpud" / "gpud.toml", stamped(_CONFIG))]


def _text(name: str, command: str) -> str:
    package = Path(gpud.__file__).parent
    for directory in (package / "systemd", package.parent / "systemd"):
        if (directory / UNIT).is_file():
            text = (directory / name).read_text()
            return text.replace(f"ExecStart={IN_UNIT} ", f"ExecStart={word(command)} ")
    raise GpudError(
        "cannot install the service: its unit files are missing from this installation",
        hint="install gpud again: pip install --force-reinstall gpud",
    )


def word(path: str) -> str:
    """A program's path as ExecStart= wants it (systemd.service(5), "COMMAND LINES"). Raises
    GpudError for one that cannot be written there."""
    if any(ord(character) < 32 for character in path):
        raise GpudError(f"cannot install the service: {path!r} cannot be written in a unit file")
    text = path.replace("%", "%%")
    if _PLAIN.fullmatch(path):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def own_command() -> str:
    """The `gpud` that stands beside our Python, else the one that was called."""
    beside = Path(sys.executable).with_name("gpud")
    if os.access(beside, os.X_OK):
        return str(beside)
    called = os.path.abspath(sys.argv[0])
    if os.path.basename(called) == "gpud" and os.access(called, os.X_OK):
        return called
    raise GpudError(
        f"cannot install the service: there is no gpud beside {sys.executable}",
        hint="install it (pip install gpud), and call that gpud install-service",
    )


def changeable_by(path: str) -> str:
    """Who else than root could put another program there, as a clause; "" for nobody."""
    real = Path(os.path.realpath(path))
    for place in (real, *real.parents):
        status = place.stat()
        if status.st_uid:
            return f"{place} belongs to uid {status.st_uid}"
        if status.st_mode & 0o002 and not status.st_mode & 0o1000:
            return f"everybody may write {place}"
    return ""


def stamped(text: str) -> str:
    return _STAMP.format(_digest(text)) + text


def is_as_written(text: str) -> bool:
    """As some version of gpud has written it."""
    line, newline, rest = text.partition("\n")
    found = _STAMPED.fullmatch(line + newline)
    return found is not None and found[1] == _digest(rest)


def standing(target: Path) -> str | None:
    """What stands there now; None: nothing. Raises GpudError."""
    try:
        if target.is_symlink():
            return f"a link to {os.readlink(target)}"  # of a masked unit, for one
        return target.read_text(errors="surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise GpudError(f"cannot read {target}: {why_os(error)}") from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]

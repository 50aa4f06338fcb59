"""The systemd that `gpud install-service` and `uninstall-service` speak to, by its commands.

Used by tools/install.py and tools/uninstall.py.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from gpud.errors import GpudError, why_os
from gpud.executors.delegated import mount_point
from gpud.tools.units import UNIT

BOOTED = Path("/run/systemd/system")  # sd_booted(3)
PATIENCE_S = 120.0


def require(verb: str, *, user: bool) -> None:
    """Raises GpudError: no systemd, or none that this user may tell."""
    if not BOOTED.is_dir():
        raise GpudError(
            f"cannot {verb} the service: systemd does not run this machine",
            hint="start gpud serve as other services are started here, or: gpud serve &",
        )
    if not user and os.geteuid():
        words = {"install": "install-service", "uninstall": "uninstall-service"}
        raise GpudError(
            f"cannot {verb} the service: that takes root",
            hint=f"sudo {sys.argv[0]} {words[verb]}, or for yourself: gpud {words[verb]} --user",
        )
    if user and not os.environ.get("XDG_RUNTIME_DIR"):
        raise GpudError(
            f"cannot {verb} the service: there is no session of systemd for this user",
            hint="XDG_RUNTIME_DIR is not set: log in by ssh or at the console, not by su or sudo",
        )


def tell(*command: str) -> None:
    """Raises GpudError with what it said."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False,
            stdin=subprocess.DEVNULL, timeout=PATIENCE_S,
        )  # fmt: skip
    except OSError as error:
        raise GpudError(f"cannot run {command[0]}: {why_os(error)}") from error
    except subprocess.TimeoutExpired as error:
        raise GpudError(f"cannot run {shlex.join(command)}: it does not answer") from error
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split()) or f"exit status {done.returncode}"
        raise GpudError(f"cannot run {shlex.join(command)}: {said}")


def systemctl(user: bool) -> tuple[str, ...]:
    return ("systemctl", "--user") if user else ("systemctl",)


def is_active(unit: str, *, user: bool) -> bool:
    try:
        tell(*systemctl(user), "is-active", "--quiet", unit)
    except GpudError:
        return False
    return True


def jobs_inside() -> Iterator[Path]:
    """Cgroups of jobs in that of gpud.service itself: of a gpud that started them there."""
    root = mount_point()
    if root is not None:
        yield from (root / "system.slice" / UNIT).glob("[0-9]*.[0-9]*-*")

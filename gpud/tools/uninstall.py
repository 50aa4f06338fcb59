"""`gpud uninstall-service`: takes away what `gpud install-service` put there, and nothing else.

Called by gpud/main.py. Jobs that run go on; the queue, its history and the output stay.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gpud.errors import GpudError, why_os
from gpud.tools import manager, units
from gpud.tools.output import say

EXAMPLES = """\
examples:
  gpuctl drain && gpuctl wait state:active; sudo $(command -v gpud) uninstall-service
  gpud uninstall-service --user
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="gpud uninstall-service",
        description="Stop the service and take its units away. Running jobs go on.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--user", action="store_true", help="the one of yourself")
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="remove below DIR, and tell systemd nothing"
    )
    options = parser.parse_args(argv)
    lines: list[str] = []
    try:
        if options.root is None:
            manager.require("uninstall", user=options.user)
            _stop(options.user, lines)
        for file in reversed(units.files(user=options.user, command=units.IN_UNIT)):
            take(file.target, options.root, lines)
        if options.root is None:
            manager.tell(*manager.systemctl(options.user), "daemon-reload")
            lines += _what_stays(options.user)
        return say("\n".join(lines), "gpud uninstall-service")
    except GpudError as error:
        if lines:
            say("\n".join(lines), "gpud uninstall-service")
        print(error.for_people("gpud uninstall-service"), file=sys.stderr)
        return error.exit_status


def take(path: Path, root: Path | None, lines: list[str]) -> None:
    """A line about it, unless there is nothing. Raises GpudError."""
    target = path if root is None else root / path.relative_to("/")
    before = units.standing(target)
    if before is None:
        return
    if not units.is_as_written(before):
        what = "your configuration" if target.suffix == ".toml" else "which somebody changed"
        lines.append(f"left as it is: {target}, {what}")
        return
    try:
        target.unlink()
        if target.parent.name == "gpud" and not any(target.parent.iterdir()):
            target.parent.rmdir()
    except OSError as error:
        raise GpudError(f"cannot remove {target}: {why_os(error)}") from error
    lines.append(f"removed: {target}")


def _stop(user: bool, lines: list[str]) -> None:
    where = units.user_directory() if user else units.ETC / "systemd" / "system"
    if units.standing(where / units.UNIT) is None:
        return
    was_active = manager.is_active(units.UNIT, user=user)
    manager.tell(*manager.systemctl(user), "disable", "--now", units.UNIT)
    lines.append("stopped and disabled: gpud" if was_active else "disabled: gpud")


def _what_stays(user: bool) -> list[str]:
    found = []
    if manager.is_active("gpud-jobs.slice", user=user):
        ctl = " ".join(manager.systemctl(user))
        found.append(f"jobs go on; to end them: {ctl} stop gpud-jobs.slice")
    where = "~/.local/state/gpud" if user else "/var/lib/gpud"
    return [*found, f"kept: the queue, its history and the output, in {where}"]

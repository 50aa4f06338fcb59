"""`gpud install-service`: puts the units in place, says each thing it did, and what to do next.

Called by gpud/main.py. What a person changed is never overwritten; done twice, it does nothing.
"""

from __future__ import annotations

import argparse
import os
import pwd
import shutil
import sys
from pathlib import Path

from gpud.errors import GpudError, why_os
from gpud.tools import manager, units
from gpud.tools.output import say
from gpud.tools.probe_machine import LINGERING

EXAMPLES = """\
examples:
  sudo $(command -v gpud) install-service --now    for everybody; starts at boot
  gpud install-service --user --now                for yourself, without root
  gpud install-service --root build/               into a package: only writes files
"""


def main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    lines: list[str] = []
    try:
        if options.root is not None and options.now:
            raise GpudError("cannot start what is put under --root", kind="usage")
        if options.root is None:
            manager.require("install", user=options.user)
        _refuse_to_end_jobs(options)
        command = options.command or units.own_command()
        files = units.files(user=options.user, command=command)
        wrote = [put(file, options.root, lines) for file in files]
        if options.root is None:
            _tell_systemd(options, lines, changed=any(wrote))
            lines += _next_steps(options, command)
        return say("\n".join(lines), "gpud install-service")
    except GpudError as error:
        if lines:
            say("\n".join(lines), "gpud install-service")
        print(error.for_people("gpud install-service"), file=sys.stderr)
        return error.exit_status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpud install-service",
        description="Make this gpud a service of systemd: put its units in place.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--user", action="store_true", help="for yourself, without root")
    parser.add_argument("--now", action="store_true", help="also start it, now and at boot")
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="write below DIR, and tell systemd nothing"
    )
    parser.add_argument(
        "--command", metavar="PATH", help="the gpud that the unit runs (default: this one)"
    )
    return parser


def put(file: units.File, root: Path | None, lines: list[str]) -> bool:
    """Whether it was written; a line about it. Raises GpudError."""
    target = file.target if root is None else root / file.target.relative_to("/")
    before = units.standing(target)
    if before == file.text:
        lines.append(f"there already: {target}")
        return False
    if before is not None and not units.is_as_written(before):
        if target.suffix == ".toml":
            lines.append(f"left as it is: {target}, your configuration")
        else:
            lines.append(f"left as it is: {target}, which somebody changed")
            lines.append(f"  to have ours: rm {target}, then this again; changes go in a drop-in")
        return False
    draft = target.with_name(f".{target.name}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(file.text)
        draft.chmod(0o644)
        draft.rename(target)
    except OSError as error:
        raise GpudError(f"cannot write {target}: {why_os(error)}") from error
    lines.append(f"{'wrote' if before is None else 'replaced'}: {target}")
    return True


def _refuse_to_end_jobs(options: argparse.Namespace) -> None:
    """The new unit's KillMode counts at the next stop, for what was started before, too."""
    if options.root is None and not options.user and any(manager.jobs_inside()):
        raise GpudError(
            f"cannot install the service: jobs run in the cgroup of {units.UNIT} itself, and would "
            "end at its next restart",
            hint="let them end first: gpuctl drain && gpuctl wait state:active",
        )


def _tell_systemd(options: argparse.Namespace, lines: list[str], *, changed: bool) -> None:
    if not options.user:
        for program, *words in (
            ("systemd-sysusers", "/etc/sysusers.d/gpud.conf"),
            ("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/gpud.conf"),
        ):
            if shutil.which(program):
                manager.tell(program, *words)
    manager.tell(*manager.systemctl(options.user), "daemon-reload")
    lines.append("told systemd: daemon-reload")
    if not options.now:
        return
    running = manager.is_active(units.UNIT, user=options.user)
    manager.tell(*manager.systemctl(options.user), "enable", units.UNIT)
    if changed or not running:
        manager.tell(*manager.systemctl(options.user), "restart", units.UNIT)
        lines.append("restarted: running jobs go on" if running else "started, now and at boot")
    else:
        lines.append("it runs already")


def _next_steps(options: argparse.Namespace, command: str) -> list[str]:
    found = []
    ctl = " ".join(manager.systemctl(options.user))
    if not options.now:
        if manager.is_active(units.UNIT, user=options.user):
            found.append(f"next: {ctl} restart gpud (running jobs go on)")
        else:
            found.append(f"next: {ctl} enable --now gpud")
    if options.user:
        name = pwd.getpwuid(os.geteuid()).pw_name
        if not (LINGERING / name).exists():
            found.append("next: loginctl enable-linger, or all ends at your last logout")
    elif who := units.changeable_by(command):
        found.append(f"beware: root runs {command}, and {who}; better install gpud for root")
    return found

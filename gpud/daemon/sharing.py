"""System mode: what `[access]` means on this machine, and a state directory that users may cross.

Called by daemon/serve.py at the start. Everything here is root's; in one person's daemon it does
nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from gpud import paths
from gpud.config.schema import Access, Config
from gpud.control.access import Policy
from gpud.errors import GpudError, why_os
from gpud.executors.accounts import gid_of

EVERYBODY = "*"
LOGS = "logs"


def policy_of(access: Access) -> Policy:
    """Raises GpudError (config)."""
    if access.mode == "private":
        return Policy()
    if os.geteuid() != 0:
        raise GpudError(
            'cannot serve all users (access.mode = "system"): only root can',
            kind="config",
            hint='for yourself alone: mode = "private"',
        )
    return Policy(
        system=True,
        group=None if access.group == EVERYBODY else _gid(access.group, "group"),
        admins=None if access.admins is None else _gid(access.admins, "admins"),
        show_commands=access.show_commands == "all",
        max_priority=access.max_priority,
        max_queued=access.max_queued,
        max_submits_per_s=access.max_submits_per_s,
        max_submit_bytes=access.max_submit << 20,
        max_connections=access.max_connections,
    )


def _gid(name: str, key: str) -> int:
    gid = gid_of(name)
    if name == EVERYBODY or gid is None:
        raise GpudError(
            f'cannot serve all users: access.{key} is "{name}", and this machine knows no such '
            "group",
            kind="config",
            hint=f"groupadd --system {name}" if name != EVERYBODY else "write a group's name",
        )
    return gid


def sockets_of(config: Config, given: Path | None, state: Path) -> tuple[Path, ...]:
    """Where the daemon listens."""
    given = given or (Path(config.socket) if config.socket else None)
    if config.access.mode == "private":
        return paths.listening_at(state, given)
    if given is None and os.environ.get("GPUD_SOCKET"):
        given = Path(os.environ["GPUD_SOCKET"])
    runtime = os.environ.get("RUNTIME_DIRECTORY")
    if given is None and runtime:
        given = Path(runtime.split(":")[0]) / paths.SOCKET_NAME
    return (given or paths.SYSTEM_SOCKET,)


def open_up(state: Path, warn: Callable[..., None]) -> None:
    """Users may cross the state directory to their logs, and see no names there; everything else
    in it is for root alone, now and from now on. Raises GpudError (storage)."""
    os.umask(0o077)
    try:
        for entry in os.scandir(state):
            if entry.is_symlink() or entry.name == LOGS:
                continue
            mode = entry.stat(follow_symlinks=False).st_mode
            if mode & 0o077 and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                os.chmod(entry.path, stat.S_IMODE(mode) & 0o700)
        logs = state / LOGS
        logs.mkdir(exist_ok=True)
        for directory in (logs, *(Path(e.path) for e in os.scandir(logs) if e.is_dir())):
            os.chmod(directory, 0o711)
        os.chmod(state, 0o711)
    except OSError as error:
        raise GpudError(f"cannot use {state}: {why_os(error)}", kind="storage") from error
    for above in state.resolve().parents:
        if not above.stat().st_mode & 0o001:
            warn("logs_out_of_reach", why=f"users may not enter {above}: gpuctl logs is for root")
            break

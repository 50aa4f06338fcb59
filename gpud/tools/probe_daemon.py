"""Probes of `gpud doctor`: the configuration, the state directory, the daemon, runner and cgroup.

Each function is a probe (findings.py), called in a thread of its own. They change nothing; the
daemon is greeted and asked for a sign of life.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpud import __version__, paths
from gpud.config.schema import QueueFileSource
from gpud.errors import why_os
from gpud.executors import delegated
from gpud.executors.transient import SLICE
from gpud.filesystem import is_network, type_of
from gpud.locks import is_held
from gpud.tools.findings import Finding, Situation

ANSWER_WITHIN_S = 2.0
LITTLE_SPACE_MIB = 200
SOME_SPACE_MIB = 2048


def configuration(situation: Situation) -> Iterator[Finding]:
    if situation.config_path is None:
        yield Finding("ok", "config", "no configuration file: gpud runs on its defaults")
    for problem in situation.config_problems:
        yield Finding("problem", "config", problem, "mend it; gpud check looks again")
    if situation.config_path is not None and not situation.config_problems:
        yield Finding("ok", "config", str(situation.config_path))


def state_directory(situation: Situation) -> Iterator[Finding]:
    directory, usual = situation.state_dir, paths.state_dir()
    elsewhere = "choose another: state_dir in the configuration"
    if not situation.config.state_dir and directory != usual:
        text = f"{usual} is on a network file system: gpud uses {directory}"
        yield Finding("note", "state", text, "or " + elsewhere)
    place = next(p for p in (directory, *directory.parents) if os.path.lexists(p))
    if not place.is_dir():
        yield Finding("problem", "state", f"{place} is not a directory", elsewhere)
        return
    if not os.access(place, os.W_OK | os.X_OK):
        text = f"{place} may not be written by this user"
        yield Finding("problem", "state", text, f"run gpud as its owner, or {elsewhere}")
        return
    kind = type_of(str(place))
    if is_network(kind):
        text = f"{directory} is on a network file system ({kind})"
        yield Finding("problem", "state", text, "choose a local disk: state_dir")
    elif kind in ("tmpfs", "ramfs"):
        text = f"{directory} is in memory ({kind}): the queue is gone after a restart"
        yield Finding("note", "state", text, "choose a disk: state_dir")
    if place == directory:
        owner = directory.stat().st_uid
        if owner != os.geteuid():
            text = f"{directory} belongs to uid {owner}, this is uid {os.geteuid()}"
            yield Finding("problem", "state", text, f"run gpud as its owner, or {elsewhere}")
    status = os.statvfs(place)
    free_mib = status.f_bavail * status.f_frsize >> 20
    text = f"{directory}{'' if place == directory else ' (not there yet)'}, {kind or 'local'}, "
    text += f"{free_mib} MiB free"
    if free_mib < LITTLE_SPACE_MIB:
        yield Finding("problem", "state", text, "make room: with a full disk nothing is started")
    elif free_mib < SOME_SPACE_MIB:
        yield Finding("note", "state", text, "the jobs' output goes there too")
    else:
        yield Finding("ok", "state", text)


def daemon(situation: Situation) -> Iterator[Finding]:
    path = situation.socket
    try:
        greeting, pong = _greet(path)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        text = f"nobody listens at {path}: gpud is not running"
        yield Finding("note", "daemon", text, "start it: gpud serve, or systemctl start gpud")
        return
    except PermissionError:
        text = f"{path} is not for this user"
        yield Finding("problem", "daemon", text, "run doctor as the user that gpud runs as")
        return
    except TimeoutError:
        text = f"whoever listens at {path} does not answer"
        yield Finding(
            "problem", "daemon", text, "is it stopped? systemctl restart gpud: jobs go on"
        )
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = why_os(error) if isinstance(error, OSError) else "it does not speak as gpud does"
        yield Finding("problem", "daemon", f"{path}: {why}", "choose another: socket")
        return
    text = f"gpud {greeting['gpud']} answers at {path}"
    if not pong:
        do = "see its log (journalctl -u gpud); a restart does not touch jobs"
        yield Finding("problem", "daemon", f"{text}, but not to ping", do)
    elif greeting["gpud"] != __version__:
        text += f"; this is {__version__}"
        yield Finding("note", "daemon", text, "restart it when you like: jobs go on")
    else:
        yield Finding("ok", "daemon", text)


def runner(situation: Situation) -> Iterator[Finding]:
    """Alive is who holds the lock; the number is the version of its protocol."""
    try:
        locks = sorted(situation.state_dir.glob("runner-*.lock"))
    except OSError:
        locks = []
    alive = [lock.stem for lock in locks if is_held(lock)]
    if alive:
        yield Finding("ok", "runner", f"alive: {', '.join(alive)} in {situation.state_dir}")
    else:
        yield Finding("ok", "runner", "none runs; gpud serve starts one")


def cgroup(situation: Situation) -> Iterator[Finding]:
    """The configured one, or that of the daemon where it runs, else of this shell."""
    do = "as a service (gpud install-service) it has one; all works without it, too"
    root = delegated.mount_point()
    if root is None:
        yield Finding("note", "cgroup", "no cgroup v2 here: sessions and parents are followed", do)
        return
    if situation.config.cgroup:
        directory, whose = Path(situation.config.cgroup), "configured"
    else:
        pid = daemon_pid(situation)
        name = delegated.cgroup_of(pid or "self")
        if name is None:
            yield Finding("note", "cgroup", "gpud is in no cgroup of version 2", do)
            return
        if pid and (runners := runners_as_services(root, name)):
            yield Finding("ok", "cgroup", f"{runners[0]} (a service of the runner's own)")
            return
        directory = root / name.lstrip("/")
        whose = "of the daemon" if pid else "of this shell"
    writable, given = delegated.is_writable(directory), delegated.is_delegated(directory)
    words = [whose, "delegated" if given else "not delegated"]
    words.append("writable" if writable else "not writable")
    text = f"{directory} ({', '.join(words)})"
    if situation.config.cgroup and not writable:
        do = "give it to gpud's user (chown -R), or take cgroup out of the configuration"
        yield Finding("problem", "cgroup", text, do)
    elif writable and (given or situation.config.cgroup):
        yield Finding("ok", "cgroup", text)
    else:
        yield Finding("note", "cgroup", text, do)


def runners_as_services(root: Path, group: str) -> list[Path]:
    """Their cgroups, under the same manager as the daemon, whose group this is."""
    user, per_user, rest = group.partition("/user@")
    base = f"{user}{per_user}{rest.partition('/')[0]}" if per_user else ""
    return sorted((root / base.lstrip("/")).glob(f"gpud.slice/{SLICE}/gpud-runner-*.service"))


def sources(situation: Situation) -> Iterator[Finding]:
    for name, source in situation.config.source.items():
        yield _source(f"source.{name}", source)


def daemon_pid(situation: Situation) -> int | None:
    """The process that listens on the socket, as the kernel knows it."""
    try:
        with _connected(situation.socket) as sock:
            size = struct.calcsize("3i")
            peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    except OSError:
        return None
    pid: int = struct.unpack("3i", peer)[0]
    return pid or None


def _connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.settimeout(ANSWER_WITHIN_S)
    try:
        with paths.short_address(path) as address:
            sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _greet(path: Path) -> tuple[dict[str, Any], bool]:
    """The greeting, and whether it answered ping. Raises OSError, ValueError, KeyError."""
    with _connected(path) as sock, sock.makefile("rb") as lines:
        greeting = json.loads(lines.readline(1 << 16))
        greeting["gpud"], greeting["protocol"]
        sock.sendall(b'{"type":"ping","id":1}\n')
        try:
            return greeting, json.loads(lines.readline(1 << 16)).get("id") == 1
        except (TimeoutError, ValueError):
            return greeting, False


def _source(subject: str, source: QueueFileSource) -> Finding:
    directory = os.path.dirname(source.path)
    if source.cwd and not os.path.isdir(source.cwd):
        return Finding("problem", subject, f"the directory {source.cwd} does not exist", "make it")
    if not os.path.isdir(directory):
        return Finding("problem", subject, f"the directory {directory} does not exist", "make it")
    if os.path.exists(source.path) and not os.access(source.path, os.R_OK):
        return Finding("problem", subject, f"{source.path} may not be read by this user", "chmod")
    if source.env_file and not os.access(source.env_file, os.R_OK):
        return Finding("problem", subject, f"{source.env_file} cannot be read", "make it, or chmod")
    kind = type_of(source.path)
    if is_network(kind):
        text = f"{source.path} is on a network file system ({kind})"
        return Finding("note", subject, text, "let one machine append to it: two lose lines")
    there = "" if os.path.exists(source.path) else " (not there yet)"
    return Finding("ok", subject, f"{source.path}{there}")

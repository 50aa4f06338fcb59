"""Probes of `gpud doctor`: what Python, the kernel and the system offer.

Each function is a probe (findings.py), called in a thread of its own. They change nothing.
"""

from __future__ import annotations

import os
import platform
import pwd
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from gpud import __version__
from gpud.errors import why_os
from gpud.executors.delegated import cgroup_of
from gpud.tools.findings import Finding, Situation
from gpud.tools.probe_daemon import daemon_pid

OLDEST_CLOCK_S = 1_735_689_600  # 2025-01-01: gpud is younger than that
FEW_PROCESSES = 1000
FEW_FILES = 512
PER_USER_MANAGER = "/user@"
LINGERING = Path("/var/lib/systemd/linger")


def python(situation: Situation) -> Iterator[Finding]:
    yield Finding("ok", "python", f"gpud {__version__}, Python {platform.python_version()}")


def sqlite(situation: Situation) -> Iterator[Finding]:
    from gpud.store.minimums import SQLITE

    do = "use a Python with a newer one: uv python install, conda, or a newer system"
    wanted = ".".join(map(str, SQLITE))
    try:
        import sqlite3
    except ImportError:
        yield Finding("problem", "sqlite", "this Python was built without sqlite3", do)
        return
    if sqlite3.sqlite_version_info < SQLITE:
        text = f"SQLite {sqlite3.sqlite_version} is too old: {wanted} or newer is needed"
        yield Finding("problem", "sqlite", text, do)
    else:
        yield Finding("ok", "sqlite", f"SQLite {sqlite3.sqlite_version}")


def kernel(situation: Situation) -> Iterator[Finding]:
    from gpud.store.minimums import KERNEL

    release = os.uname().release
    wanted = ".".join(map(str, KERNEL))
    numbers = tuple(int(n) for n in release.split("-")[0].split(".")[:2] if n.isdigit())
    if len(numbers) == 2 and numbers < KERNEL:
        text = f"Linux {release} is too old: {wanted} or newer is needed"
        yield Finding("problem", "kernel", text, "update the kernel")
        return
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        why = why_os(error) if isinstance(error, OSError) else "this Python does not have it"
        text = f"pidfd_open does not work here: {why}"
        do = "in a container: allow pidfd_open and pidfd_send_signal in its seccomp profile"
        yield Finding("problem", "kernel", text, do)
    else:
        yield Finding("ok", "kernel", f"Linux {release}, pidfd works")


def shell(situation: Situation) -> Iterator[Finding]:
    """/bin/sh is what the runner itself needs; the others are configured."""
    config = situation.config
    wanted = {"/bin/sh": "the runner", config.defaults.shell[0]: "[defaults]"}
    for name, source in config.source.items():
        if source.shell:
            wanted.setdefault(source.shell[0], f"source.{name}")
    for program, who in wanted.items():
        if shutil.which(program):
            yield Finding("ok", "shell", program)
        else:
            text = f"{program} is not there or may not be run; {who} needs it"
            yield Finding("problem", "shell", text, "install it, or change shell")


def limits(situation: Situation) -> Iterator[Finding]:
    """Jobs inherit these: data loaders need processes, checkpoints need files."""
    for which, name, few, ulimit in (
        (resource.RLIMIT_NPROC, "processes", FEW_PROCESSES, "ulimit -u, LimitNPROC="),
        (resource.RLIMIT_NOFILE, "open files", FEW_FILES, "ulimit -n, LimitNOFILE="),
    ):
        soft, _ = resource.getrlimit(which)
        text = f"{'unlimited' if soft == resource.RLIM_INFINITY else soft} {name}"
        if soft != resource.RLIM_INFINITY and soft < few:
            do = f"raise it where gpud is started: {ulimit}"
            yield Finding("note", "limits", f"only {text} for gpud and its jobs", do)
        else:
            yield Finding("ok", "limits", text)


def clock(situation: Situation) -> Iterator[Finding]:
    """Times of the past are shown wrong, and retries wait for a time that was."""
    now_s = time.time()
    do = "set it: timedatectl set-ntp true"
    shown = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(now_s))
    if now_s < OLDEST_CLOCK_S:
        yield Finding("problem", "clock", f"it says {shown}", do)
        return
    directory = situation.state_dir
    try:
        newest_s = max((p.stat().st_mtime for p in list(directory.iterdir())), default=0.0)
    except OSError:  # not there yet, or not for us: the probe of the state says so
        newest_s = 0.0
    if newest_s > now_s + 60:
        ahead = f"{newest_s - now_s:.0f} s"
        text = f"it says {shown}, and {directory} was written {ahead} after that"
        yield Finding("problem", "clock", text, do)
    else:
        yield Finding("ok", "clock", shown)


def lingering(situation: Situation) -> Iterator[Finding]:
    """Without it systemd ends the user's services, and gpud's jobs, at the last logout."""
    if not Path("/run/systemd/system").is_dir() or os.geteuid() == 0:
        return
    user = pwd.getpwuid(os.geteuid()).pw_name
    if (LINGERING / user).exists():
        yield Finding("ok", "lingering", f"on for {user}: user services outlive the login")
        return
    pid = daemon_pid(situation)
    as_unit = pid is not None and PER_USER_MANAGER in (cgroup_of(pid) or "")
    text = f"off for {user}: a user service, jobs included, ends at the last logout"
    yield Finding("problem" if as_unit else "note", "lingering", text, "loginctl enable-linger")

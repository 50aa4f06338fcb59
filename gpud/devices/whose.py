"""Whose is a process on a GPU: which attempt's, a stranger's, and what is it called?

Called by devices/looking.py, in the GPU helper. Reads /proc; decides nothing about what follows.

Rule 1: it, or an ancestor, is the shell of a live attempt: that attempt's.
Rule 2: it, or an ancestor, is in the session of such a shell: that attempt's.
Rule 3: an ancestor is one of our runners: what its environment says (GPUD_JOB_ID, GPUD_ATTEMPT), if
    that is a live attempt; else of this gpud, and nobody knows which job's (job -1).
Rule 4: whose it was at the look before, if that attempt lives: its ancestors have ended since.
Everything else is a stranger's (job 0).

A process that has ended before it could be looked up is left out, since its memory is being given
back; if the driver lists it in the next look too, it is shown without a name.
"""

from __future__ import annotations

import os
import pwd
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from gpud.core.sight import GpuProcess

Key = tuple[int, int]  # (job, attempt)
STRANGER: Key = (0, 0)
OURS: Key = (-1, 0)

COMM_LENGTH = 15  # the kernel cuts names (TASK_COMM_LEN)
MOST_ANCESTORS = 200  # a chain that is longer changes while it is read
NAME_WAIT_S = 0.2  # for a user's name: a directory service may be slow, or gone

# What follows from blindness, for people; the reason goes after it.
OTHERS_UNSEEN = (
    "other people's processes cannot be told from jobs here, so GPUs that they use get jobs, too"
)


class Use(NamedTuple):
    """A process as the driver lists it."""

    pid: int
    mib: int | None
    util: int | None
    compute: bool


class Stat(NamedTuple):
    parent: int
    session: int
    started: int  # in ticks since the boot: tells two processes with one pid apart


class Whose:
    """Remembers from look to look; `begin` starts one."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._users = _Users()
        self._attempts: Mapping[int, Key] = {}
        self._live: Collection[Key] = ()
        self._runners: Sequence[int] = ()
        self._blind = False
        self._known: dict[int, tuple[int, Key]] = {}  # pid -> (started, whose), of the look before
        self._next_known: dict[int, tuple[int, Key]] = {}
        self._gone: set[tuple[str, int]] = set()  # (GPU, pid) left out in the look before
        self._next_gone: set[tuple[str, int]] = set()

    def begin(self, attempts: Mapping[int, Key], runners: Sequence[int], *, blind: bool) -> None:
        """`blind`: process ids mean nothing here, so nothing is looked up."""
        # Not every process has a session, and 1 is everybody's ancestor.
        self._attempts = {pid: key for pid, key in attempts.items() if pid > 1}
        self._live = set(attempts.values())
        self._runners, self._blind = runners, blind
        self._known, self._next_known = self._next_known, {}
        self._gone, self._next_gone = self._next_gone, set()

    def of(self, uuid: str, use: Use) -> GpuProcess | None:
        """A process on the GPU `uuid`; None for one that has just ended."""
        pid = use.pid
        stat = None if self._blind else self._stat(pid)
        if stat is None:
            if not self._blind and not _exists(pid) and (uuid, pid) not in self._gone:
                self._next_gone.add((uuid, pid))
                return None
            return GpuProcess(pid, "", "", use.mib, use.util, compute=use.compute)
        key = self._key(pid, stat)
        self._next_known[pid] = (stat.started, key)
        name, user = self._name(pid), self._user(pid)
        return GpuProcess(pid, name, user, use.mib, use.util, *key, use.compute)

    def _key(self, pid: int, stat: Stat) -> Key:
        current, found = pid, stat
        for _ in range(MOST_ANCESTORS):
            for one in (current, found.session):
                if one in self._attempts:
                    return self._attempts[one]
            if found.parent in self._runners:
                return self._named(pid)
            above = self._stat(found.parent) if found.parent > 1 else None
            if above is None:
                break
            current, found = found.parent, above
        started, key = self._known.get(pid, (0, STRANGER))
        return key if started == stat.started and (key in self._live or key == OURS) else STRANGER

    def _named(self, pid: int) -> Key:
        """By the environment that it was started with."""
        entries = self._read(pid, "environ").split(b"\0")
        values = dict(entry.partition(b"=")[::2] for entry in entries)
        job, attempt = values.get(b"GPUD_JOB_ID", b""), values.get(b"GPUD_ATTEMPT", b"")
        if job.isdigit() and attempt.isdigit() and (int(job), int(attempt)) in self._live:
            return int(job), int(attempt)
        return OURS

    def _name(self, pid: int) -> str:
        name = os.fsdecode(self._read(pid, "comm").rstrip(b"\n"))
        if 0 < len(name) < COMM_LENGTH:
            return name
        try:
            program = os.path.basename(os.readlink(f"{self._proc}/{pid}/exe"))
        except OSError:
            return name  # another user's
        return program if program.startswith(name) else name

    def _user(self, pid: int) -> str:
        for line in self._read(pid, "status").splitlines():
            if line.startswith(b"Uid:"):
                return self._users.name_of(int(line.split()[1]))
        return ""

    def _stat(self, pid: int) -> Stat | None:
        # The second field is a name in parentheses, and may hold blanks and parentheses.
        fields = self._read(pid, "stat").rpartition(b")")[2].split()
        return Stat(int(fields[1]), int(fields[3]), int(fields[19])) if len(fields) > 19 else None

    def _read(self, pid: int, name: str) -> bytes:
        """What the kernel says of a process, b"" where it does not."""
        try:
            with open(f"{self._proc}/{pid}/{name}", "rb", 0) as file:
                return file.read()
        except OSError:
            return b""


class _Users:
    """Names of users. Asked for in threads: they may come over a network."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._asked: set[int] = set()

    def name_of(self, uid: int) -> str:
        """The number until the name is known."""
        if uid not in self._asked:
            self._asked.add(uid)
            thread = threading.Thread(target=self._ask, args=(uid,), daemon=True)
            thread.start()
            thread.join(NAME_WAIT_S)
        return self._names.get(uid) or str(uid)

    def _ask(self, uid: int) -> None:
        try:
            self._names[uid] = pwd.getpwuid(uid).pw_name
        except KeyError:
            self._names[uid] = str(uid)


def _exists(pid: int) -> bool:
    """Also of a process that /proc hides from us (hidepid)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def blindness(proc: str = "/proc") -> str:
    """Why the driver's process ids mean nothing here, as a clause; "" where they do."""
    initial = 0xEFFFFFFC  # include/linux/proc_ns.h: PROC_PID_INIT_INO
    try:
        with open(f"{proc}/version", "rb", 0) as file:
            if b"microsoft" in file.read().lower():
                return "this is WSL, where the driver lists no processes"
        if os.stat(f"{proc}/self/ns/pid").st_ino != initial:
            return "this is a container, and the driver counts processes as the host does"
    except OSError:
        return "/proc cannot be read"
    return ""

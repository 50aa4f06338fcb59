"""What an attempt consists of: its cgroup, or in session mode what descends from its shell.

Owned by main.py; start.py adds shells, ending.py reaps and asks. Knows which child of ours is
whose. Must not signal anything.
"""

import os
from collections.abc import Callable

from gpud.runner.attempt import Attempt
from gpud.runner.cgroup import group_members
from gpud.runner.ledger import Ledger
from gpud.runner.processes import Process, has_nonce, process, processes


class Payloads:
    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.shells: dict[int, Attempt] = {}
        self.orphans: dict[int, Attempt] = {}  # our children that are not shells
        self.unassigned: dict[int, str] = {}
        self.doubt = False  # there was an orphan whose attempt nobody knows
        try:
            path = f"/proc/self/task/{os.getpid()}/children"
            self.children_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # a kernel without CONFIG_PROC_CHILDREN
            self.children_fd = -1

    def of(self, a: Attempt) -> list[Process]:
        """All that lives of it, parents before their children."""
        if a.group and os.path.isdir(a.group):
            return group_members(a.group)
        self.claim_orphans()
        table = processes()
        found = {
            p.pid: p
            for p in table.values()
            if a.members.get(p.pid) == p.ticks
            or self.orphans.get(p.pid) is a
            or (a.adopted and has_nonce(p, a.nonce))
        }
        children: dict[int, list[Process]] = {}
        for p in table.values():
            children.setdefault(p.ppid, []).append(p)
        queue = list(found)
        for pid in queue:
            for p in children.get(pid, ()):
                if p.pid not in found:
                    found[p.pid] = p
                    queue.append(p.pid)
        a.members = {p.pid: p.ticks for p in found.values()}
        return list(found.values())

    def has_orphans(self, a: Attempt) -> bool:
        """As of the last claim. Once the shell is reaped: whether anything of it is left."""
        return a in self.orphans.values()

    def reaped(self, pid: int) -> Attempt | None:
        """A child was waited for: the attempt whose shell it was."""
        self.orphans.pop(pid, None)
        self.unassigned.pop(pid, None)
        return self.shells.pop(pid, None)

    def claim_orphans(self) -> None:
        new = self.children() - self.shells.keys() - self.orphans.keys() - self.unassigned.keys()
        for p in filter(None, map(process, new)):
            if owner := self.owner_of(p):
                self.orphans[p.pid] = owner
            else:
                self.unassigned[p.pid] = str(p)
                self.doubt = True

    def children(self) -> set[int]:
        if self.children_fd < 0:
            # Twice: a scan misses what is made behind it by a parent that then ends.
            scans = (*processes().values(), *processes().values())
            return {p.pid for p in scans if p.ppid == os.getpid()}
        data = b""
        while chunk := os.pread(self.children_fd, 65536, len(data)):
            data += chunk
        return set(map(int, data.split()))

    def owner_of(self, p: Process) -> Attempt | None:
        """Whose orphan it is (rule 3). What has died was reaped before, so that a child not known
        yet comes from an attempt that lives or whose shell has only now ended."""
        candidates = [a for a in self.ledger.live.values() if not a.adopted]
        tests: tuple[Callable[[Attempt], bool], ...] = (
            lambda a: a.members.get(p.pid) == p.ticks,
            lambda a: has_nonce(p, a.nonce),
            lambda a: a.pid == p.session,
            lambda a: len(candidates) == 1 and not self.doubt,
        )
        return next((a for test in tests for a in candidates if test(a)), None)

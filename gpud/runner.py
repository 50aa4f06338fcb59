"""The runner: the one process that is the parent of every running attempt, and outlives gpud.

    python -I -S gpud/runner.py STATE_DIR [--cgroup DIR] [--ready-fd N]

It starts shells, reaps them, ends what they leave behind, and tells one daemon at a time about it
(docs/runner-protocol.md). It decides nothing, reads no payload data, imports nothing of gpud, and
everything that it does import at start, since an upgrade may replace the files under it.

Theory of operation. One thread, one epoll. A *turn* is: wait, let each ready descriptor act, let
the deadlines that are due act, write the journal, then speak to the daemon, once. With nothing
ready and nothing due there is no wake-up at all.

 1. The journal comes first: `starting` is written before the process is made, an end before the
    daemon hears of it. What the journal or the memory knows is never started again. Nothing is
    fsynced: a power cut changes the boot id, and then everything that lived is `lost` anyway.
 2. An attempt ends once, when its shell has been reaped and its whole payload is gone. The end is
    repeated after every hello until the daemon forgets it.
 3. The payload is a cgroup, or (session mode) what descends from the shell. The runner is a
    subreaper, so each orphan becomes its child, always before the orphan's parent can be reaped.
    An orphan belongs to the attempt that it was last seen in, or whose nonce is in its environment,
    or whose session it is in, or to the only attempt there is. Any other is reported, not touched.
 4. A process is signalled through a pidfd after its start time has been compared.
 5. Nothing here waits for the daemon: the socket does not block, a slow reader is not read from.
 6. The payload inherits nothing of the runner: descriptors, signals, umask, OOM score, cgroup.
"""

import base64
import ctypes
import errno
import fcntl
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from typing import Any, NamedTuple

VERSION = 1
LINE_LIMIT = 8 << 20
BACKLOG_LIMIT = 1 << 20
JOURNAL_LIMIT = 1 << 20
RESERVE_BYTES = 256 << 10
IDLE_S = 5.0
LEAVE_GRACE_S = 10.0
KILL_EVERY_S = (0.02, 1.0)  # between two passes of KILL: at first, and at most
OOM_SCORE = -500
PR_SET_CHILD_SUBREAPER = 36
KTHREADD = 2  # the parent of the kernel's threads, which have no environment

# Run by the other user's own rights, with the log as stdout and a pipe as stderr. What is written
# to the pipe says why the job cannot start; the last line gives the pipe up.
AS_USER = b"""cd -- "$1" 2>/dev/null || { echo cwd >&2; exit 126; }
unset OLDPWD; shift
case $1 in */*) [ -f "$1" ] && [ -x "$1" ];; *) command -v -- "$1" >/dev/null;; esac ||
{ echo shell >&2; exit 126; }
exec "$@" 2>&1"""

SHORT_OF = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT}
REASONS = {
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "is not a directory",
    errno.EACCES: "may not be used by this user",
}

Message = dict[str, Any]
Key = tuple[int, int]
encode = json.JSONEncoder(separators=(",", ":")).encode


class Refused(Exception):
    """A line that ends its connection."""


class CannotStart(Exception):
    def __init__(self, kind: str, why: str) -> None:
        self.kind, self.why = kind, why


class Command(NamedTuple):
    """What to run, decoded from a `start`."""

    argv: list[bytes]
    env: list[bytes]
    cwd: bytes
    log: bytes
    user: Message | None  # None: that of the runner
    umask: int

    def environ(self, nonce: str) -> dict[bytes, bytes]:
        try:
            found = dict([entry.split(b"=", 1) for entry in self.env])
        except ValueError:
            raise CannotStart("command", "an entry of its environment is no NAME=VALUE") from None
        found[b"GPUD_NONCE"] = nonce.encode()
        return found

    def check(self) -> None:
        if b"\0" in b"".join((*self.argv, *self.env, self.cwd, self.log)):
            raise CannotStart("command", "a null byte stands in it, its environment or a path")
        if not self.argv:
            raise CannotStart("command", "it is empty")
        if not self.cwd.startswith(b"/"):
            raise CannotStart("cwd", f"the directory {shown(self.cwd)} is not absolute")


def command_of(m: Message) -> Command:
    user = m.get("user")
    if user is not None:
        ids = whole(user["uid"]), whole(user["gid"])
        groups = [whole(x) for x in user["groups"]]
        user = {"user": ids[0], "group": ids[1], "extra_groups": groups}
        if ids == (os.geteuid(), os.getegid()):
            user = None
    argv, env = raws(m["argv"]), raws(m["env"])
    umask = -1 if m.get("umask") is None else whole(m["umask"])
    return Command(argv, env, raw(m["cwd"]), raw(m["log"]), user, umask)


class Process(NamedTuple):
    pid: int
    ppid: int
    session: int
    ticks: int  # start time since boot: with the pid, the identity of a process
    name: str

    def __str__(self) -> str:
        return f"{self.name} ({self.pid})"


class Attempt:
    """One attempt, made from a `start` or from the `starting` line of a journal."""

    def __init__(self, m: Message) -> None:
        self.key: Key = (whole(m["job"]), whole(m["attempt"]))
        self.grace_s = float(m.get("grace_s", 10))
        self.linger_s = seconds(m.get("linger_s", 10))
        self.time_limit_s = seconds(m.get("time_limit_s"))
        self.nonce: str = m.get("nonce") or os.urandom(16).hex()
        self.boot_id: str = m.get("boot_id") or BOOT_ID
        self.group: str | None = m.get("cgroup")
        self.phase = "starting"
        self.pid: int | None = None
        self.adopted = False  # not our child: seen through pidfds, its exit cannot be known
        self.members: dict[int, int] = {}  # pid and ticks of the payload as last seen
        self.termed: dict[int, int] = {}
        self.was_swept = False
        self.exit: Message | None = None  # of the shell; None: it lives
        self.rusage: Message | None = None
        self.timed_out = self.stopped = False
        self.killed: list[str] = []
        self.clock_s = float(m.get("clock_s", 0))  # of its start
        self.started_at_ms: int | None = None
        self.limit_at = self.linger_at = self.kill_at = inf  # on the monotonic clock
        self.kill_pause_s = KILL_EVERY_S[0]
        self.gate: int | None = None  # the pipe of AS_USER, until the user's shell runs
        self.refusal = ""  # a key of what that pipe may say
        self.refusals: dict[str, str] = {}
        self.log = b""
        self.why_lost = "the runner died while it ran"
        self.fds: dict[int, int] = {}  # pidfds by pid; the cgroup's events under 0
        self.lines: list[bytes] = []  # its part of the journal
        self.started = self.end = b""  # what the daemon is told (again)

    def event(self, ev: str, **members: object) -> Message:
        return {"ev": ev, "job": self.key[0], "attempt": self.key[1], **members}

    def due_s(self) -> float:
        return min(self.limit_at, self.linger_at, self.kill_at)


def whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value


def seconds(value: float | None) -> float:
    return inf if value is None else float(value)


def raw(text: Any) -> bytes:
    """The bytes of a string on the wire."""
    if isinstance(text, str):
        return text.encode()
    return base64.b64decode(text["b64"], validate=True)


def raws(texts: list[Any]) -> list[bytes]:
    return [x.encode() if type(x) is str else raw(x) for x in texts]


def shown(path: bytes) -> str:
    return path.decode("utf-8", "replace")


def boot_ticks() -> int:
    """Now, as a start time in /proc/PID/stat."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) * TICKS_PER_S // 1_000_000_000


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def log(text: str) -> None:
    try:
        print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=sys.stderr, flush=True)
    except OSError:
        pass


def read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        data = b""
        while chunk := os.read(fd, 65536):
            data += chunk
        return data
    finally:
        os.close(fd)


def read_boot_id() -> str:
    given = os.environ.get("GPUD_BOOT_ID")  # for the tests
    return given or read("/proc/sys/kernel/random/boot_id").decode().strip()


def crash_at(point: str) -> None:
    """For the tests: die where dying is hardest to get right."""
    if point == CRASH_POINT:
        os.kill(os.getpid(), signal.SIGKILL)


BOOT_ID = read_boot_id()
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CRASH_POINT = os.environ.get("GPUD_RUNNER_CRASH")


# ---- processes


def process(pid: int) -> Process | None:
    """What /proc says; None when it is gone or only a zombie is left of it."""
    try:
        head, _, tail = read(f"/proc/{pid}/stat").rpartition(b")")
    except OSError:
        return None
    field = tail.split()
    if field[0] in b"ZX" and int(field[17]) <= 1:  # a dead leader may have living threads
        return None
    name = head.partition(b"(")[2].decode("utf-8", "replace")
    return Process(pid, int(field[1]), int(field[3]), int(field[19]), name)


def processes() -> dict[int, Process]:
    found = (process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {p.pid: p for p in found if p}


def has_nonce(p: Process, nonce: str) -> bool:
    """In the middle of an exec, environment and command line both read as empty for a moment."""
    if KTHREADD in (p.pid, p.ppid):
        return False
    try:
        for _ in range(20):
            environ = read(f"/proc/{p.pid}/environ")
            if environ or read(f"/proc/{p.pid}/cmdline"):
                return f"GPUD_NONCE={nonce}".encode() in environ.split(b"\0")
            time.sleep(0.001)
    except OSError:
        pass
    return False


def send_signal(p: Process, number: int) -> None:
    """The pidfd pins the process whose start time is then compared: a reused pid is never hit."""
    try:
        fd = os.pidfd_open(p.pid)
    except OSError:
        return
    try:
        now = process(p.pid)
        if now and now.ticks == p.ticks:
            signal.pidfd_send_signal(fd, number)
    except OSError as e:
        log(f"cannot signal {p}: {e.strerror}")
    finally:
        os.close(fd)


# ---- cgroups


def populated(events_fd: int) -> bool:
    return b"populated 1" in os.pread(events_fd, 4096, 0)


def group_members(group: str) -> list[Process]:
    found = []
    for where, _, _ in os.walk(group):
        try:
            found += [process(int(pid)) for pid in read(f"{where}/cgroup.procs").split()]
        except OSError:
            pass  # it went away in between
    return [p for p in found if p]


def kill_group(group: str) -> bool:
    """False on a kernel before 5.14: then its members are to be killed until it is empty."""
    try:
        fd = os.open(f"{group}/cgroup.kill", os.O_WRONLY)
    except OSError:
        return False
    try:
        return os.write(fd, b"1") == 1
    finally:
        os.close(fd)


def remove_group(group: str) -> None:
    try:
        try:
            os.rmdir(group)
        except OSError:  # the payload made groups of its own
            for where, _, _ in os.walk(group, topdown=False):
                os.rmdir(where)
    except FileNotFoundError:
        pass
    except OSError as e:
        log(f"cannot remove the cgroup {group}: {e.strerror}")


class Journal:
    """An append-only file and a reserve that is given up on a full disk to record ends."""

    def __init__(self, path: str) -> None:
        self.path, self.reserve = path, path.replace(".journal", ".reserve")
        self.fd = -1
        self.size = 0
        self.torn = False  # the last write may have left half a line

    def write(self, data: bytes, *, spend_reserve: bool = True) -> None:
        data = b"\n" + data if self.torn else data
        while data:
            try:
                written = os.write(self.fd, data)
            except OSError as e:
                full = e.errno in (errno.ENOSPC, errno.EDQUOT)
                if full and spend_reserve and os.path.exists(self.reserve):
                    os.unlink(self.reserve)
                    continue
                self.torn = True
                raise
            self.size += written
            data = data[written:]
        self.torn = False

    def replace(self, lines: Iterable[bytes]) -> None:
        """Compact: only `lines`, on the disk before the old file goes."""
        fd = os.open(self.path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.close(fd)
        fd = os.open(self.path + ".new", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        before, self.fd, self.size, self.torn = self.fd, fd, 0, False
        try:
            self.write(b"".join(lines))
            os.fsync(fd)
            os.rename(self.path + ".new", self.path)
        except OSError:
            os.close(fd)
            self.fd = before
            raise
        if before >= 0:
            os.close(before)
        reserve = os.open(self.reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(reserve, 0, RESERVE_BYTES)
        except OSError as e:
            log(f"cannot keep a reserve for a full disk: {e.strerror}")
        finally:
            os.close(reserve)


class Link:
    """One connection; only after a good hello is it the daemon's."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.input = bytearray()
        self.output = bytearray()


class Runner:
    def __init__(self, state_dir: str, cgroup: str | None) -> None:
        self.dir = os.path.abspath(state_dir)
        self.socket_path = f"{self.dir}/runner-{VERSION}.sock"
        self.journal = Journal(f"{self.dir}/runner-{VERSION}.journal")
        self.cgroup = cgroup
        self.attempts: dict[Key, Attempt] = {}  # until forgotten
        self.live: dict[Key, Attempt] = {}  # until ended
        self.forgotten: set[Key] = set()  # those the journal still names
        self.shells: dict[int, Attempt] = {}
        self.orphans: dict[int, Attempt] = {}  # our children that are not shells
        self.unassigned: dict[int, str] = {}
        self.doubt = False  # there was an orphan whose attempt nobody knows
        self.link: Link | None = None
        self.retiring = self.leaving = False
        self.due = inf
        self.idle_at = inf
        self.record = bytearray()  # lines for the journal at the end of this turn
        self.watch: dict[int, Callable[[], None]] = {}

    # ---- start and end of the runner

    def prepare(self) -> bool:
        """Take the lock, the journals and the socket; False when another runner has them."""
        self.lock = lock_file(f"{self.dir}/runner-{VERSION}.lock")
        if self.lock is None:
            return False
        os.chdir("/")
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "cannot become the reaper of orphans")
        self.lower_oom_score()
        self.enter_cgroup()
        self.null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self.poll = select.epoll()
        self.catch_signals()
        try:
            path = f"/proc/self/task/{os.getpid()}/children"
            self.children_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # a kernel without CONFIG_PROC_CHILDREN
            self.children_fd = -1
        self.take_journals()
        self.listen()
        return True

    def lower_oom_score(self) -> None:
        """The score is lowered where that is allowed, and given back around each spawn: two writes
        (1.3 us) with no race, where writing the child's afterwards costs 4.4 us and has one."""
        self.oom_fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        self.oom_before, self.oom_now = os.read(self.oom_fd, 16).strip(), b""
        for score in (OOM_SCORE, 0):
            if score < int(self.oom_before) and not self.oom_now:
                try:
                    os.pwrite(self.oom_fd, b"%d" % score, 0)
                    self.oom_now = b"%d" % score
                except OSError:
                    pass  # not allowed to: an unprivileged runner keeps what it has

    def enter_cgroup(self) -> None:
        """The runner lives in a leaf: a cgroup with members cannot hand controllers on."""
        if self.cgroup is None:
            return
        try:
            os.makedirs(f"{self.cgroup}/runner", exist_ok=True)
            self.leaf = os.open(f"{self.cgroup}/runner/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
            os.write(self.leaf, b"0")
        except OSError as e:
            log(f"cannot use the cgroup {self.cgroup}: {e.strerror}; payloads are sessions")
            self.cgroup = None

    def catch_signals(self) -> None:
        """Handlers, never SIG_IGN, which the payload would inherit."""
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self.wakeup, wakeup_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wakeup_w, warn_on_full_buffer=False)
        self.add(self.wakeup, self.on_signal)

    def listen(self) -> None:
        try:
            os.unlink(self.socket_path)
        except FileNotFoundError:
            pass
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        dir_fd = os.open(self.dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        umask = os.umask(0o177)
        try:  # through /proc, since a socket's address has at most 107 bytes
            self.listener.bind(f"/proc/self/fd/{dir_fd}/{os.path.basename(self.socket_path)}")
        finally:
            os.umask(umask)
            os.close(dir_fd)
        self.listener.listen(16)
        self.add(self.listener.fileno(), self.on_connect)

    def run(self) -> None:
        while not self.finished():
            patience = max(0.0, min(self.due, self.idle_at) - time.monotonic())
            for fd, _ in self.poll.poll(None if patience == inf else patience):
                if act := self.watch.get(fd):
                    self.guard(act)
            if time.monotonic() >= self.due:
                self.guard(self.act_on_deadlines)
            self.flush()
        os.unlink(self.socket_path)

    @staticmethod
    def guard(act: Callable[[], None]) -> None:
        """What cannot happen must not cost the running jobs their exit codes."""
        try:
            act()
        except Exception:
            sys.excepthook(*sys.exc_info())

    def finished(self) -> bool:
        if self.leaving:
            return not self.live
        idle = not self.attempts and self.link is None
        if not idle:
            self.idle_at = inf
        elif self.idle_at == inf:
            self.idle_at = time.monotonic() + IDLE_S
        return (self.retiring and not self.attempts) or time.monotonic() >= self.idle_at

    def flush(self) -> None:
        """The end of a turn: the journal before the daemon (rule 1)."""
        self.write_record()
        if self.journal.size > JOURNAL_LIMIT:
            self.compact()
        if self.link and self.link.output:
            self.send(self.link)

    def write_record(self) -> None:
        if self.record:
            try:
                self.journal.write(bytes(self.record))
                self.record.clear()
            except OSError as e:  # kept, and tried again next turn; the daemon hears of it anyway
                log(f"cannot write the journal: {e.strerror}")

    def compact(self) -> None:
        useful = [line for a in self.attempts.values() for line in a.lines]
        if 2 * sum(map(len, useful)) > self.journal.size > 0:
            return
        try:
            self.journal.replace(useful)
            self.forgotten.clear()
        except OSError as e:
            log(f"cannot compact the journal: {e.strerror}")

    # ---- descriptors and signals

    def add(self, fd: int, act: Callable[[], None], events: int = select.EPOLLIN) -> None:
        self.watch[fd] = act
        self.poll.register(fd, events)

    def drop(self, fd: int) -> None:
        del self.watch[fd]
        self.poll.unregister(fd)
        os.close(fd)

    def on_signal(self) -> None:
        numbers = os.read(self.wakeup, 65536)
        if signal.SIGCHLD in numbers:
            self.reap()
        if signal.SIGTERM in numbers:
            self.leaving = True
            for a in list(self.live.values()):
                a.stopped = True
                self.terminate(a, LEAVE_GRACE_S)

    # ---- the daemon

    def on_connect(self) -> None:
        try:
            sock, _ = self.listener.accept()
        except OSError as e:
            log(f"cannot accept a connection: {e.strerror}")
            return
        sock.setblocking(False)
        link = Link(sock)
        self.add(sock.fileno(), lambda: self.on_ready(link))
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.geteuid():
            self.refuse(link, f"user {uid} is not the user of this runner")

    def close(self, link: Link) -> None:
        if link.sock.fileno() >= 0:
            self.drop(link.sock.fileno())
            link.sock.detach()
        if self.link is link:
            self.link = None

    def refuse(self, link: Link, why: str) -> None:
        link.output += encode({"ev": "refused", "why": why}).encode() + b"\n"
        self.send(link)
        self.close(link)

    def on_ready(self, link: Link) -> None:
        """Readable, or writable again: then nothing is read until what we owe is written."""
        if link.output:
            self.send(link)
        if len(link.output) > BACKLOG_LIMIT:
            return
        try:
            data = link.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        link.input += data
        *lines, rest = bytes(link.input).split(b"\n") if b"\n" in data else (link.input,)
        link.input = bytearray(rest)
        try:
            if max(map(len, (*lines, rest))) > LINE_LIMIT:
                raise ValueError(f"it is longer than {LINE_LIMIT} bytes")
            for line in lines:
                self.on_line(link, line)
        except Refused as e:
            self.refuse(link, str(e))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
            self.refuse(link, f"the line was not understood: {type(e).__name__}: {e}")
        if not data:
            self.close(link)

    def send(self, link: Link) -> None:
        try:
            sent = link.sock.send(link.output)
            del link.output[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.close(link)
            return
        events = select.EPOLLIN if len(link.output) <= BACKLOG_LIMIT else 0
        self.poll.modify(link.sock.fileno(), events | (select.EPOLLOUT if link.output else 0))

    def on_line(self, link: Link, line: bytes) -> None:
        m = json.loads(line)
        if m["op"] == "hello":
            self.hello(link, m)
        elif link is self.link:
            self.obey(m)
        else:
            raise Refused("this is not the daemon's connection: hello comes first, the last counts")

    def hello(self, link: Link, m: Message) -> None:
        if m["runner"] != VERSION:
            raise Refused(f"this runner speaks version {VERSION}")
        if not m["token"] or m["token"] != held_token(f"{self.dir}/lock"):
            raise Refused("the token is not that of the daemon that holds the lock")
        if self.link and self.link is not link:
            self.close(self.link)
        self.link = link
        payload = "cgroup" if self.cgroup else "session"
        self.say({"ev": "hello", "runner": VERSION, "pid": os.getpid(), "boot_id": BOOT_ID,
                  "payload": payload, "attempts": self.listing()})  # fmt: skip
        for a in self.attempts.values():
            self.say_line(a.end)

    def listing(self) -> list[Message]:
        return [
            {"job": a.key[0], "attempt": a.key[1], "phase": a.phase, "pid": a.pid}
            for a in self.attempts.values()
        ]

    def say(self, event: Message) -> None:
        if self.link:
            self.say_line(encode(event).encode() + b"\n")

    def say_line(self, line: bytes) -> None:
        if self.link:
            self.link.output += line

    def obey(self, m: Message) -> None:
        match m["op"]:
            case "start":
                self.start(Attempt(m), m)
            case "list":
                self.say({"ev": "attempts", "attempts": self.listing()})
            case "forget":
                self.forget([(whole(job), whole(attempt)) for job, attempt in m["attempts"]])
            case "retire":
                self.retiring = True
            case "stop" | "signal" | "limit" as op:
                a = self.attempts.get((whole(m["job"]), whole(m["attempt"])))
                if a is None:
                    self.say({"ev": "unknown", "job": m["job"], "attempt": m["attempt"], "op": op})
                elif a.end:
                    self.say_line(a.end)
                else:
                    self.change(a, m)
            case op:
                raise ValueError(f"there is no op {op!r}")

    def change(self, a: Attempt, m: Message) -> None:
        match m["op"]:
            case "stop":
                grace_s = float(m.get("grace_s", a.grace_s))
                a.stopped = True
                self.note(a, a.event("stopping", grace_s=grace_s))
                self.terminate(a, grace_s)
            case "signal":
                number = signal.Signals["SIG" + m["signal"]]
                for p in self.payload(a):
                    send_signal(p, number)
            case "limit":
                a.time_limit_s = seconds(m["time_limit_s"])
                self.note(a, a.event("limit", time_limit_s=m["time_limit_s"]))
                if a.exit is None or a.linger_s == inf:
                    self.arm(a)

    def forget(self, keys: list[Key]) -> None:
        done = [key for key in keys if key in self.attempts and self.attempts[key].end]
        if done:
            for key in done:
                del self.attempts[key]
            self.forgotten.update(done)
            self.record += encode({"ev": "forgotten", "attempts": done}).encode() + b"\n"

    # ---- starting

    def note(self, a: Attempt, event: Message) -> bytes:
        """A line of the journal, written at the end of the turn."""
        line = encode(event).encode() + b"\n"
        a.lines.append(line)
        self.record += line
        return line

    def start(self, a: Attempt, m: Message) -> None:
        if known := self.attempts.get(a.key):
            self.say_line(known.end or known.started)
            return
        if a.key in self.forgotten or self.retiring or self.leaving:
            self.say(a.event("unknown", op="start"))
            return
        command = command_of(m)
        self.attempts[a.key] = self.live[a.key] = a
        try:
            command.check()
            self.prepare_attempt(a, m)
            output = open_log(command)
            try:
                self.spawn(a, command, output)
            except CannotStart:
                remove_empty(command.log)
                raise
            finally:
                os.close(output)
        except CannotStart as e:
            self.end_not_started(a, e.kind, e.why)
        except OSError as e:
            self.end_not_started(a, "resources", f"the machine is short of something: {e}")

    def prepare_attempt(self, a: Attempt, m: Message) -> None:
        """The journal and the cgroup. The reserve is not for starts."""
        if self.cgroup:
            a.group = f"{self.cgroup}/{a.key[0]}.{a.key[1]}-{a.nonce[:8]}"
        kept: Message = {k: m[k] for k in ("grace_s", "linger_s", "time_limit_s") if k in m}
        kept |= {"nonce": a.nonce, "boot_id": BOOT_ID, "cgroup": a.group}
        line = a.event("starting", clock_s=time.monotonic(), **kept)
        a.lines = [encode(line).encode() + b"\n"]
        try:
            self.journal.write(a.lines[0], spend_reserve=False)
        except OSError as e:
            a.lines.clear()
            raise CannotStart("resources", f"the journal cannot be written: {e.strerror}") from e
        crash_at("after-starting")
        if a.group:
            os.mkdir(a.group)

    def spawn(self, a: Attempt, c: Command, output: int) -> None:
        argv, stderr, gate, how = c.argv, output, -1, {}
        if c.user:
            gate, stderr = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            argv, how = [b"/bin/sh", b"-c", AS_USER, b"sh", c.cwd, *c.argv], c.user
        self.disguise(a)
        before = boot_ticks()
        try:
            child = subprocess.Popen(
                argv, cwd=None if c.user else c.cwd, env=c.environ(a.nonce), umask=c.umask,
                stdin=self.null, stdout=output, stderr=stderr, start_new_session=True, **how,
            )  # fmt: skip
        except (OSError, ValueError, OverflowError, subprocess.SubprocessError) as e:
            if c.user:
                os.close(gate)
            raise why_not(e, c) from e
        finally:
            self.undisguise(a)
            if c.user:
                os.close(stderr)
        child.returncode = 0  # it is ours to reap: Popen must not
        a.pid = child.pid
        crash_at("before-started")
        self.shells[child.pid] = a
        self.on_spawned(a, before)
        if c.user:
            a.gate, a.log = gate, c.log
            a.refusals = {
                "cwd": f"the directory {shown(c.cwd)} does not exist or this user may not enter it",
                "shell": f"{shown(c.argv[0])} does not exist or this user may not execute it",
            }
            self.add(gate, lambda: self.on_gate(a))
        else:
            a.phase = "running"
            self.say_line(a.started)

    def disguise(self, a: Attempt) -> None:
        """Be what the child is to inherit. To enter the cgroup and leave it again costs 0.15 ms a
        start; a shell prefix that enters it costs 0.65 ms; a child moved later may have forked."""
        if a.group:
            fd = os.open(f"{a.group}/cgroup.procs", os.O_WRONLY)
            os.write(fd, b"0")
            os.close(fd)
        if self.oom_now:
            os.pwrite(self.oom_fd, self.oom_before, 0)

    def undisguise(self, a: Attempt) -> None:
        if self.oom_now:
            os.pwrite(self.oom_fd, self.oom_now, 0)
        if a.group:
            os.write(self.leaf, b"0")

    def on_spawned(self, a: Attempt, ticks: int) -> None:
        """Written at once: until then only its nonce tells the process. Its start time is
        known without /proc (0.1 ms on a busy machine) if the spawn took place within one tick."""
        assert a.pid is not None
        if ticks != boot_ticks():
            p = process(a.pid)
            ticks = p.ticks if p else 0  # it has ended already
        a.members = {a.pid: ticks}
        a.clock_s, a.started_at_ms = time.monotonic(), wall_ms()
        a.started = self.note(a, a.event(
            "started", pid=a.pid, at_ms=a.started_at_ms, ticks=ticks, clock_s=a.clock_s,
        ))  # fmt: skip
        self.write_record()
        self.arm(a)

    def on_gate(self, a: Attempt) -> None:
        """The pipe of another user's job: a word says why not, its end that the shell runs."""
        assert a.gate is not None
        try:
            word = os.read(a.gate, 4096).decode().strip()
        except BlockingIOError:
            return
        a.refusal = a.refusal or word
        if word:
            return
        self.drop(a.gate)
        a.gate = None
        if not a.refusal:
            a.phase = "running" if a.phase == "starting" else a.phase
            self.say_line(a.started)

    # ---- the payload

    def reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            self.orphans.pop(pid, None)
            self.unassigned.pop(pid, None)
            if a := self.shells.pop(pid, None):
                code = os.waitstatus_to_exitcode(status)
                a.exit = {"code": code} if code >= 0 else {"signal": -code}
                a.rusage = {
                    "user_s": usage.ru_utime, "system_s": usage.ru_stime,
                    "max_rss_kib": usage.ru_maxrss, "minor_faults": usage.ru_minflt,
                    "major_faults": usage.ru_majflt, "in_blocks": usage.ru_inblock,
                    "out_blocks": usage.ru_oublock,
                }  # fmt: skip
                while a.gate is not None:
                    self.on_gate(a)
        over = [a for a in self.live.values() if a.exit and not a.adopted]
        if any(not a.group for a in over):
            self.claim_orphans()
        for a in over:
            self.settle(a)

    def children(self) -> set[int]:
        if self.children_fd < 0:
            # Twice: a scan misses what is made behind it by a parent that then ends.
            scans = (*processes().values(), *processes().values())
            return {p.pid for p in scans if p.ppid == os.getpid()}
        data = b""
        while chunk := os.pread(self.children_fd, 65536, len(data)):
            data += chunk
        return set(map(int, data.split()))

    def claim_orphans(self) -> None:
        new = self.children() - self.shells.keys() - self.orphans.keys() - self.unassigned.keys()
        for p in filter(None, map(process, new)):
            if owner := self.owner_of(p):
                self.orphans[p.pid] = owner
            else:
                self.unassigned[p.pid] = str(p)
                self.doubt = True

    def owner_of(self, p: Process) -> Attempt | None:
        """Whose orphan it is (rule 3). What has died was reaped before, so that a child not known
        yet comes from an attempt that lives or whose shell has only now ended."""
        candidates = [a for a in self.live.values() if not a.adopted]
        tests: tuple[Callable[[Attempt], bool], ...] = (
            lambda a: a.members.get(p.pid) == p.ticks,
            lambda a: has_nonce(p, a.nonce),
            lambda a: a.pid == p.session,
            lambda a: len(candidates) == 1 and not self.doubt,
        )
        return next((a for test in tests for a in candidates if test(a)), None)

    def payload(self, a: Attempt) -> list[Process]:
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

    def settle(self, a: Attempt) -> None:
        """The shell has ended: end the attempt if all of its payload has, else let it linger."""
        if self.is_gone(a):
            self.end(a)
        elif a.phase == "stopping" and not a.was_swept:
            a.was_swept = True
            self.send_term(a)  # to what the shell made while it was being signalled
        elif a.phase == "running":
            left = self.payload(a)
            if left and not a.adopted:
                self.note(a, a.event("exited", exit=a.exit, rusage=a.rusage))
            a.phase = "lingering"
            a.linger_at = time.monotonic() + a.linger_s
            self.arm(a)
            if left:
                self.say(a.event("lingering", at_ms=wall_ms(), processes=list(map(str, left))))

    def is_gone(self, a: Attempt) -> bool:
        if a.adopted:
            return not self.watch_members(a)
        if not a.group:
            return a not in self.orphans.values()
        if 0 not in a.fds:
            a.fds[0] = os.open(f"{a.group}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
            if populated(a.fds[0]):  # read before it is polled: no change is missed
                self.add(a.fds[0], lambda: self.settle(a), select.EPOLLPRI)
                return False
            os.close(a.fds.pop(0))
            return True
        return not populated(a.fds[0])

    def watch_members(self, a: Attempt) -> list[Process]:
        """Hold a pidfd on everything that an adopted attempt is seen to have."""
        found = self.payload(a)
        for p in found:
            if p.pid not in a.fds:
                try:
                    fd = a.fds[p.pid] = os.pidfd_open(p.pid)
                except OSError:
                    continue
                self.add(fd, partial(self.on_member_gone, a, p.pid))
        return found

    def on_member_gone(self, a: Attempt, pid: int) -> None:
        self.drop(a.fds.pop(pid))
        self.settle_adopted(a)

    def settle_adopted(self, a: Attempt) -> None:
        found = self.watch_members(a)
        if a.pid is None and found:
            a.pid = min(found, key=lambda p: p.ticks).pid
        if a.exit is None and a.pid not in {p.pid for p in found}:
            a.exit = {"lost": a.why_lost}
        if a.exit:
            self.settle(a)

    # ---- deadlines

    def arm(self, a: Attempt) -> None:
        if a.limit_at != inf or a.time_limit_s != inf:
            waits = a.exit is None or a.linger_s == inf
            a.limit_at = a.clock_s + a.time_limit_s if waits and not a.timed_out else inf
        self.due = min(self.due, a.due_s())

    def act_on_deadlines(self) -> None:
        now = time.monotonic()
        for a in [a for a in self.live.values() if a.due_s() <= now]:
            if a.limit_at <= now:
                a.limit_at, a.timed_out = inf, True
                self.terminate(a, a.grace_s)
            if a.linger_at <= now:
                a.linger_at = inf
                a.killed = [str(p) for p in self.payload(a)]
                self.terminate(a, a.grace_s)
            if a.kill_at <= now:
                self.kill(a)
        self.due = min((a.due_s() for a in self.live.values()), default=inf)

    def terminate(self, a: Attempt, grace_s: float) -> None:
        first = a.kill_at == inf
        a.kill_at = min(a.kill_at, time.monotonic() + grace_s)
        a.phase, a.linger_at = "stopping", inf
        self.arm(a)
        if first:
            self.send_term(a)

    def send_term(self, a: Attempt) -> None:
        """TERM to each process once; CONT, or TERM would wait for ever in what is stopped."""
        for p in self.payload(a):
            if a.termed.get(p.pid) != p.ticks:
                a.termed[p.pid] = p.ticks
                send_signal(p, signal.SIGTERM)
                send_signal(p, signal.SIGCONT)

    def kill(self, a: Attempt) -> None:
        """One pass; what forks faster than it is met by the next."""
        left = self.payload(a)
        a.killed += [str(p) for p in left if p.pid != a.pid and str(p) not in a.killed]
        if not (a.group and kill_group(a.group)):
            for p in left:
                send_signal(p, signal.SIGKILL)
        a.kill_at = time.monotonic() + a.kill_pause_s
        a.kill_pause_s = min(2 * a.kill_pause_s, KILL_EVERY_S[1])
        if not left and a.adopted:
            self.settle_adopted(a)

    # ---- ends

    def end(self, a: Attempt) -> None:
        if a.refusal:
            remove_empty(a.log)
            self.end_not_started(a, a.refusal, a.refusals.get(a.refusal, a.refusal))
            return
        self.finish(a, "ended", a.event(
            "ended", at_ms=wall_ms(), started_at_ms=a.started_at_ms, exit=a.exit,
            timed_out=a.timed_out, stopped=a.stopped, rusage=a.rusage, killed=a.killed,
            unassigned=list(self.unassigned.values()),
        ))  # fmt: skip

    def end_not_started(self, a: Attempt, kind: str, why: str) -> None:
        event = a.event("not-started", at_ms=wall_ms(), kind=kind, why=why)
        self.finish(a, "not-started", event)

    def finish(self, a: Attempt, phase: str, event: Message) -> None:
        a.phase = phase
        a.limit_at = a.linger_at = a.kill_at = inf
        for fd in a.fds.values():
            self.drop(fd)
        a.fds.clear()
        if a.group:
            remove_group(a.group)
        a.members.clear()
        a.end = self.note(a, event)
        del self.live[a.key]
        self.say_line(a.end)

    # ---- after the death of another runner

    def take_journals(self) -> None:
        """Read those whose runners are dead, and go on where they stopped."""
        taken = []
        for name in sorted(os.listdir(self.dir)):
            if found := re.fullmatch(r"runner-(\d+)\.journal", name):
                path = f"{self.dir}/{name}"
                lock = None
                if int(found[1]) != VERSION:
                    lock = lock_file(f"{self.dir}/runner-{found[1]}.lock")
                    if lock is None:
                        continue
                    taken.append(path)
                *lines, _ = read(path).split(b"\n")
                for number, line in enumerate(lines, 1):
                    try:
                        self.recall(line)
                    except (ValueError, TypeError, KeyError, AttributeError) as e:
                        log(f"cannot use line {number} of {path}: {e!r}")
        self.journal.replace(line for a in self.attempts.values() for line in a.lines)
        self.forgotten.clear()
        for path in taken:
            os.unlink(path)
        for a in list(self.live.values()):
            self.guard(partial(self.adopt, a))
        self.flush()

    def recall(self, line: bytes) -> None:
        m = json.loads(line)
        if m["ev"] == "forgotten":
            for job, attempt in m["attempts"]:
                self.attempts.pop((job, attempt), None)
            return
        if m["ev"] == "starting":
            a = Attempt(m)
            self.attempts[a.key] = self.live[a.key] = a
        else:
            a = self.attempts[whole(m["job"]), whole(m["attempt"])]
        a.lines.append(line + b"\n")
        match m["ev"]:
            case "started":
                a.started = line + b"\n"
                a.pid, a.members = m["pid"], {m["pid"]: m["ticks"]}
                a.clock_s, a.started_at_ms = m["clock_s"], m["at_ms"]
            case "limit":
                a.time_limit_s = seconds(m["time_limit_s"])
            case "stopping":
                a.stopped, a.grace_s = True, m["grace_s"]
            case "exited":
                a.exit, a.rusage = m["exit"], m["rusage"]
            case "ended" | "not-started":
                a.phase, a.end = m["ev"], line + b"\n"
                del self.live[a.key]

    def adopt(self, a: Attempt) -> None:
        a.adopted = True
        if a.boot_id != BOOT_ID:
            a.exit, a.group = a.exit or {"lost": "the machine was restarted"}, None
            self.end(a)
            return
        a.phase = "running"
        if a.pid is None:
            a.why_lost = "the runner died while starting it"
        self.settle_adopted(a)
        if not a.end:
            self.arm(a)
            if a.stopped:
                self.terminate(a, a.grace_s)


# ---- helpers of the runner


def lock_file(path: str) -> int | None:
    """An exclusive lock for as long as this process lives; None when another has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def held_token(path: str) -> str | None:
    """The daemon's token, if a living daemon holds the lock that it is written in."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return os.read(fd, 4096).decode().strip()
    finally:
        os.close(fd)


def open_log(c: Command) -> int:
    """Never through a link that a user laid there, never waiting at a FIFO."""
    flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
    flags |= os.O_NOCTTY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            fd = os.open(c.log, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(c.log), 0o700, exist_ok=True)
            fd = os.open(c.log, flags, 0o600)
        os.set_blocking(fd, True)
        if c.user:
            os.fchown(fd, c.user["user"], c.user["group"])
        return fd
    except OSError as e:
        why = REASONS.get(e.errno or 0, e.strerror)
        raise CannotStart("log", f"the log {shown(c.log)} cannot be opened: {why}") from e


def remove_empty(path: bytes) -> None:
    try:
        if os.stat(path).st_size == 0:
            os.unlink(path)
    except OSError:
        pass


def why_not(e: Exception, c: Command) -> CannotStart:
    if not isinstance(e, OSError):
        return CannotStart("command", f"it cannot be passed to the kernel: {e}")
    why = REASONS.get(e.errno or 0, e.strerror)
    if e.errno in SHORT_OF:
        return CannotStart("resources", f"the machine is short of something: {why}")
    if e.errno == errno.E2BIG:
        return CannotStart("command", "it or its environment is too long for the kernel")
    if c.user and e.filename is None:
        return CannotStart("user", f"the runner cannot become user {c.user['user']}: {why}")
    if e.filename == c.cwd:
        return CannotStart("cwd", f"the directory {shown(c.cwd)} {why}")
    return CannotStart("shell", f"{shown(c.argv[0])} {why}")


def main(arguments: list[str]) -> int:
    state_dir, options = arguments[0], dict(zip(arguments[1::2], arguments[2::2], strict=True))
    ready = int(options.get("--ready-fd", -1))
    runner = Runner(state_dir, options.get("--cgroup"))
    try:
        is_ours = runner.prepare()
        if ready >= 0:
            os.write(ready, b"ready\n" if is_ours else b"held\n")
            os.close(ready)
        if is_ours:
            runner.run()
    except OSError as e:
        log(f"cannot run in {state_dir}: {e}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A client of the runner, and runners that leave no process behind.

`box` is a state directory with a daemon's lock; `box.launch()` starts a real runner in it and
`box.connect()` says hello as the daemon. Whatever a test starts in it is ended at its end.
"""

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpud.runner import ENTRY, VERSION

RUNNER = Path(ENTRY)
TIMEOUT_S = 20.0

Event = dict[str, Any]


def wait_until(true: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
    """For what has no descriptor to wait on."""
    end = time.monotonic() + timeout_s
    while not (value := true()):
        assert time.monotonic() < end, f"not within {timeout_s} s: {what}"
        time.sleep(0.005)
    return value


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in (b"Z", b"X")


def wait_gone(pid: int, timeout_s: float = TIMEOUT_S) -> None:
    wait_until(lambda: not is_alive(pid), f"process {pid} gone", timeout_s)


def environ(process: Path) -> bytes:
    """Of a /proc entry; in the middle of an exec it reads as empty for a moment."""
    for _ in range(20):
        data = (process / "environ").read_bytes()
        if data or (process / "cmdline").read_bytes() or not is_alive(int(process.name)):
            break
        time.sleep(0.001)
    return data


def wire(text: str | bytes) -> Any:
    """As the protocol has it: a string, or base64 for what is not UTF-8."""
    raw = text.encode() if isinstance(text, str) else text
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"b64": b64encode(raw).decode()}


class Client:
    """The daemon's end of one connection."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        folder = os.open(path.parent, os.O_PATH)
        try:
            self.sock.connect(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
        self.buffer = b""
        self.seen: list[Event] = []
        self.hello: Event = {}

    def send(self, **message: Any) -> None:
        self.send_raw(json.dumps(message).encode() + b"\n")

    def send_raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read(self, timeout_s: float = TIMEOUT_S) -> Event | None:
        """The next event; None when the runner has closed the connection."""
        self.sock.settimeout(timeout_s)
        while b"\n" not in self.buffer:
            try:
                chunk = self.sock.recv(1 << 20)
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                return None
            self.buffer += chunk
        line, _, self.buffer = self.buffer.partition(b"\n")
        event: Event = json.loads(line)
        self.seen.append(event)
        return event

    def until(self, ev: str, job: int | None = None, attempt: int | None = None) -> Event:
        """The next event of that kind (and job), skipping others."""
        end = time.monotonic() + TIMEOUT_S
        while True:
            event = self.read(max(0.01, end - time.monotonic()))
            assert event is not None, f"the runner hung up before {ev!r}; seen: {self.seen[-5:]}"
            if (
                event["ev"] == ev
                and job in (None, event.get("job"))
                and attempt in (None, event.get("attempt"))
            ):
                return event

    def nothing_more(self) -> None:
        """Assert that the runner has nothing to say: what it answers to a list comes next."""
        self.send(op="list")
        event = self.read()
        assert event is not None
        assert event["ev"] == "attempts", event

    def list(self) -> dict[tuple[int, int], Event]:
        self.send(op="list")
        return {(a["job"], a["attempt"]): a for a in self.until("attempts")["attempts"]}

    def close(self) -> None:
        self.sock.close()


class Box:
    """One state directory, its daemon's lock, and its runners."""

    def __init__(self, path: Path, cgroup: Path | None = None) -> None:
        self.path, self.cgroup = path, cgroup
        path.mkdir(parents=True, exist_ok=True)
        self.mark = uuid.uuid4().hex  # in the environment of everything started here
        self.token = uuid.uuid4().hex
        self.runners: list[subprocess.Popen[bytes]] = []
        self.clients: list[Client] = []
        self.lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        os.write(self.lock, self.token.encode() + b"\n")
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    @property
    def socket(self) -> Path:
        return self.path / f"runner-{VERSION}.sock"

    @property
    def journal(self) -> Path:
        return self.path / f"runner-{VERSION}.journal"

    def launch(self, *, prefix: tuple[str, ...] = (), wait: bool = True, **env: str) -> str:
        """Start a runner; what it said on its ready descriptor."""
        ready, ready_w = os.pipe()
        command = [*prefix, sys.executable, "-I", "-S", str(RUNNER), str(self.path)]
        command += ["--ready-fd", str(ready_w)]
        if self.cgroup:
            command += ["--cgroup", str(self.cgroup)]
        with open(self.path / "runner.log", "ab") as log:
            runner = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[ready_w],
                start_new_session=True,
                env={**os.environ, **env},
            )
        os.close(ready_w)
        self.runners.append(runner)
        try:
            if not wait:
                return ""
            assert select.select([ready], [], [], TIMEOUT_S)[0], "no word from the runner"
            return os.read(ready, 100).decode().strip()
        finally:
            os.close(ready)

    @property
    def runner(self) -> subprocess.Popen[bytes]:
        return self.runners[-1]

    def connect(self) -> Client:
        client = self.dial()
        client.send(op="hello", runner=VERSION, token=self.token)
        client.hello = client.until("hello")
        return client

    def dial(self) -> Client:
        client = Client(self.socket)
        self.clients.append(client)
        return client

    def up(self, **env: str) -> Client:
        assert self.launch(**env) == "ready", self.said()
        return self.connect()

    def said(self) -> str:
        return (self.path / "runner.log").read_text()

    def kill_runner(self) -> None:
        self.runner.kill()
        self.runner.wait(TIMEOUT_S)

    def log(self, job: int = 1, attempt: int = 1) -> Path:
        return self.path / "logs" / f"{job}.{attempt}.log"

    def job(self, script: str | bytes, job: int = 1, attempt: int = 1, **more: Any) -> Event:
        env = more.pop("env", [])
        message: Event = {
            "op": "start",
            "job": job,
            "attempt": attempt,
            "argv": ["/bin/sh", "-c", wire(script)],
            "cwd": str(self.path),
            "env": [f"PATH={os.environ['PATH']}", f"GPUD_TEST={self.mark}", *env],
            "log": str(self.log(job, attempt)),
        }
        return message | more

    def start(self, client: Client, script: str | bytes, **more: Any) -> Event:
        """Start a job and wait until its shell runs."""
        message = self.job(script, **more)
        client.send(**message)
        return client.until("started", message["job"], message["attempt"])

    def release(self, name: str) -> None:
        """Let go a job that reads a line from this fifo."""
        with open(self.path / name, "w") as f:
            f.write("\n")

    def records(self) -> list[Event]:
        return [json.loads(line) for line in self.journal.read_bytes().splitlines() if line]

    def pid_from(self, name: str) -> int:
        """The pid that a job has written to a file in the box."""
        path = self.path / name
        text = wait_until(lambda: path.exists() and path.read_text().strip(), f"{name} written")
        return int(text)

    def descendants(self) -> set[int]:
        """Everything started here: by the mark in its environment, or its place in the cgroup."""
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if f"GPUD_TEST={self.mark}".encode() in environ(entry):
                        found.add(int(entry.name))
        return {pid for pid in found if is_alive(pid)}

    def tear_down(self) -> None:
        for client in self.clients:
            client.close()
        for runner in self.runners:
            if runner.poll() is None:
                runner.kill()
            runner.wait(TIMEOUT_S)
        while left := self.descendants():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        os.close(self.lock)
        if self.cgroup:
            for where, _, _ in os.walk(self.cgroup, topdown=False):
                with contextlib.suppress(FileNotFoundError):
                    for pid in map(int, Path(where, "cgroup.procs").read_text().split()):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    wait_until(lambda w=where: remove_group(w), f"{where} removed")


def remove_group(path: str) -> bool:
    try:
        os.rmdir(path)
    except OSError:
        return False
    return True


def cgroup_root() -> Path | None:
    """A cgroup v2 directory that groups can be made in."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            probe = Path(where) / f"gpud-probe-{uuid.uuid4().hex}"
            with contextlib.suppress(OSError):
                probe.mkdir()
                (probe / "cgroup.procs").write_bytes(b"")
                probe.rmdir()
                return Path(where)
            with contextlib.suppress(OSError):
                probe.rmdir()
    return None


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that other users may enter, as pytest's own may not be."""
    path = Path(tempfile.mkdtemp(prefix="gpud-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path / "state")
    yield box
    box.tear_down()


@contextlib.contextmanager
def own_group() -> Iterator[Path]:
    root = cgroup_root()
    if root is None:
        pytest.skip("no writable cgroup v2 here")
    group = root / f"gpud-test-{uuid.uuid4().hex[:12]}"
    group.mkdir()
    yield group


@pytest.fixture
def group_box(tmp_path: Path) -> Iterator[Box]:
    with own_group() as group:
        box = Box(tmp_path / "state", group)
        yield box
        box.tear_down()


@pytest.fixture(params=["session", "cgroup"])
def either_box(request: pytest.FixtureRequest) -> Box:
    """The same test with both ways to hold a payload together."""
    box: Box = request.getfixturevalue("box" if request.param == "session" else "group_box")
    return box

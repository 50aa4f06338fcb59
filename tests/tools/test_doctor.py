"""`gpud doctor`: what it finds on machines that are well and on some that are not."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpud import __version__
from gpud.config.schema import Config, JobDefaults, Pool, QueueFileSource
from gpud.errors import GpudError
from gpud.runner import VERSION
from gpud.tools import doctor, probe_daemon, probe_gpus, probe_machine
from gpud.tools.findings import Finding, Probe, Situation, run


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def situation(state: Path) -> Situation:
    config = Config(state_dir=str(state), socket=str(state / "gpud.sock"))
    return Situation(config, None, ())


def with_config(situation: Situation, **changes: object) -> Situation:
    config = {name: getattr(situation.config, name) for name in Config.__struct_fields__}
    return situation._replace(config=Config(**{**config, **changes}))  # type: ignore[arg-type]


def ask(probe: Probe, situation: Situation) -> Finding:
    """The one finding of a probe."""
    (finding,) = probe(situation)
    assert finding.level != "problem" or finding.do
    return finding


class FakeDaemon:
    """Says one line to who connects, and another to each line it hears."""

    def __init__(self, path: Path, greeting: bytes, reply: bytes = b"") -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.bind(str(path))
        self.sock.listen(5)
        self.greeting, self.reply = greeting, reply
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            while True:
                client, _ = self.sock.accept()
                with client:
                    client.sendall(self.greeting)
                    if client.recv(4096):
                        client.sendall(self.reply)
        except OSError:
            pass


@pytest.fixture
def listen(state: Path) -> Iterator[object]:
    daemons = []

    def start(greeting: dict[str, object] | bytes, reply: bytes = b"") -> FakeDaemon:
        line = greeting if isinstance(greeting, bytes) else json.dumps(greeting).encode() + b"\n"
        daemons.append(FakeDaemon(state / "gpud.sock", line, reply))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.sock.shutdown(socket.SHUT_RDWR)
        daemon.sock.close()


GREETING = {"gpud": __version__, "protocol": 1, "features": [], "host": "x"}
PONG = b'{"type":"pong","id":1}\n'


# ---- how probes are run


def healthy(situation: Situation) -> Iterator[Finding]:
    yield Finding("ok", "healthy", "fine")


def crashing(situation: Situation) -> Iterator[Finding]:
    yield Finding("ok", "crashing", "so far")
    raise RuntimeError("a bug")


def test_a_probe_that_crashes_or_hangs_harms_no_other(situation: Situation) -> None:
    free = threading.Event()

    def hanging(situation: Situation) -> Iterator[Finding]:
        free.wait(30)
        yield Finding("ok", "hanging", "at last")

    try:
        found = list(run([crashing, hanging, healthy], situation, limit_s=0.2))
    finally:
        free.set()
    assert [(f.level, f.subject) for f in found] == [
        ("ok", "crashing"),
        ("problem", "crashing"),
        ("problem", "hanging"),
        ("ok", "healthy"),
    ]
    assert "RuntimeError: a bug" in found[1].text
    assert "no answer within 0.2 s" in found[2].text


def test_each_problem_is_followed_by_what_to_do() -> None:
    text = doctor.as_text(
        [Finding("ok", "kernel", "Linux 6"), Finding("problem", "state", "it is full", "make room")]
    )
    assert text == [
        "ok       kernel  Linux 6",
        "problem  state   it is full",
        "                   make room",
    ]


def test_the_whole_of_it(
    situation: Situation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gpud.toml"
    file.write_text('state_dir = "state"\nsocket = "state/gpud.sock"\n')
    assert doctor.main(["--config", str(file)]) == 0
    plain = capsys.readouterr().out
    assert all(line.startswith(("ok ", "note ", "         ")) for line in plain.splitlines())
    file.write_text('state_dirr = "x"\n')
    assert doctor.main(["--config", str(file), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    problems = [f for f in report["findings"] if f["level"] == "problem"]
    assert "did you mean state_dir?" in problems[0]["text"]
    assert problems[0]["do"]


# ---- the machine


def test_what_is_too_old(situation: Situation, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(probe_machine.sqlite, situation).level == "ok"
    assert ask(probe_machine.kernel, situation).level == "ok"
    monkeypatch.setattr("gpud.store.minimums.SQLITE", (99, 0))
    monkeypatch.setattr("gpud.store.minimums.KERNEL", (99, 0))
    assert "99.0 or newer is needed" in ask(probe_machine.sqlite, situation).text
    assert "99.0 or newer is needed" in ask(probe_machine.kernel, situation).text


def test_a_kernel_that_forbids_pidfd(situation: Situation, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(pid: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "pidfd_open", forbidden)
    finding = ask(probe_machine.kernel, situation)
    assert finding.level == "problem"
    assert "operation not permitted" in finding.text


def test_shells(situation: Situation) -> None:
    assert ask(probe_machine.shell, situation) == Finding("ok", "shell", "/bin/sh")
    defaults = JobDefaults(shell=("/no/such/shell", "-c"))
    _, finding = probe_machine.shell(with_config(situation, defaults=defaults))
    assert finding.level == "problem"
    assert "[defaults] needs it" in finding.text


def test_low_limits_are_a_note(situation: Situation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (100, 100))
    assert {f.level for f in probe_machine.limits(situation)} == {"note"}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY,) * 2)
    assert {f.level for f in probe_machine.limits(situation)} == {"ok"}


def test_a_clock_that_went_back(
    situation: Situation, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(probe_machine.clock, situation).level == "ok"
    ahead = state / "gpud.db"
    ahead.touch()
    os.utime(ahead, (4e9, 4e9))
    assert "was written" in ask(probe_machine.clock, situation).text
    monkeypatch.setattr("time.time", lambda: 1000.0)
    assert "1970" in ask(probe_machine.clock, situation).text


# ---- the state directory


def test_a_good_state_directory(situation: Situation) -> None:
    assert all(f.level != "problem" for f in probe_daemon.state_directory(situation))


def test_one_that_is_not_there_yet(situation: Situation, tmp_path: Path) -> None:
    later = with_config(situation, state_dir=str(tmp_path / "a" / "b"))
    *_, finding = probe_daemon.state_directory(later)
    assert "(not there yet)" in finding.text


def test_a_file_in_its_place(situation: Situation, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "file/below"):
        wrong = with_config(situation, state_dir=str(tmp_path / name))
        assert "is not a directory" in ask(probe_daemon.state_directory, wrong).text


def test_one_that_may_not_be_written(situation: Situation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "may not be written" in ask(probe_daemon.state_directory, situation).text


def test_one_of_somebody_else(situation: Situation, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    found = [f for f in probe_daemon.state_directory(situation) if f.level == "problem"]
    assert f"belongs to uid {uid}" in found[0].text


@pytest.mark.parametrize(
    ("kind", "level", "word"),
    [("nfs4", "problem", "network file system (nfs4)"), ("tmpfs", "note", "in memory (tmpfs)")],
)
def test_file_systems(
    situation: Situation, monkeypatch: pytest.MonkeyPatch, kind: str, level: str, word: str
) -> None:
    monkeypatch.setattr(probe_daemon, "type_of", lambda path: kind)
    finding = next(iter(probe_daemon.state_directory(situation)))
    assert finding.level == level
    assert word in finding.text


def test_a_home_on_a_network_uses_another_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpud.filesystem.type_of", lambda path: "nfs4")
    situation = Situation(Config(), None, ())
    assert str(situation.state_dir) == f"/var/tmp/gpud-{os.getuid()}"
    finding = next(iter(probe_daemon.state_directory(situation)))
    assert finding.level == "note"
    assert "is on a network file system: gpud uses /var/tmp" in finding.text


def test_a_full_disk(situation: Situation, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(".")

    class Full:
        f_bavail, f_frsize = 10, real.f_frsize

    monkeypatch.setattr(os, "statvfs", lambda path: Full)
    *_, finding = probe_daemon.state_directory(situation)
    assert (finding.level, finding.do[:9]) == ("problem", "make room")


# ---- the daemon, the runner, the sources


def test_nobody_listens(situation: Situation, state: Path) -> None:
    assert ask(probe_daemon.daemon, situation).level == "note"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(str(state / "gpud.sock"))
    assert "is not running" in ask(probe_daemon.daemon, situation).text


def test_a_daemon_that_is_well(situation: Situation, listen: type[FakeDaemon]) -> None:
    listen(GREETING, PONG)  # type: ignore[call-arg,arg-type]
    finding = ask(probe_daemon.daemon, situation)
    assert finding == Finding(
        "ok", "daemon", f"gpud {__version__} answers at {situation.config.socket}"
    )
    assert probe_daemon.daemon_pid(situation) == os.getpid()


@pytest.mark.parametrize(
    ("greeting", "reply", "level", "word"),
    [
        ({**GREETING, "gpud": "9.9.9"}, PONG, "note", f"; this is {__version__}"),
        (GREETING, b"what\n", "problem", "but not to ping"),
        (GREETING, b"", "problem", "but not to ping"),
        (b"SSH-2.0-x\n", b"", "problem", "it does not speak as gpud does"),
        (b"[1]\n", b"", "problem", "it does not speak as gpud does"),
        (b"{}\n", b"", "problem", "it does not speak as gpud does"),
    ],
)
def test_a_daemon_that_is_not(
    situation: Situation,
    listen: type[FakeDaemon],
    greeting: bytes,
    reply: bytes,
    level: str,
    word: str,
) -> None:
    listen(greeting, reply)  # type: ignore[call-arg,arg-type]
    finding = ask(probe_daemon.daemon, situation)
    assert finding.level == level
    assert word in finding.text


def test_a_daemon_that_hangs(
    situation: Situation, listen: type[FakeDaemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_daemon, "ANSWER_WITHIN_S", 0.05)
    listen(b"")  # type: ignore[call-arg,arg-type]
    assert "does not answer" in ask(probe_daemon.daemon, situation).text


def test_a_socket_path_of_any_length(situation: Situation, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    long = with_config(situation, socket=str(deep / "gpud.sock"))
    assert "is not running" in ask(probe_daemon.daemon, long).text


def test_the_runner_is_alive_while_its_lock_is_held(situation: Situation, state: Path) -> None:
    lock = state / f"runner-{VERSION}.lock"
    lock.touch()
    assert "none runs" in ask(probe_daemon.runner, situation).text
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert f"alive: runner-{VERSION}" in ask(probe_daemon.runner, situation).text


def test_a_configured_cgroup_must_be_there(situation: Situation, tmp_path: Path) -> None:
    wrong = with_config(situation, cgroup=str(tmp_path / "none"))
    finding = ask(probe_daemon.cgroup, wrong)
    assert finding.level in ("problem", "note")  # note: this machine has no cgroup v2 at all
    assert ask(probe_daemon.cgroup, situation).level in ("ok", "note")


def test_sources(situation: Situation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(**fields: object) -> Finding:
        source = QueueFileSource(**fields)  # type: ignore[arg-type]
        return ask(probe_daemon.sources, with_config(situation, source={"a": source}))

    file = tmp_path / "gpu.queue"
    assert found(path=str(file)) == Finding("ok", "source.a", f"{file} (not there yet)")
    assert "does not exist" in found(path="/no/such/directory/q").text
    assert "does not exist" in found(path=str(file), cwd="/no/such/directory").text
    assert "cannot be read" in found(path=str(file), env_file="/no/such/file").text
    monkeypatch.setattr(probe_daemon, "type_of", lambda path: "nfs4")
    assert "let one machine append" in found(path=str(file)).do


# ---- GPUs (with a driver: tests/devices)


def test_without_a_driver_it_is_a_note(
    situation: Situation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def survey(limit_s: float) -> None:
        why = "no NVIDIA driver found (NVML library missing)"
        raise GpudError(f"cannot ask: {why}", kind="not-found", hint="--gpus 0,1")

    monkeypatch.setattr("gpud.devices.survey.survey", survey)
    finding = ask(probe_gpus.gpus, situation)
    assert finding[:2] == ("note", "gpus")
    assert finding.text == "no NVIDIA driver found (NVML library missing)"
    configured = with_config(situation, pool=Pool(gpus=("0",)))
    assert "the configured slots are used" in ask(probe_gpus.gpus, configured).text

"""Who may speak to a runner, what a bad line does, and when a runner goes."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gpud.runner import VERSION

from .conftest import Box, Client, wait_gone


def refusal(c: Client) -> str:
    why: str = c.until("refused")["why"]
    assert c.read() is None
    return why


def test_hello(either_box: Box) -> None:
    c = either_box.up()
    assert c.hello["runner"] == VERSION
    assert c.hello["pid"] == either_box.runner.pid
    assert c.hello["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert c.hello["payload"] == ("cgroup" if either_box.cgroup else "session")
    assert c.hello["attempts"] == []


def test_a_newer_hello_supersedes(box: Box) -> None:
    first = box.up()
    box.start(first, "sleep 1000")
    second = box.connect()
    assert [(a["job"], a["phase"]) for a in second.hello["attempts"]] == [(1, "running")]
    assert first.read() is None
    second.nothing_more()


def test_a_wrong_hello_changes_nothing(box: Box) -> None:
    c = box.up()
    for hello in (
        {"op": "hello", "runner": VERSION, "token": "wrong"},
        {"op": "hello", "runner": VERSION, "token": ""},
        {"op": "hello", "runner": VERSION},
        {"op": "hello", "runner": VERSION + 1, "token": box.token},
        {"op": "list"},
        box.job("echo"),
    ):
        other = box.dial()
        other.send(**hello)
        assert refusal(other)
    assert c.list() == {}


def test_a_lock_that_nobody_holds_proves_nothing(box: Box) -> None:
    box.launch()
    os.close(box.lock)
    c = box.dial()
    c.send(op="hello", runner=VERSION, token=box.token)
    assert "the token" in refusal(c)
    box.lock = os.open("/dev/null", os.O_RDONLY)


@pytest.mark.parametrize(
    "line",
    [b"garbage", b"", b"\xff\xfe", b"[]", b"7", b"null", b'{"op":"what"}', b'{"op":["start"]}',
     b'{"op":"start"}', b"[" * 100_000, b'{"op":"stop","job":"1","attempt":1}',
     b'{"op":"forget","attempts":[1]}', b'{"op":"start","job":2,"attempt":1,"argv":["\\ud800"]}'],
)  # fmt: skip
def test_garbage_ends_the_connection_and_nothing_else(box: Box, line: bytes) -> None:
    c = box.up()
    box.start(c, "sleep 1000")
    c.send_raw(line + b"\n")
    assert "was not understood" in refusal(c)
    assert set(box.connect().list()) == {(1, 1)}
    assert "Traceback" not in box.said()


def test_half_a_start_starts_nothing(box: Box) -> None:
    """Whatever member is missing or wrong, it is refused before any effect."""
    box.launch()
    good = box.job("echo")
    for name in good.keys() - {"op"}:
        for message in ({k: v for k, v in good.items() if k != name}, {**good, name: 7.5}):
            c = box.connect()
            c.send(**message)
            refusal(c)
    for bad in ({"user": {"uid": 1}}, {"umask": "x"}, {"time_limit_s": []}, {"grace_s": "soon"}):
        c = box.connect()
        c.send(**(good | bad))
        refusal(c)
    assert box.connect().list() == {}
    assert box.journal.read_bytes() == b""


def test_long_lines(box: Box) -> None:
    c = box.up()
    env = [f"V{n}={'x' * 100_000}" for n in range(10)]
    c.send(**box.job("exit 4", env=env))
    assert c.until("ended")["exit"] == {"code": 4}
    with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012
        for _ in range(20):
            c.send_raw(b"x" * (1 << 20))
        c.send_raw(b"x")
    assert set(box.connect().list()) == {(1, 1)}


def test_many_lines_in_one_piece_and_one_line_in_many(box: Box) -> None:
    c = box.up()
    lines = [json.dumps(box.job(f"exit {job}", job=job)).encode() for job in range(5)]
    c.send_raw(b"\n".join(lines) + b"\n")
    assert sorted(c.until("ended")["job"] for _ in range(5)) == list(range(5))
    for byte in b'{"op":"list"}\n':
        c.send_raw(bytes([byte]))
    assert len(c.until("attempts")["attempts"]) == 5


def test_a_daemon_that_does_not_read_holds_up_nothing(box: Box) -> None:
    c = box.up()
    c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    c.send(**box.job("sleep 1000", job=1))
    c.until("started", 1)
    c.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):  # noqa: PT012 (until the runner stops reading)
        while True:
            c.send_raw(b'{"op":"list"}\n' * 5000)
    c2 = box.connect()
    c2.send(**box.job("exit 0", job=2))
    assert c2.until("ended", 2)["exit"] == {"code": 0}
    with open(f"/proc/{c2.hello['pid']}/status") as f:
        rss_kib = next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))
    assert rss_kib < 100_000


def test_what_is_not_known(box: Box) -> None:
    c = box.up()
    for op, more in (("stop", {}), ("signal", {"signal": "HUP"}), ("limit", {"time_limit_s": 1})):
        c.send(op=op, job=5, attempt=2, **more)
        assert c.read() == {"ev": "unknown", "job": 5, "attempt": 2, "op": op}


def test_a_second_runner_stands_back(box: Box) -> None:
    c = box.up()
    first = box.runner
    assert box.launch() == "held"
    assert box.runner.wait(20) == 0
    assert first.poll() is None
    c.nothing_more()


def test_a_long_state_directory(tmp_path: Path) -> None:
    box = Box(tmp_path / ("d" * 100) / ("e" * 100))
    try:
        c = box.up()
        c.send(**box.job("exit 0"))
        c.until("ended")
    finally:
        box.tear_down()


def test_a_state_directory_that_is_not_there(tmp_path: Path) -> None:
    box = Box(tmp_path / "state")
    try:
        box.path = tmp_path / "gone"
        runner = Path(__file__).parents[2] / "gpud" / "runner" / "__main__.py"
        command = [sys.executable, "-I", "-S", str(runner), str(box.path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert done.returncode == 1
        assert "cannot run in" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        box.tear_down()


def test_term_ends_all_payloads_and_journals_their_ends(either_box: Box) -> None:
    box = either_box
    c = box.up()
    box.start(c, "sleep 1000", job=1)
    box.start(c, "(setsid sleep 1000 &) ; trap 'exit 8' TERM; echo $$ > pid;"
                 "while :; do sleep 0.01; done", job=2)  # fmt: skip
    box.pid_from("pid")
    box.runner.terminate()
    assert {c.until("ended")["job"], c.until("ended")["job"]} == {1, 2}
    assert box.runner.wait(20) == 0
    assert not box.socket.exists()
    assert not box.descendants()
    c = box.up()
    ends = {event["job"]: event for event in (c.until("ended"), c.until("ended"))}
    assert ends[1]["exit"] == {"signal": signal.SIGTERM}
    assert ends[2]["exit"] == {"code": 8}
    assert ends[1]["stopped"] is ends[2]["stopped"] is True


def test_retire(box: Box) -> None:
    c = box.up()
    os.mkfifo(box.path / "fifo")
    box.start(c, "read line < fifo")
    c.send(op="retire")
    c.send(**box.job("echo", job=2))
    assert c.until("unknown", 2)["op"] == "start"
    box.release("fifo")
    c.until("ended", 1)
    c.nothing_more()
    c.send(op="forget", attempts=[[1, 1]])
    assert c.read() is None
    assert box.runner.wait(20) == 0
    assert not box.socket.exists()


def test_it_goes_when_there_is_nothing_to_do(box: Box) -> None:
    c = box.up()
    c.send(**box.job("exit 0"))
    c.until("ended")
    c.send(op="forget", attempts=[[1, 1]])
    c.list()
    box.dial()  # one that has not said hello is no reason to stay
    c.close()
    wait_gone(c.hello["pid"])
    assert box.runner.wait(20) == 0
    assert not box.socket.exists()


def test_an_end_that_is_not_forgotten_is_a_reason_to_stay(box: Box) -> None:
    c = box.up()
    c.send(**box.job("exit 0"))
    c.until("ended")
    c.close()
    with pytest.raises(subprocess.TimeoutExpired):
        box.runner.wait(5.5)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_is_not_the_daemon(open_path: Path) -> None:
    box = Box(open_path / "state")
    try:
        box.launch()
        box.socket.chmod(0o777)
        script = (
            "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
            "print(s.makefile().read())"
        )
        command = ["/usr/bin/python3", "-I", "-S", "-c", script, str(box.socket)]
        nobody = {"user": 65534, "group": 65534}
        done = subprocess.run(command, **nobody, cwd="/", capture_output=True, timeout=20)
        assert b"user 65534 is not the user of this runner" in done.stdout, done.stderr
    finally:
        box.tear_down()

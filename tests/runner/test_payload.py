"""The payload: everything that a shell started, however it tries to get away."""

import os
import signal

import pytest

from .conftest import Box, is_alive, wait_gone

SETSID = "setsid sh -c 'echo $$ > pid; exec sleep 1000' &"
DAEMON = "( ( setsid sh -c 'echo $$ > pid; exec sleep 1000' & ) & );"
BARE = "env -i /usr/bin/setsid /bin/sh -c 'echo $$ > pid; exec sleep 1000' &"
GROUP = "( ( echo $(exec sh -c 'echo $PPID') > pid; exec sleep 1000 ) & );"
WAYS = pytest.mark.parametrize(
    "way", [SETSID, DAEMON, BARE, GROUP], ids=["setsid", "daemon", "bare", "child"]
)
READY = "while [ ! -s pid ]; do sleep 0.01; done;"


def pids(names: list[str]) -> list[int]:
    """Of processes as events name them: `name (pid)`."""
    return [int(name.rpartition("(")[2].rstrip(")")) for name in names]


@WAYS
def test_stop_ends_all_of_it(either_box: Box, way: str) -> None:
    box = either_box
    c = box.up()
    box.start(c, f"{way} {READY} sleep 1000")
    pid = box.pid_from("pid")
    c.send(op="stop", job=1, attempt=1, grace_s=20)
    ended = c.until("ended")
    assert ended["exit"] == {"signal": signal.SIGTERM}
    assert ended["killed"] == []
    assert not is_alive(pid)


@WAYS
def test_what_outlives_the_shell_lingers_and_is_ended(either_box: Box, way: str) -> None:
    box = either_box
    c = box.up()
    box.start(c, f"{way} {READY} exit 9", linger_s=0.1)
    lingering = c.until("lingering")
    pid = box.pid_from("pid")
    assert pids(lingering["processes"]) == [pid]  # its name may still be that of a shell
    ended = c.until("ended")
    assert ended["exit"] == {"code": 9}
    assert pids(ended["killed"]) == [pid]
    assert ended["stopped"] is ended["timed_out"] is False
    assert not is_alive(pid)


def test_what_ignores_term_is_killed(either_box: Box) -> None:
    box = either_box
    c = box.up()
    script = "trap '' TERM; (setsid sh -c 'echo $$ > pid; while :; do sleep 1000; done' &)"
    box.start(c, f"{script}; {READY} exit 0", linger_s=0.05, grace_s=0.1)
    pid = box.pid_from("pid")
    ended = c.until("ended")
    assert pid in pids(ended["killed"])
    assert ended["exit"] == {"code": 0}
    assert not box.descendants()


def test_what_lingers_may_end_by_itself(either_box: Box) -> None:
    box = either_box
    c = box.up()
    os.mkfifo(box.path / "one")
    os.mkfifo(box.path / "two")
    box.start(c, "(read line < one; sh -c 'read line < two') & exit 2", linger_s=1000)
    c.until("lingering")
    assert c.list()[1, 1]["phase"] == "lingering"
    box.release("one")
    box.release("two")
    ended = c.until("ended")
    assert (ended["exit"], ended["killed"]) == ({"code": 2}, [])


def test_linger_null_waits(either_box: Box) -> None:
    box = either_box
    c = box.up()
    os.mkfifo(box.path / "fifo")
    box.start(c, "setsid sh -c 'read line < fifo' & exit 0", linger_s=None)
    c.until("lingering")
    box.start(c, "exit 0", job=2)
    c.until("ended", 2)
    assert c.list()[1, 1]["phase"] == "lingering"
    box.release("fifo")
    assert c.until("ended", 1)["killed"] == []


def test_a_time_limit_ends_the_wait(either_box: Box) -> None:
    c = either_box.up()
    either_box.start(c, "sleep 1000 & exit 0", linger_s=None, time_limit_s=0.2)
    ended = c.until("ended")
    assert (ended["exit"], ended["timed_out"]) == ({"code": 0}, True)


def test_stop_ends_the_wait(either_box: Box) -> None:
    c = either_box.up()
    either_box.start(c, "sleep 1000 & exit 0", linger_s=None)
    c.until("lingering")
    c.send(op="stop", job=1, attempt=1, grace_s=10)
    ended = c.until("ended")
    assert (ended["exit"], ended["stopped"]) == ({"code": 0}, True)


def test_a_fork_storm_is_killed(either_box: Box) -> None:
    """One pass cannot catch what forks: the passes are repeated until nothing is left."""
    box = either_box
    c = box.up()
    chain = 'trap "" TERM; n=0; f() { sleep 0.02; setsid sh -c "$0" "$0" & exit; }; f'
    message = box.job(":", grace_s=0.05, linger_s=0.1)
    message["argv"] = ["/bin/sh", "-c", chain, chain]
    c.send(**message)
    c.until("ended")
    assert not box.descendants()


def test_an_orphan_of_one_attempt_does_not_hold_another(either_box: Box) -> None:
    box = either_box
    c = box.up()
    box.start(c, f"{SETSID} {READY} sleep 1000", job=1)
    pid = box.pid_from("pid")
    box.start(c, "exit 0", job=2)
    assert c.until("ended", 2)["unassigned"] == []
    assert is_alive(pid)
    assert c.list()[1, 1]["phase"] == "running"


def test_an_orphan_that_cannot_be_assigned_is_reported_and_left_alone(box: Box) -> None:
    """No nonce, a session of its own, never seen under its parent, and two that it may be of."""
    c = box.up()
    box.start(c, "sleep 1000", job=1)
    box.start(c, f"( {BARE} ) & {READY} exit 0", job=2)
    pid = box.pid_from("pid")
    try:
        assert pids(c.until("ended", 2)["unassigned"]) == [pid]
        c.send(op="stop", job=1, attempt=1, grace_s=5)
        c.until("ended", 1)
        assert is_alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
    wait_gone(pid)


def test_two_linger_side_by_side(either_box: Box) -> None:
    box = either_box
    c = box.up()
    box.start(c, "sleep 1000 & exit 1", job=1, linger_s=None)
    box.start(c, "sleep 1000 & exit 2", job=2, linger_s=0.1)
    ended = c.until("ended", 2)
    assert (ended["exit"], len(ended["killed"])) == ({"code": 2}, 1)
    assert c.list()[1, 1]["phase"] == "lingering"

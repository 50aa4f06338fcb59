"""What survives the runner: ends are delivered once, and nothing is ever started twice."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import Box, is_alive, wait_gone, wait_until

LOST = {"lost": "the runner died while it ran"}


def test_an_end_is_repeated_until_it_is_forgotten(box: Box) -> None:
    c = box.up()
    c.send(**box.job("exit 3"))
    ended = c.until("ended")
    for _ in range(2):
        c.close()
        c = box.connect()
        assert c.until("ended") == ended
    c.send(op="forget", attempts=[[1, 1], [77, 7]])
    assert c.list() == {}
    c.close()
    box.connect().nothing_more()


def test_an_end_survives_the_runner(box: Box) -> None:
    c = box.up()
    for job in (1, 2):
        c.send(**box.job(f"exit {job}", job=job))
    ends = {event["job"]: event for event in (c.until("ended"), c.until("ended"))}
    box.kill_runner()
    c = box.up()
    again = {event["job"]: event for event in (c.until("ended"), c.until("ended"))}
    assert again == ends
    c.send(op="forget", attempts=[[1, 1]])
    c.list()
    box.kill_runner()
    c = box.up()
    assert c.until("ended") == ends[2]
    c.nothing_more()


@pytest.mark.parametrize("point", ["after-starting", "before-started"])
def test_a_death_around_the_spawn_never_runs_it_twice(either_box: Box, point: str) -> None:
    box = either_box
    c = box.up(GPUD_RUNNER_CRASH=point)
    ran = box.path / "ran"
    message = box.job("echo $$ > pid; echo >> ran; sleep 1000", time_limit_s=1000)
    c.send(**message)
    box.runner.wait(20)
    was_made = point == "before-started"
    if was_made:
        box.pid_from("pid")
    assert [r["ev"] for r in box.records()] == ["starting"]
    c = box.up()
    c.send(**message)
    if was_made:
        assert c.list()[1, 1]["phase"] == "running"
        assert c.list()[1, 1]["pid"] == box.pid_from("pid")
        c.send(op="stop", job=1, attempt=1, grace_s=10)
    ended = c.until("ended")
    assert ended["exit"] == {"lost": "the runner died while starting it"}
    assert ended["rusage"] is None
    assert not box.descendants()
    assert ran.exists() is was_made
    if was_made:
        assert ran.read_text() == "\n"


def test_what_lives_is_adopted_and_ends_as_lost(either_box: Box) -> None:
    box = either_box
    c = box.up()
    os.mkfifo(box.path / "fifo")
    started = box.start(c, "read line < fifo; (setsid sleep 1000 & echo $! > pid); exit 0")
    box.kill_runner()
    c = box.up()
    assert c.list()[1, 1] == {"job": 1, "attempt": 1, "phase": "running", "pid": started["pid"]}
    box.release("fifo")
    c.until("lingering")
    assert c.list()[1, 1]["phase"] == "lingering"
    c.send(op="stop", job=1, attempt=1, grace_s=10)
    ended = c.until("ended")
    assert (ended["exit"], ended["started_at_ms"]) == (LOST, started["at_ms"])
    assert not box.descendants()


@pytest.mark.parametrize("linger_s", [0.1, None])
def test_adopted_attempts_linger_too(either_box: Box, linger_s: float | None) -> None:
    box = either_box
    c = box.up()
    for name in ("shell", "rest"):
        os.mkfifo(box.path / name)
    box.start(c, "(setsid sh -c 'read line < rest' &); read line < shell", linger_s=linger_s)
    box.kill_runner()
    c = box.up()
    box.release("shell")
    lingering = c.until("lingering")
    assert len(lingering["processes"]) == 1
    if linger_s is None:
        box.release("rest")
    ended = c.until("ended")
    assert (ended["exit"], bool(ended["killed"])) == (LOST, linger_s is not None)


def test_the_exit_of_a_shell_that_lingers_is_kept(box: Box) -> None:
    c = box.up()
    box.start(c, "sleep 1000 & exit 7", linger_s=None)
    c.until("lingering")
    box.kill_runner()
    c = box.up()
    c.send(op="stop", job=1, attempt=1, grace_s=10)
    ended = c.until("ended")
    assert ended["exit"] == {"code": 7}
    assert ended["rusage"]["max_rss_kib"] > 0


def test_what_ended_while_no_runner_lived_is_lost(either_box: Box) -> None:
    box = either_box
    c = box.up()
    pid = box.start(c, "exec sleep 1000")["pid"]
    box.kill_runner()
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)
    assert box.up().until("ended")["exit"] == LOST


def test_time_limits_and_stops_hold_for_the_adopted(either_box: Box) -> None:
    box = either_box
    c = box.up()
    deaf = "trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done"
    box.start(c, "sleep 1000", job=1, time_limit_s=1)
    box.start(c, "sleep 1000", job=2)
    c.send(op="limit", job=2, attempt=1, time_limit_s=1)
    box.start(c, deaf, job=3)
    box.pid_from("pid")
    c.send(op="stop", job=3, attempt=1, grace_s=1)
    c.list()
    box.kill_runner()
    c = box.up()
    ends = {e["job"]: e for e in (c.until("ended"), c.until("ended"), c.until("ended"))}
    assert [ends[job]["timed_out"] for job in (1, 2, 3)] == [True, True, False]
    assert [ends[job]["stopped"] for job in (1, 2, 3)] == [False, False, True]
    assert all(e["exit"] == LOST for e in ends.values())
    assert not box.descendants()


def test_another_boot_means_lost_at_once(box: Box) -> None:
    c = box.up()
    pid = box.start(c, "sleep 1000")["pid"]
    box.kill_runner()
    c = box.up(GPUD_BOOT_ID="another")
    assert c.hello["boot_id"] == "another"
    ended = c.until("ended")
    assert ended["exit"] == {"lost": "the machine was restarted"}
    assert is_alive(pid)


def test_a_reused_pid_is_not_adopted(box: Box) -> None:
    c = box.up()
    started = box.start(c, "exec sleep 1000")
    pid = started["pid"]
    box.kill_runner()
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)
    # Within one tick the kernel itself could not give a pid to two.
    ticks_ns = 10**9 // os.sysconf("SC_CLK_TCK")
    wait_until(
        lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME) // ticks_ns > started["ticks"] + 1,
        "the next tick",
    )
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        text = box.journal.read_text().replace(f'"pid":{pid}', f'"pid":{stranger.pid}')
        box.journal.write_text(text)
        assert box.up().until("ended")["exit"] == LOST
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_torn_or_spoilt_journal(box: Box) -> None:
    c = box.up()
    c.send(**box.job("exit 3"))
    c.until("ended")
    box.kill_runner()
    *_, last = box.journal.read_bytes().splitlines()
    spoilt = [b"", b"{", b"\xff\xfe", b"[]", b"7", b'{"ev":"ended","job":9,"attempt":9}',
              b'{"ev":"starting"}', b'{"ev":"what","job":1,"attempt":1}']  # fmt: skip
    with box.journal.open("ab") as f:
        f.write(b"\n".join(spoilt) + b"\n" + last.replace(b'"code":3', b'"code":4')[:-9])
    c = box.up()
    assert c.until("ended")["exit"] == {"code": 3}
    c.nothing_more()
    assert box.said().count("cannot use line") >= 5
    assert [r["ev"] for r in box.records()][:3] == ["starting", "started", "ended"]


def test_an_older_runners_journal_is_taken_over(box: Box) -> None:
    c = box.up()
    c.send(**box.job("exit 3"))
    c.until("ended")
    pid = box.start(c, "sleep 1000", job=2)["pid"]
    box.kill_runner()
    old = box.path / "runner-0.journal"
    box.journal.rename(old)
    (box.path / "runner-0.lock").touch()
    c = box.up()
    assert c.until("ended")["exit"] == {"code": 3}
    assert c.list()[2, 1]["pid"] == pid
    assert not old.exists()


def test_the_journal_of_a_living_older_runner_is_left_alone(box: Box) -> None:
    c = box.up()
    c.send(**box.job("exit 3"))
    c.until("ended")
    box.kill_runner()
    old = box.path / "runner-0.journal"
    box.journal.rename(old)
    lock = box.path / "runner-0.lock"
    holder = subprocess.Popen(["flock", lock, "sleep", "1000"], start_new_session=True)
    try:
        probe = ["flock", "-n", str(lock), "true"]
        wait_until(lambda: subprocess.run(probe).returncode, "the lock held")
        c = box.up()
        c.nothing_more()
        assert old.exists()
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()


def test_the_journal_stays_small(box: Box) -> None:
    """It is compacted while the runner lives, and keeps what is of use."""
    c = box.up()
    c.send(**box.job("exit 3", job=1))
    kept = c.until("ended")
    box.start(c, "sleep 1000", job=2)
    for job in range(3, 9):  # each journals its reason, which names the directory: 200 KiB
        c.send(**box.job("echo", job=job, cwd="/" + "n" * 200_000))
        c.until("not-started", job)
        c.send(op="forget", attempts=[[job, 1]])
    c.list()
    assert box.journal.stat().st_size < 1 << 20
    box.kill_runner()
    c = box.up()
    assert c.until("ended") == kept
    assert set(c.list()) == {(1, 1), (2, 1)}
    assert box.journal.stat().st_size < 2000


def small_disk(path: Path, size: str) -> bool:
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as f:
        while True:
            try:
                f.write(b"\0" * 4096)
            except OSError:
                return


def test_a_full_disk_stops_starts_but_records_ends(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    if not small_disk(disk, "1m"):
        pytest.skip("no file system of one MiB can be mounted here")
    box = Box(disk / "state")
    try:
        c = box.up()
        os.mkfifo(box.path / "fifo")
        box.start(c, "read line < fifo; exit 5", log=str(tmp_path / "1.log"))
        fill(disk / "filler")
        while len(box.journal.read_bytes()) % 4096:  # the rest of its last block
            with box.journal.open("ab", buffering=0) as f:
                f.write(b"\n")
        c.send(**box.job("echo", job=2, log=str(tmp_path / "2.log")))
        refused = c.until("not-started", 2)
        assert refused["kind"] == "resources"
        assert "the journal cannot be written" in refused["why"]
        box.release("fifo")
        assert c.until("ended", 1)["exit"] == {"code": 5}
        box.kill_runner()
        assert {"job": 1, "ev": "ended"}.items() <= box.records()[-1].items()
    finally:
        box.tear_down()
        subprocess.run(["umount", "-l", str(disk)], check=True)

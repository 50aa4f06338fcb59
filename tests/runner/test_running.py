"""One attempt: its start, its exact end, its deadlines, what it inherits."""

import os
import signal
import subprocess
import time

import pytest

from .conftest import Box, is_alive, wait_gone, wait_until, wire


def test_exit_code_rusage_and_output(either_box: Box) -> None:
    box = either_box
    c = box.up()
    before = time.time() * 1000
    started = box.start(c, "echo out; echo err >&2; cat; exit 3")
    ended = c.until("ended")
    assert ended["exit"] == {"code": 3}
    assert before - 1 <= started["at_ms"] == ended["started_at_ms"] <= ended["at_ms"]
    assert ended["timed_out"] is ended["stopped"] is False
    assert ended["killed"] == ended["unassigned"] == []
    assert set(ended["rusage"]) == {
        "user_s", "system_s", "max_rss_kib", "minor_faults", "major_faults", "in_blocks",
        "out_blocks",
    }  # fmt: skip
    assert ended["rusage"]["max_rss_kib"] > 0
    assert box.log().read_text() == "out\nerr\n"
    assert box.log().stat().st_mode & 0o777 == 0o600


def test_a_start_is_told_by_itself_or_with_the_end(box: Box) -> None:
    c = box.up()
    c.send(**box.job("sleep 60"))
    c.send(**box.job("true", job=2))
    told = []
    while len(told) < 3:
        event = c.read()
        assert event is not None
        told.append((event["ev"], event["job"]))
    assert set(told) == {("started", 1), ("started", 2), ("ended", 2)}
    assert told.index(("started", 2)) < told.index(("ended", 2))


def test_cpu_time_is_the_jobs(box: Box) -> None:
    c = box.up()
    c.send(**box.job("i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done"))
    usage = c.until("ended")["rusage"]
    assert usage["user_s"] + usage["system_s"] > 0.01


def test_death_by_signal(box: Box) -> None:
    c = box.up()
    c.send(**box.job("kill -SEGV $$"))
    assert c.until("ended")["exit"] == {"signal": signal.SIGSEGV}


def test_log_is_appended_to(box: Box) -> None:
    c = box.up()
    for attempt in (1, 2):
        message = box.job(f"echo {attempt}", attempt=attempt, log=str(box.log()))
        c.send(**message)
        c.until("ended")
    assert box.log().read_text() == "1\n2\n"


def test_what_the_job_inherits(box: Box) -> None:
    """Nothing of the runner: no descriptor, no ignored or blocked signal; a session of its own."""
    c = box.up()
    box.start(c, "ls /proc/$$/fd; grep -E 'Sig(Blk|Ign)' /proc/self/status; umask; cut -d' ' -f6 "
                 "/proc/$$/stat; echo $$; env", umask=0o027)  # fmt: skip
    c.until("ended")
    lines = box.log().read_text().split("\n")
    assert lines[:3] == ["0", "1", "2"]
    assert "SigBlk:\t0000000000000000" in lines
    ignored = next(line for line in lines if line.startswith("SigIgn:"))
    # 32 and 33 are glibc's own, which its posix_spawn leaves ignored; it sets them where it uses
    # them, and no program can name them.
    assert int(ignored.split()[1], 16) & ~(0b11 << 31) == 0
    assert "0027" in lines
    shell = lines.index("0027") + 1
    assert lines[shell] == lines[shell + 1]
    assert sum(line.startswith("GPUD_NONCE=") for line in lines) == 1


def test_umask_is_the_launchers(box: Box) -> None:
    before = os.umask(0o026)
    try:
        c = box.up()
    finally:
        os.umask(before)
    c.send(**box.job("umask"))
    c.until("ended")
    assert box.log().read_text() == "0026\n"
    assert box.socket.stat().st_mode & 0o777 == 0o600


def test_oom_score_is_not_inherited(box: Box) -> None:
    """The runner lowers its own; a job has what the runner was started with."""
    raise_own = ("/bin/sh", "-c", 'echo 321 > /proc/self/oom_score_adj && exec "$@"', "sh")
    assert box.launch(prefix=raise_own) == "ready"
    c = box.connect()
    c.send(**box.job("cat /proc/$$/oom_score_adj"))
    c.until("ended")
    assert box.log().read_text() == "321\n"
    with open(f"/proc/{c.hello['pid']}/oom_score_adj") as f:
        assert int(f.read()) < 321


def test_bytes_that_are_not_utf8(box: Box) -> None:
    c = box.up()
    where = os.fsencode(box.path) + b"/\xff dir"
    os.mkdir(where)
    message = box.job("", cwd=wire(where), log=wire(where + b"/\xfe.log"))
    message["argv"] += [wire(b'printf \'%s \' "$X" "$1"; pwd'), "sh", wire(b"\xff")]
    del message["argv"][2]
    message["env"].append(wire(b"X=\xe9\xe8"))
    c.send(**message)
    assert c.until("ended")["exit"] == {"code": 0}
    with open(where + b"/\xfe.log", "rb") as f:
        assert f.read() == b"\xe9\xe8 \xff " + where + b"\n"


def test_starts_add_to_the_environment_of_their_connection(box: Box) -> None:
    c = box.up()
    c.send(op="env", vars=["A=old", wire(b"B=\xe9"), f"PATH={os.environ['PATH']}"])
    c.send(**box.job('printf "%s " "$A" "$B" "$C"', env=["A=new", "C=x=y"]))
    c.until("ended")
    assert box.log().read_bytes() == b"new \xe9 x=y "
    c.send(op="env", vars=["no name"])
    c.send(**box.job("echo", job=2))
    assert "NAME=VALUE" in c.until("not-started", 2)["why"]
    c = box.connect()  # which has none yet
    c.send(**box.job('echo "A=$A"', job=3))
    c.until("ended", 3)
    assert box.log(3).read_text() == "A=\n"


def test_a_second_start_of_an_attempt_reports_its_phase(box: Box) -> None:
    c = box.up()
    ran = box.path / "ran"
    message = box.job(f"echo >> {ran}; read line < fifo")
    os.mkfifo(box.path / "fifo")
    c.send(**message)
    first = c.until("started")
    c.send(**message)
    assert c.until("started") == first
    box.release("fifo")
    ended = c.until("ended")
    c.send(**message)
    assert c.until("ended") == ended
    c.send(op="forget", attempts=[[1, 1]])
    c.send(**message)
    assert c.until("unknown")["op"] == "start"
    assert ran.read_text() == "\n"


def test_stop_is_term_then_kill(either_box: Box) -> None:
    box = either_box
    c = box.up()
    box.start(c, "trap 'echo term' TERM; echo $$ > pid; while :; do sleep 0.01; done")
    box.pid_from("pid")
    c.send(op="stop", job=1, attempt=1, grace_s=0.2)
    ended = c.until("ended")
    assert ended["exit"] == {"signal": signal.SIGKILL}
    assert ended["stopped"] is True
    assert "term" in box.log().read_text()


def test_stop_lets_the_job_end_by_itself(either_box: Box) -> None:
    box = either_box
    c = box.up()
    box.start(c, "trap 'echo bye; exit 5' TERM; echo $$ > pid; while :; do sleep 0.01; done")
    box.pid_from("pid")
    c.send(op="stop", job=1, attempt=1, grace_s=30)
    ended = c.until("ended")
    assert (ended["exit"], ended["stopped"], ended["timed_out"]) == ({"code": 5}, True, False)
    assert "bye" in box.log().read_text()


def test_a_second_stop_shortens_the_grace(box: Box) -> None:
    c = box.up()
    box.start(c, "trap '' TERM; echo $$ > pid; while :; do sleep 100; done")
    box.pid_from("pid")
    c.send(op="stop", job=1, attempt=1, grace_s=1000)
    assert c.list()[1, 1]["phase"] == "stopping"
    c.send(op="stop", job=1, attempt=1, grace_s=0.05)
    assert c.until("ended")["exit"] == {"signal": signal.SIGKILL}


def test_stop_reaches_a_stopped_job(either_box: Box) -> None:
    """TERM alone would wait for ever in a process that is stopped."""
    box = either_box
    c = box.up()
    pid = box.start(c, "trap 'exit 6' TERM; echo $$ > pid; while :; do :; done")["pid"]
    box.pid_from("pid")
    c.send(op="signal", job=1, attempt=1, signal="STOP")

    def state() -> str:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0]

    wait_until(lambda: state() == "T", "the shell stopped")
    c.send(op="stop", job=1, attempt=1, grace_s=30)
    assert c.until("ended")["exit"] == {"code": 6}


def test_signal_reaches_the_whole_payload(either_box: Box) -> None:
    box = either_box
    c = box.up()
    box.start(c, "trap 'echo one' USR1; sh -c 'trap \"echo two; exit\" USR1; echo $$ > pid; "
                 "while :; do sleep 0.01; done'; wait")  # fmt: skip
    box.pid_from("pid")
    c.send(op="signal", job=1, attempt=1, signal="USR1")
    c.until("ended")
    assert {"one", "two"} <= set(box.log().read_text().split())


def test_lengths_of_time_beyond_what_epoll_counts(box: Box) -> None:
    """epoll_wait takes milliseconds in an int: 24 days."""
    c = box.up()
    ten_years_s = 10 * 366 * 86_400.0
    long = {"time_limit_s": ten_years_s, "grace_s": ten_years_s, "linger_s": ten_years_s}
    c.send(**box.job("sleep 1000", job=1, **long))
    c.send(**box.job("sleep 1000 & exit 0", job=2, **long))
    c.until("lingering")
    c.send(**box.job("exit 3", job=3))
    assert c.until("ended")["exit"] == {"code": 3}


def test_time_limit(either_box: Box) -> None:
    box = either_box
    c = box.up()
    c.send(**box.job("trap '' TERM; sleep 100; sleep 100", time_limit_s=0.1, grace_s=0.1))
    ended = c.until("ended")
    assert (ended["exit"], ended["timed_out"]) == ({"signal": signal.SIGKILL}, True)
    assert ended["stopped"] is False


def test_limits_hold_while_no_daemon_is_connected(box: Box) -> None:
    c = box.up()
    pid = box.start(c, "sleep 100", time_limit_s=0.2)["pid"]
    c.close()
    wait_gone(pid)
    ended = box.connect().until("ended")
    assert (ended["exit"], ended["timed_out"]) == ({"signal": signal.SIGTERM}, True)


def test_a_limit_can_be_changed_and_lifted(box: Box) -> None:
    c = box.up()
    os.mkfifo(box.path / "fifo")
    box.start(c, "read line < fifo", job=1, time_limit_s=100)
    c.send(op="limit", job=1, attempt=1, time_limit_s=None)
    box.start(c, "sleep 100", job=2)
    c.send(op="limit", job=2, attempt=1, time_limit_s=0.1)
    assert c.until("ended", 2)["timed_out"] is True
    box.release("fifo")
    assert c.until("ended", 1)["timed_out"] is False


def test_stop_goes_on_when_the_daemon_dies(box: Box) -> None:
    c = box.up()
    pid = box.start(c, "trap '' TERM; echo $$ > pid; while :; do sleep 100; done")["pid"]
    box.pid_from("pid")
    c.send(op="stop", job=1, attempt=1, grace_s=0.2)
    c.list()
    c.close()
    wait_gone(pid)
    ended = box.connect().until("ended")
    assert (ended["exit"], ended["stopped"]) == ({"signal": signal.SIGKILL}, True)


def test_500_attempts_end_once_each(either_box: Box) -> None:
    box = either_box
    c = box.up()
    pid = c.hello["pid"]
    count, in_flight = 500, 8
    c.send(**box.job("exit 0", job=1000))
    c.until("ended")
    fds = set(os.listdir(f"/proc/{pid}/fd"))
    for job in range(1, in_flight + 1):
        c.send(**box.job(f"exit {job % 7}", job=job))
    ends = []
    following = in_flight
    while len(ends) < count:
        ended = c.until("ended")
        ends.append((ended["job"], ended["exit"]["code"]))
        c.send(op="forget", attempts=[[ended["job"], 1]])
        if following < count:
            following += 1
            c.send(**box.job(f"exit {following % 7}", job=following))
    assert sorted(ends) == [(job, job % 7) for job in range(1, count + 1)]
    assert set(c.list()) == {(1000, 1)}
    c.nothing_more()
    assert set(os.listdir(f"/proc/{pid}/fd")) == fds
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        assert f.read().split() == []
    if box.cgroup:
        assert [p.name for p in box.cgroup.iterdir() if p.is_dir()] == ["runner"]


def test_nothing_happens_without_a_wakeup(box: Box) -> None:
    """While a job runs and nothing is due, the runner sleeps."""
    c = box.up()
    pid = box.start(c, "sleep 100")["pid"]

    def switches() -> int:
        with open(f"/proc/{c.hello['pid']}/status") as f:
            return sum(int(line.split()[1]) for line in f if "voluntary_ctxt" in line)

    time.sleep(0.1)
    before = switches()
    time.sleep(0.3)
    assert switches() == before
    assert is_alive(pid)


@pytest.mark.parametrize("name", ["HUP", "INT"])
def test_hup_and_int_do_nothing(box: Box, name: str) -> None:
    c = box.up()
    box.start(c, "sleep 100")
    subprocess.run(["/bin/kill", f"-{name}", str(c.hello["pid"])], check=True)
    assert c.list()[1, 1]["phase"] == "running"

"""Pause and checkpoint: what stands still, for how long, and who gets the signal."""

import os
import signal
from pathlib import Path

import pytest

from .conftest import Box, Client, is_alive, wait_gone, wait_until

# A file of its own gets longer and longer.
COUNT = "while :; do echo >> {}; done"
# Saves what it has and leaves, as a training job does; the shell before it does not.
SAVES = (
    "sh -c 'trap \"echo saved > saved; exit {}\" USR1; echo $$ > pid; while :; do sleep 0.01; done'"
    "; echo not here"
)


def ask(c: Client, op: str, job: int = 1, **more: object) -> None:
    c.send(op=op, job=job, attempt=1, **more)


def phase(c: Client, job: int = 1) -> str:
    return str(c.list()[job, 1]["phase"])


def stands(path: Path) -> bool:
    """Nothing is added to it within a while that is long for one who counts."""
    before = path.stat().st_size
    signal.sigtimedwait([], 0.15)
    return path.stat().st_size == before


def counting(box: Box, *names: str) -> None:
    for name in names:
        wait_until(lambda n=name: (box.path / n).exists(), f"{name} counts")


# -- pause ----------------------------------------------------------------------------------------


def test_everything_stands_still_also_what_called_setsid(either_box: Box) -> None:
    box = either_box
    c = box.up()
    far = f"setsid sh -c '{COUNT.format('far')}' & (sh -c '{COUNT.format('orphan')}' &)"
    box.start(c, f"{far}; {COUNT.format('near')}")
    counting(box, "near", "far", "orphan")
    ask(c, "pause")
    assert phase(c) == "paused"
    for name in ("near", "far", "orphan"):
        wait_until(lambda n=name: stands(box.path / n), f"{name} stands still")
    ask(c, "pause")
    ask(c, "continue")
    assert phase(c) == "running"
    for name in ("near", "far", "orphan"):
        wait_until(lambda n=name: not stands(box.path / n), f"{name} goes on")
    ask(c, "continue")
    ask(c, "stop", grace_s=10)
    assert c.until("ended")["exit"] == {"signal": signal.SIGTERM}


def test_what_forks_all_the_time_is_stopped_whole(box: Box) -> None:
    c = box.up()
    box.start(c, "while :; do (echo >> log); done & while :; do (echo >> log); done; wait")
    counting(box, "log")
    ask(c, "pause")
    assert phase(c) == "paused"
    wait_until(lambda: stands(box.path / "log"), "nothing forks any more")


def test_a_stop_ends_a_pause(either_box: Box) -> None:
    box = either_box
    c = box.up()
    box.start(c, "trap 'echo bye; exit 6' TERM; echo $$ > pid; while :; do :; done")
    box.pid_from("pid")
    ask(c, "pause")
    ask(c, "stop", grace_s=30)
    ended = c.until("ended")
    assert (ended["exit"], ended["stopped"]) == ({"code": 6}, True)
    assert "bye" in box.log().read_text()


def test_a_paused_job_that_is_deaf_to_term_is_killed(either_box: Box) -> None:
    box = either_box
    c = box.up()
    box.start(c, "trap '' TERM; echo $$ > pid; while :; do :; done")
    box.pid_from("pid")
    ask(c, "pause")
    ask(c, "stop", grace_s=0.1)
    assert c.until("ended")["exit"] == {"signal": signal.SIGKILL}


def test_what_is_killed_while_paused_ends(either_box: Box) -> None:
    box = either_box
    c = box.up()
    pid = box.start(c, "exec sleep 1000")["pid"]
    ask(c, "pause")
    assert phase(c) == "paused"
    os.kill(pid, signal.SIGKILL)
    ended = c.until("ended")
    assert (ended["exit"], ended["stopped"]) == ({"signal": signal.SIGKILL}, False)


def test_the_time_limit_stands_still(either_box: Box) -> None:
    box = either_box
    c = box.up()
    pid = box.start(c, "exec sleep 1000", time_limit_s=0.6)["pid"]
    ask(c, "pause")
    assert phase(c) == "paused"
    signal.sigtimedwait([], 0.8)
    assert phase(c) == "paused"
    assert is_alive(pid)
    ask(c, "limit", time_limit_s=0.7)  # what is changed meanwhile, stands, too
    signal.sigtimedwait([], 0.1)
    assert phase(c) == "paused"
    ask(c, "continue")
    ended = c.until("ended")
    assert (ended["exit"], ended["timed_out"]) == ({"signal": signal.SIGTERM}, True)
    assert ended["at_ms"] - ended["started_at_ms"] >= 1400


@pytest.mark.parametrize("linger_s", [0.3, None])
def test_a_dead_shell_ends_a_pause_unless_the_rest_is_the_job(
    either_box: Box, linger_s: float | None
) -> None:
    box = either_box
    c = box.up()
    pid = box.start(c, "sleep 1000 & echo $! > pid; wait; echo", linger_s=linger_s)["pid"]
    left = box.pid_from("pid")
    ask(c, "pause")
    c.list()
    os.kill(pid, signal.SIGKILL)
    c.until("lingering")
    ask(c, "pause")  # as a daemon does that meets it again
    if linger_s is None:
        signal.sigtimedwait([], 0.3)
        assert phase(c) == "paused"
        assert is_alive(left)
        ask(c, "stop", grace_s=10)
    else:
        assert phase(c) == "lingering"
    ended = c.until("ended")
    assert ended["exit"] == {"signal": signal.SIGKILL}
    wait_gone(left)


def test_a_pause_outlives_the_daemon_and_the_runner(either_box: Box) -> None:
    box = either_box
    c = box.up()
    box.start(c, COUNT.format("near"), time_limit_s=2)
    counting(box, "near")
    ask(c, "pause")
    assert phase(c) == "paused"
    c.close()
    c = box.connect()
    assert c.hello["attempts"][0]["phase"] == "paused"
    box.kill_runner()
    assert [r["ev"] for r in box.records()] == ["starting", "started", "paused"]
    signal.sigtimedwait([], 2)
    c = box.up()
    assert c.hello["attempts"][0]["phase"] == "paused"
    assert stands(box.path / "near")
    before = (box.path / "near").stat().st_size
    ask(c, "continue")
    assert c.until("ended")["timed_out"] is True
    assert (box.path / "near").stat().st_size > before


def test_what_somebody_else_has_continued_is_stopped_by_the_next_runner(box: Box) -> None:
    c = box.up()
    pid = box.start(c, "exec sh -c '" + COUNT.format("near") + "'")["pid"]
    counting(box, "near")
    ask(c, "pause")
    c.list()
    box.kill_runner()
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not stands(box.path / "near"), "it goes on")
    box.up()
    wait_until(lambda: stands(box.path / "near"), "it stands still again")


def test_a_pause_and_its_end_are_of_use_to_the_next_runner(box: Box) -> None:
    """The time that it stood still does not count there, either."""
    c = box.up()
    box.start(c, "exec sleep 1000", time_limit_s=1)
    ask(c, "pause")
    c.list()
    signal.sigtimedwait([], 0.9)
    ask(c, "continue")
    c.list()
    box.kill_runner()
    ended = box.up().until("ended")
    assert ended["timed_out"] is True
    assert ended["at_ms"] - ended["started_at_ms"] >= 1800


def test_what_is_being_stopped_is_not_paused(box: Box) -> None:
    c = box.up()
    box.start(c, "trap '' TERM; echo $$ > pid; while :; do sleep 0.01; done")
    box.pid_from("pid")
    ask(c, "stop", grace_s=0.3)
    ask(c, "pause")
    assert phase(c) == "stopping"
    assert c.until("ended")["exit"] == {"signal": signal.SIGKILL}


def test_what_is_not_there_is_unknown_and_what_has_ended_says_so(box: Box) -> None:
    c = box.up()
    c.send(**box.job("exit 3"))
    ended = c.until("ended")
    for op, more in (("pause", {}), ("continue", {}), ("checkpoint", {"signal": 10})):
        ask(c, op, job=7, **more)
        assert c.until("unknown")["op"] == op
        ask(c, op, **more)
        assert c.until("ended") == ended


@pytest.mark.parametrize("number", [0, 65, -1, "USR1", None])
def test_a_signal_that_is_none_ends_the_connection_and_nothing_else(
    box: Box, number: object
) -> None:
    c = box.up()
    box.start(c, "exec sleep 1000")
    ask(c, "checkpoint", signal=number)
    assert "was not understood" in c.until("refused")["why"]
    assert box.connect().hello["attempts"][0]["phase"] == "running"


# -- checkpoint -----------------------------------------------------------------------------------


@pytest.mark.parametrize("paused", [False, True])
def test_it_saves_and_leaves(either_box: Box, paused: bool) -> None:
    box = either_box
    c = box.up()
    box.start(c, SAVES.format(0))
    box.pid_from("pid")
    if paused:
        ask(c, "pause")
        assert phase(c) == "paused"
    ask(c, "checkpoint", signal=signal.SIGUSR1, grace_s=60)
    ended = c.until("ended")
    assert (box.path / "saved").read_text() == "saved\n"
    assert (ended["stopped"], ended["timed_out"], ended["killed"]) == (True, False, [])
    assert ended["exit"] == {"code": 0}  # of the shell, which has gone on: it got no signal
    assert box.log().read_text() == "not here\n"


def test_who_does_not_catch_the_signal_is_spared_while_another_saves(either_box: Box) -> None:
    """The worker of a data loader, without which there is nothing to save."""
    box = either_box
    c = box.up()
    saver = (
        "import os, signal, subprocess\n"
        "worker = subprocess.Popen(['sleep', '1000'])\n"
        "def save(*_):\n"
        "    open('worker', 'w').write(str(worker.poll()))\n"
        "    worker.kill()\n"
        "    raise SystemExit(7)\n"
        "signal.signal(signal.SIGUSR1, save)\n"
        "open('pid', 'w').write(str(os.getpid()))\n"
        "while True: signal.pause()\n"
    )
    (box.path / "saver.py").write_text(saver)
    box.start(c, "exec python3 saver.py")
    box.pid_from("pid")
    ask(c, "checkpoint", signal=signal.SIGUSR1, grace_s=60)
    assert c.until("ended")["exit"] == {"code": 7}
    assert (box.path / "worker").read_text() == "None"


def test_where_nobody_catches_it_all_get_it(either_box: Box) -> None:
    box = either_box
    c = box.up()
    box.start(c, "sleep 1000; echo not here")
    ask(c, "checkpoint", signal=signal.SIGUSR1, grace_s=60)
    ended = c.until("ended")
    assert (ended["exit"], ended["stopped"]) == ({"signal": signal.SIGUSR1}, True)


def test_who_waits_for_the_signal_without_a_handler_gets_it(box: Box) -> None:
    c = box.up()
    waits = (
        "import signal; s = {signal.SIGUSR2}; signal.pthread_sigmask(signal.SIG_BLOCK, s); "
        "open('pid', 'w').write('1'); signal.sigwait(s); raise SystemExit(4)"
    )
    box.start(c, f'exec python3 -c "{waits}"')
    box.pid_from("pid")
    ask(c, "checkpoint", signal=signal.SIGUSR2, grace_s=60)
    assert c.until("ended")["exit"] == {"code": 4}


def test_who_does_not_leave_gets_term_after_the_grace_and_kill_after_another(box: Box) -> None:
    c = box.up()
    deaf = "trap 'echo usr1' USR1; trap 'echo term' TERM; echo $$ > pid; "
    box.start(c, deaf + "while :; do sleep 0.01; done")
    box.pid_from("pid")
    ask(c, "checkpoint", signal=signal.SIGUSR1, grace_s=0.4)
    assert phase(c) == "checkpointing"
    ended = c.until("ended")
    assert (ended["exit"], ended["stopped"]) == ({"signal": signal.SIGKILL}, True)
    heard = [word for word in box.log().read_text().split() if word.islower()]
    assert heard == ["usr1", "term"]


def test_what_the_shell_leaves_has_all_of_the_grace(either_box: Box) -> None:
    box = either_box
    c = box.up()
    saver = 'trap "sleep 0.5; echo saved > saved; exit" USR1; echo $$ > pid; '
    script = f"sh -c '{saver} while :; do sleep 0.01; done' & trap 'exit 3' USR1; wait"
    box.start(c, script, linger_s=0)
    box.pid_from("pid")
    ask(c, "checkpoint", signal=signal.SIGUSR1, grace_s=60)
    ended = c.until("ended")
    assert (ended["exit"], ended["killed"]) == ({"code": 3}, [])
    assert (box.path / "saved").exists()


def test_a_signal_is_sent_once_and_the_grace_only_gets_shorter(box: Box) -> None:
    c = box.up()
    box.start(c, "trap 'echo usr1' USR1; echo $$ > pid; while :; do sleep 0.01; done")
    box.pid_from("pid")
    for grace_s in (1000, 2000, 0.1):
        ask(c, "checkpoint", signal=signal.SIGUSR1, grace_s=grace_s)
    assert c.until("ended")["exit"] == {"signal": signal.SIGTERM}
    assert box.log().read_text() == "usr1\n"


def test_a_stop_goes_before_a_checkpoint(box: Box) -> None:
    c = box.up()
    box.start(c, "trap '' USR1; trap 'exit 5' TERM; echo $$ > pid; while :; do sleep 0.01; done")
    box.pid_from("pid")
    ask(c, "checkpoint", signal=signal.SIGUSR1, grace_s=1000)
    ask(c, "stop", grace_s=1000)
    assert c.until("ended")["exit"] == {"code": 5}


def test_a_checkpoint_goes_on_when_the_daemon_and_the_runner_die(either_box: Box) -> None:
    box = either_box
    c = box.up()
    deaf = "trap 'echo usr1' USR1; echo $$ > pid; while :; do sleep 0.01; done"
    pid = box.start(c, deaf)["pid"]
    box.pid_from("pid")
    ask(c, "checkpoint", signal=signal.SIGUSR1, grace_s=0.5)
    c.list()
    box.kill_runner()
    c = box.up()
    ended = c.until("ended")
    wait_gone(pid)
    assert ended["stopped"] is True
    assert ended["exit"] == {"lost": "the runner died while it ran"}
    assert box.log().read_text() == "usr1\n"


@pytest.mark.parametrize(("linger_s", "asked"), [(0.2, False), (None, True)])
def test_a_shell_that_has_ended_has_ended_unless_the_rest_is_the_job(
    box: Box, linger_s: float | None, asked: bool
) -> None:
    c = box.up()
    rest = 'trap "echo saved > saved; exit" USR1; echo $$ > pid; while :; do sleep 0.01; done'
    box.start(c, f"setsid sh -c '{rest}' & exit 0", linger_s=linger_s)
    box.pid_from("pid")
    c.until("lingering")
    ask(c, "checkpoint", signal=signal.SIGUSR1, grace_s=60)
    ended = c.until("ended")
    assert (ended["exit"], ended["stopped"]) == ({"code": 0}, asked)
    assert (box.path / "saved").exists() is asked

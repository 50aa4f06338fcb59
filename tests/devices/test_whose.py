"""Whose a process is, with real processes: shells in sessions of their own, as jobs have them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpud.core.sight import GpuProcess
from gpud.devices import whose
from gpud.devices.whose import Use, Whose, blindness

GPU = "GPU-0"
KEY = (7, 2)


def use(pid: int) -> Use:
    return Use(pid, 500, None, True)


def key_of(
    who: Whose, pid: int, attempts: dict[int, tuple[int, int]], runners: tuple[int, ...] = ()
) -> tuple[int, int] | None:
    who.begin(attempts, runners, blind=False)
    found = who.of(GPU, use(pid))
    return None if found is None else (found.job, found.attempt)


class Family:
    """A shell in a session of its own that starts whatever it is told to; all end with the test."""

    def __init__(self) -> None:
        self.shell = subprocess.Popen(
            ["/bin/sh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.pids = [self.shell.pid]

    def start(self, command: str) -> int:
        """A line for the shell that prints a pid."""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        self.shell.stdin.write(command.encode() + b"\n")
        self.shell.stdin.flush()
        self.pids.append(int(self.shell.stdout.readline()))
        return self.pids[-1]

    def end(self) -> None:
        for pid in reversed(self.pids):
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass
        with self.shell:
            pass


@pytest.fixture
def family() -> Iterator[Family]:
    made = Family()
    yield made
    made.end()


CHILD = "sleep 600 & echo $!"
ORPHAN = "(sleep 600 & echo $!)"  # its parent ends at once
STRAY = "setsid sh -c 'echo $$; exec sleep 600' &"  # in a session of its own


def test_a_shell_its_children_and_its_orphans_are_the_attempts(family: Family) -> None:
    shell = family.shell.pid
    for pid in (shell, family.start(CHILD), family.start(ORPHAN), family.start(STRAY)):
        assert key_of(Whose(), pid, {shell: KEY}) == KEY


def test_a_process_of_nobody_we_know_is_a_strangers(family: Family) -> None:
    assert key_of(Whose(), family.start(CHILD), {1: KEY}, (2,)) == (0, 0)


def test_one_below_a_runner_is_whose_its_environment_says(family: Family) -> None:
    runner = family.shell.pid  # as though it were one, and its shell had ended
    says = "GPUD_JOB_ID=7 GPUD_ATTEMPT=2 "
    named, silent = family.start(says + STRAY), family.start(STRAY)
    old = family.start(says.replace("7", "6") + STRAY)
    live = {4_000_000: KEY}
    assert key_of(Whose(), named, live, (runner,)) == KEY
    assert key_of(Whose(), old, live, (runner,)) == (-1, 0)  # of no attempt that lives
    assert key_of(Whose(), silent, live, (runner,)) == (-1, 0)


@pytest.mark.parametrize("says", ["GPUD_JOB_ID=x GPUD_ATTEMPT=2 ", "GPUD_JOB_ID=7 "])
def test_an_environment_that_makes_no_sense_is_of_no_use(family: Family, says: str) -> None:
    pid = family.start(says + STRAY)
    assert key_of(Whose(), pid, {4_000_000: KEY}, (family.shell.pid,)) == (-1, 0)


def test_it_remembers_whose_a_process_was(family: Family) -> None:
    who, shell = Whose(), family.shell.pid
    pid = family.start(STRAY)
    assert key_of(who, pid, {shell: KEY}) == KEY
    # Its ancestors have ended, the attempt lives; then that too is over.
    assert key_of(who, pid, {4_000_000: KEY}) == KEY
    assert key_of(who, pid, {4_000_000: (8, 1)}) == (0, 0)


def test_a_process_that_is_gone_is_left_out_until_the_driver_insists() -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    who = Whose()
    assert key_of(who, process.pid, {}) is None
    who.begin({}, (), blind=False)
    assert who.of("GPU-1", use(process.pid)) is None  # on another GPU it is news
    assert who.of(GPU, use(process.pid)) == GpuProcess(process.pid, "", "", 500)
    who.begin({}, (), blind=False)
    who.begin({}, (), blind=False)
    assert who.of(GPU, use(process.pid)) is None


def test_a_process_that_proc_hides_is_shown_without_a_name(tmp_path: Path) -> None:
    """hidepid=2: there is no directory, and kill(2) still knows better."""
    who = Whose(proc=str(tmp_path))
    who.begin({os.getpid(): KEY}, (), blind=False)
    assert who.of(GPU, use(os.getpid())) == GpuProcess(os.getpid(), "", "", 500)


def test_blind_nothing_is_looked_up() -> None:
    who = Whose()
    who.begin({os.getpid(): KEY}, (), blind=True)
    assert who.of(GPU, use(os.getpid())) == GpuProcess(os.getpid(), "", "", 500)


@pytest.mark.parametrize("name", ["nvidia-cuda-mps-server", "a name) with (blanks", "short"])
def test_it_says_what_a_process_is_called_and_whose_it_is(tmp_path: Path, name: str) -> None:
    """The kernel cuts a name after 15 characters."""
    program = tmp_path / name
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "600"]) as process:
        who = Whose()
        who.begin({}, (), blind=False)
        found = who.of(GPU, use(process.pid))
        process.kill()
    assert found is not None
    assert (found.name, found.user) == (name, pwd.getpwuid(os.getuid()).pw_name)


def test_a_user_without_a_name_is_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_process(tmp_path, 99, uid=54321)
    who = Whose(proc=str(tmp_path))
    who.begin({}, (), blind=False)
    found = who.of(GPU, use(99))
    assert found == GpuProcess(99, "python", "54321", 500)


def test_a_directory_of_users_that_hangs_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()

    def slow(uid: int) -> None:
        answered.wait(30)
        raise KeyError

    monkeypatch.setattr(whose.pwd, "getpwuid", slow)
    monkeypatch.setattr(whose, "NAME_WAIT_S", 0.01)
    make_process(tmp_path, 99, uid=0)
    who = Whose(proc=str(tmp_path))
    who.begin({}, (), blind=False)
    found = who.of(GPU, use(99))
    answered.set()
    assert found is not None
    assert found.user == "0"


def test_where_it_is_blind(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("Linux version 5.15.90.1-microsoft-standard-WSL2")
    assert blindness(str(tmp_path)) == "this is WSL, where the driver lists no processes"
    (tmp_path / "version").write_text("Linux version 6.1.0")
    assert blindness(str(tmp_path)) == "/proc cannot be read"
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/pid").touch()
    assert blindness(str(tmp_path)).startswith("this is a container")


def make_process(proc: Path, pid: int, uid: int) -> None:
    (proc / str(pid)).mkdir()
    fields = " ".join(["S", "1", str(pid), str(pid), *["0"] * 20])
    (proc / str(pid) / "stat").write_text(f"{pid} (python) {fields}\n")
    (proc / str(pid) / "comm").write_text("python\n")
    (proc / str(pid) / "status").write_text(f"Name:\tpython\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")

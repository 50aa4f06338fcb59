"""`gpud run`: what simple_gpu_scheduler does, and none of its faults."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Box


def run(box: Box, commands: str, *args: str, gpus: str = "0,1") -> tuple[int, str, str]:
    done = box.gpud(
        "run", "--gpus", *gpus.split(" "), "--state-dir", str(box.state), *args, input=commands
    )
    return done.returncode, done.stdout, done.stderr


def test_commands_run_and_a_table_says_how_it_went(box: Box) -> None:
    status, out, err = run(box, "echo one\necho two | tr a-z A-Z\n\n# nothing\n")
    assert (status, sorted(out.split())) == (0, ["TWO", "one"])
    assert "2 jobs: 2 succeeded" in err


def test_a_failed_job_counts(box: Box) -> None:
    status, _, err = run(box, "exit 3\ntrue\nkill -9 $$\n")
    assert status == 1
    assert "3 jobs: 1 succeeded, 1 failed, 1 killed" in err
    assert "failed 3" in err
    assert "killed SIGKILL" in err


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ("0 1 2", {"0", "1", "2"}),
        ("0,1,2", {"0", "1", "2"}),
        ("0,1 2", {"0,1", "2"}),
    ],
)
def test_forms_of_gpu_ids(box: Box, gpus: str, expected: set[str]) -> None:
    gates = [box.home / f"gate-{ids}" for ids in expected]
    for gate in gates:
        os.mkfifo(gate)
    line = f"echo $CUDA_VISIBLE_DEVICES; read x < {box.home}/gate-$CUDA_VISIBLE_DEVICES\n"
    process = box.start_run("--gpus", *gpus.split(" "))
    assert process.stdin is not None
    process.stdin.write(line.encode() * len(expected))
    process.stdin.close()
    process.stdin = None
    opened = [gate.open("w") for gate in gates]  # all of them run at once
    for gate_file in opened:
        gate_file.write("go\n")
        gate_file.close()
    out, _ = process.communicate(timeout=30)
    assert set(out.decode().split()) == expected


def test_the_same_id_twice_means_two_jobs_share_it(box: Box) -> None:
    here, there = box.home / "here", box.home / "there"
    os.mkfifo(here)
    os.mkfifo(there)
    # each writes to the other: it only works when both run at the same time
    lines = f"echo a > {here}; cat {there}\ncat {here}; echo b > {there}\n"
    status, out, _ = run(box, lines, gpus="0 0")
    assert (status, sorted(out.split())) == (0, ["a", "b"])


def test_start_order_is_input_order(box: Box) -> None:
    status, out, _ = run(box, "".join(f"echo {n}\n" for n in range(20)), gpus="0")
    assert status == 0
    assert out.split() == [str(n) for n in range(20)]


def test_a_job_does_not_eat_the_queue(box: Box) -> None:
    status, out, _ = run(box, "cat\necho after\nssh_like() { read x; }; ssh_like\n", gpus="0")
    assert out.split() == ["after"]
    assert status == 1  # the read found nothing


def test_a_command_that_cannot_start_frees_its_slot(box: Box) -> None:
    commands = b"echo a\0b\n" + b"echo " + b"x" * 200_000 + b"\necho last\n"
    process = box.start_run("--gpus", "0")
    out, err = process.communicate(commands, timeout=30)
    assert process.returncode == 1
    assert b"NUL" in err
    assert out.endswith(b"last\n")
    assert len(out) > 200_000


def test_a_child_that_outlives_its_shell_keeps_the_slot(box: Box) -> None:
    mark = box.home / "mark"
    lines = f"(sleep 0.5; echo child >> {mark}) & true\necho second >> {mark}\n"
    status, _, _ = run(box, lines, gpus="0")
    assert status == 0
    assert mark.read_text().split() == ["child", "second"]


def test_output_with_the_jobs_id_before_each_line(box: Box) -> None:
    _, out, _ = run(box, "echo a; echo b\n", "--prefix")
    assert out == "[1] a\n[1] b\n"


def test_output_is_kept_per_job(box: Box) -> None:
    run(box, "echo kept\n")
    [log] = box.state.glob("runs/*/logs/*/1.1.log")
    assert log.read_text() == "kept\n"


def test_retries_with_their_own_arguments(box: Box) -> None:
    script = box.home / "try.sh"
    script.write_text('echo "args: $*"; [ "$1" = --resume ]\n')
    status, out, err = run(
        box, f"sh {script}\n", "--retries", "2", "--retry-args=--resume", "--backoff", "0"
    )
    assert status == 0
    assert out.splitlines() == ["args: ", "args: --resume"]
    assert "1 job: 1 succeeded" in err


def test_the_first_interrupt_lets_jobs_finish_and_keeps_the_rest(box: Box) -> None:
    mark = box.home / "mark"
    gate = box.home / "gate"
    os.mkfifo(gate)
    process = box.start_run("--gpus", "0")
    assert process.stdin is not None
    process.stdin.write(f"read x < {gate}; echo 1 >> {mark}\necho 2 >> {mark}\n".encode())
    process.stdin.flush()
    with gate.open("w") as opened:  # the first job runs: it has opened the gate
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        seen = b""
        while b"no more starts" not in seen:
            seen += os.read(process.stderr.fileno(), 4096)
        opened.write("go\n")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert mark.read_text().split() == ["1"]
    assert b"--resume" in err
    [kept] = (box.state / "runs").iterdir()
    status, _, err2 = run(box, "", "--resume", kept.name, gpus="0")
    assert status == 0, err2
    assert mark.read_text().split() == ["1", "2"]


def test_the_second_interrupt_stops_running_jobs_with_their_children(box: Box) -> None:
    pids = box.home / "pids"
    process = box.start_run("--gpus", "0")
    assert process.stdin is not None
    process.stdin.write(f"setsid sleep 600 & echo $! >> {pids}; sleep 600\n".encode())
    process.stdin.close()
    process.stdin = None
    box.until("the job runs", lambda: pids.exists() and bool(pids.read_text().split()))
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    seen = b""
    while b"no more starts" not in seen:
        seen += os.read(process.stderr.fileno(), 4096)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 1
    assert not Path(f"/proc/{pids.read_text().split()[0]}").exists()


def test_kill_9_of_a_run_and_resume_goes_on(box: Box) -> None:
    mark = box.home / "mark"
    gate = box.home / "gate"
    os.mkfifo(gate)
    process = box.start_run("--gpus", "0")
    assert process.stdin is not None
    process.stdin.write(f"read x < {gate}; echo 1 >> {mark}\necho 2 >> {mark}\n".encode())
    process.stdin.flush()
    with gate.open("w") as opened:
        box.kill(process)
        opened.write("go\n")
    [kept] = (box.state / "runs").iterdir()
    status, _, err = run(box, "", "--resume", kept.name, gpus="0")
    assert status == 0, err
    assert mark.read_text().split() == ["1", "2"]


def test_runs_go_side_by_side(box: Box) -> None:
    processes = [box.start_run("--gpus", "0") for _ in range(3)]
    for process in processes:
        out, _ = process.communicate(b"echo hi\n" * 5, timeout=30)
        assert (process.returncode, out.split()) == (0, [b"hi"] * 5)


def test_a_growing_pipe_is_a_queue(box: Box) -> None:
    queue = box.home / "gpu.queue"
    mark = box.home / "mark"
    queue.touch()
    read_end, write_end = os.pipe()
    process = box.start_run("--gpus", "0", stdin=read_end)
    os.close(read_end)
    os.write(write_end, f"echo 1 >> {mark}\n".encode())
    box.until("the first ran", lambda: mark.exists() and mark.read_text().split() == ["1"])
    os.write(write_end, f"echo 2 >> {mark}\n".encode())
    box.until("the second ran", lambda: mark.read_text().split() == ["1", "2"])
    os.close(write_end)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_interrupts_work_while_nothing_can_be_written(box: Box) -> None:
    """The database is taken away, which fails every commit at once, as a full disk would."""
    pid_file = box.home / "pid"
    process = box.start_run("--gpus", "0")
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(f"echo $$ > {pid_file}; sleep 600\necho second\n".encode())
    process.stdin.close()
    process.stdin = None
    box.until("the job runs", lambda: pid_file.exists() and bool(pid_file.read_text().strip()))
    [database] = box.state.glob("runs/*/gpud.db")
    database.rename(database.with_suffix(".away"))
    process.send_signal(signal.SIGINT)
    said = b""
    while b"cannot write" not in said:
        said += os.read(process.stderr.fileno(), 4096)
    process.send_signal(signal.SIGINT)
    pid = pid_file.read_text().strip()
    box.until("the job is stopped", lambda: not Path(f"/proc/{pid}").exists())
    database.with_suffix(".away").rename(database)
    _, err = process.communicate(timeout=40)
    assert process.returncode == 1
    assert b"Traceback" not in said + err
    assert b"1 not run" in err
    assert b"--resume" in err

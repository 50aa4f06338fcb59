"""Bad input gets one clear sentence and the right exit status, and nothing is lost."""

from __future__ import annotations

import os
import socket
import sqlite3
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Box

ROOT = os.geteuid() == 0


def sentence(stderr: str, *words: str) -> None:
    """One sentence that says what cannot be done, with these words, and no traceback."""
    assert "Traceback" not in stderr, stderr
    first = stderr.splitlines()[0]
    assert "cannot" in first or "error:" in stderr, stderr
    for word in words:
        assert word in stderr, (word, stderr)


# -- gpuctl ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["sumbit", "true"], 2, ["sumbit", "submit"]),
        (["show", "99"], 3, ["99"]),
        (["cancel", "99"], 3, ["99"]),
        (["ls", "state:purple"], 2, ["purple"]),
        (["ls", "9-3"], 2, ["9-3"]),
        (["ls", "nonsense"], 2, ["nonsense"]),
        (["wait", "99"], 253, ["99"]),
        (["source", "stop", "nope"], 3, ["nope"]),
        (["submit", "--gpus", "4", "true"], 1, ["needs 4 GPUs, this machine has 2"]),
        (["submit", "--gpus", "x", "true"], 2, ["x"]),
        (["submit", "--cwd", "relative/x", "--time-limit", "soon", "true"], 2, ["soon"]),
        (["submit", "--checkpoint", "SIGKILL", "true"], 2, ["SIGKILL", "a program can catch"]),
        (["pause", "99"], 3, ["cannot pause job 99: no such job"]),
        (["continue", "name:x"], 3, ['cannot continue "name:x"']),
        (["checkpoint", "99", "--grace", "soon"], 2, ["soon"]),
        (["submit"], 2, []),
        (["submit", ""], 2, ["empty"]),
        (["submit", "-", "--name", "x"], 2, ["options go before -"]),
        (["submit", "sleep 1", "sleep 2"], 2, ["several words are one program"]),
        (["logs", "99"], 3, ["cannot show the log of job 99: no such job"]),
        (["cancel", "name:x"], 3, ['cannot cancel "name:x"']),
    ],
)
def test_gpuctl(box: Box, args: list[str], status: int, words: list[str]) -> None:
    box.serve()
    done = box.ctl(*args, check=False)
    assert done.returncode == status, done
    sentence(done.stderr, *words)


def test_nobody_listens(box: Box) -> None:
    done = box.ctl("ls", check=False)
    assert done.returncode == 4
    sentence(done.stderr, "cannot reach gpud", "gpud serve")
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(box.socket))
    stale.close()
    done = box.ctl("submit", "true", check=False)
    assert done.returncode == 4
    sentence(done.stderr, "cannot reach gpud")


@pytest.mark.skipif(not ROOT, reason="to be another user needs root")
def test_a_socket_of_another_user(box: Box) -> None:
    box.serve()
    for directory in (box.home, *box.home.parents):
        if directory.stat().st_uid == os.geteuid() and str(directory).startswith("/tmp/"):
            directory.chmod(0o755)
    source = "import socket,sys;s=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1])"
    import subprocess

    refused = subprocess.run(
        ["/usr/bin/python3", "-c", source, str(box.socket)],
        user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "PermissionError" in refused.stderr


# -- gpud run -------------------------------------------------------------------------------


@pytest.mark.parametrize("gpus", ["", "0,", "0,,1", "0,0 0"])
def test_bad_gpu_ids(box: Box, gpus: str) -> None:
    done = box.gpud("run", "--gpus", *gpus.split(" "), input="true\n")
    assert done.returncode == 2
    sentence(done.stderr, "--gpus")


def test_unknown_verb_and_option(box: Box) -> None:
    done = box.gpud("srve")
    assert done.returncode == 2
    sentence(done.stderr, "serve")
    assert box.gpud("serve", "--gpu-count", "3").returncode == 2


def test_a_run_that_does_not_exist(box: Box) -> None:
    done = box.gpud("run", "--gpus", "0", "--state-dir", str(box.state), "--resume", "nope")
    assert done.returncode == 3
    sentence(done.stderr, "nope")


def test_a_working_directory_that_is_gone(box: Box) -> None:
    box.serve()
    place = box.home / "gone"
    place.mkdir()
    box.ctl("drain")
    [job] = box.submit("true", cwd=place)
    place.rmdir()
    box.ctl("undrain")
    assert box.ctl("wait", str(job), check=False).returncode == 127
    found = box.job(job)
    assert found["outcome"] == "not-started"
    assert str(place) in found["why"]
    [after] = box.submit("true")
    box.ctl("wait", str(after))


def test_a_log_that_cannot_be_created(box: Box) -> None:
    box.serve()
    (box.state / "logs").write_text("a file is in the way")
    [job] = box.submit("true")
    assert box.ctl("wait", str(job), check=False).returncode == 127
    assert "log" in box.job(job)["why"]


def test_long_and_strange_commands(box: Box) -> None:
    box.serve()
    box.ctl("submit", "-", input="echo " + "x" * 300_000 + "\n")
    assert box.ctl("wait", "@").returncode == 0
    assert len(box.ctl("logs", "@").stdout) == 300_001
    done = box.ctl("submit", "-", input="echo " + "x" * 2_000_000 + "\n", check=False)
    assert done.returncode == 2
    sentence(done.stderr, "cannot")
    latin = "printf 'caf\udce9'"
    box.ctl("submit", latin)
    box.ctl("wait", "@")
    log = Path(box.show(2)["attempts"][0]["log"])
    assert log.read_bytes() == b"caf\xe9"


# -- gpud serve -----------------------------------------------------------------------------


def test_a_second_daemon_on_the_same_state(box: Box) -> None:
    box.serve()
    done = box.gpud(
        "serve", "--gpus", "0", "--state-dir", str(box.state), "--socket", str(box.home / "s2")
    )
    assert done.returncode == 1
    sentence(done.stderr, "another gpud", "pid")


def test_a_database_that_is_newer_or_damaged_is_not_touched(box: Box) -> None:
    box.stop(box.serve())
    database = box.state / "gpud.db"
    db = sqlite3.connect(database)
    db.execute("PRAGMA user_version = 999")
    db.commit()
    db.close()
    before = database.read_bytes()
    done = box.gpud("serve", "--gpus", "0", "--state-dir", str(box.state))
    assert done.returncode == 1
    sentence(done.stderr, "newer")
    assert database.read_bytes() == before
    database.write_bytes(b"this is no database " * 500)
    before = database.read_bytes()
    done = box.gpud("serve", "--gpus", "0", "--state-dir", str(box.state))
    assert done.returncode == 1
    sentence(done.stderr, str(database))
    assert database.read_bytes() == before


def test_a_state_directory_that_is_a_file(box: Box) -> None:
    box.state.write_text("x")
    done = box.gpud("serve", "--gpus", "0", "--state-dir", str(box.state))
    assert done.returncode == 1
    sentence(done.stderr, str(box.state))


def test_a_configuration_with_many_mistakes(box: Box) -> None:
    config = box.home / "gpud.toml"
    config.write_text(
        '[pol]\ngpus = [0]\n[defaults]\nretires = 3\n[source.q]\ntype = "queue-file"\npaht = "x"\n'
    )
    for verb in (["check"], ["serve"]):
        done = box.gpud(*verb, "--config", str(config))
        assert done.returncode == 78
        for word in ("pol", "retires", "retries", "paht", "path"):
            assert word in done.stderr, (verb, word, done.stderr)
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("what", ["directory", "missing"])
def test_a_queue_file_that_cannot_be_read(box: Box, what: str) -> None:
    config = box.home / "gpud.toml"
    config.write_text('[pool]\ngpus = [0]\n[source.q]\ntype = "queue-file"\npath = "gpu.queue"\n')
    queue = box.home / "gpu.queue"
    if what == "directory":
        queue.mkdir()
    box.serve("--config", str(config), gpus="")
    if what == "directory":
        box.until("it says so", lambda: "gpu.queue" in box.ctl("status").stdout)
        queue.rmdir()
    queue.write_text("touch here\n")
    box.until("the job runs", (box.home / "here").exists)
    [job] = box.submit("true")  # and the rest of gpud does not care
    box.ctl("wait", str(job))

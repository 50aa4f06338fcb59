"""Groups, labels, windows and fair share: the installed commands, and no waiting for clocks."""

from __future__ import annotations

import json
import os
import pwd
from datetime import datetime, timedelta
from pathlib import Path

from tests.end_to_end.conftest import Box

ME = pwd.getpwuid(os.geteuid()).pw_name


def gate(box: Box) -> Path:
    path = box.home / "gate"
    os.mkfifo(path)
    return path


def states(box: Box, *jobs: int) -> list[str]:
    return [box.job(job)["outcome"] or box.job(job)["state"] for job in jobs]


def why(box: Box, job: int) -> str:
    """Its first line; when the job starts is in test_when.py."""
    return str(box.ctl("why", str(job)).stdout.splitlines()[0])


def configure(box: Box, text: str) -> Path:
    path = box.home / "gpud.toml"
    path.write_text(text)
    return path


def far_away() -> str:
    """A window that is closed for hours to come."""
    now = datetime.now().astimezone()
    begin, end = now + timedelta(hours=5), now + timedelta(hours=6)
    return f"{begin:%H:%M}-{end:%H:%M}"


def test_a_limit_of_a_group_is_said_and_stays_said(box: Box) -> None:
    daemon = box.serve(gpus="0 1 2")
    hold = gate(box)
    box.ctl("group", "lr", "--limit", "2")
    jobs = [box.submit("--group", "lr", "-l", f"n={n}", f"read x < {hold}")[0] for n in range(3)]
    [other] = box.submit("true")
    box.ctl("wait", str(other))
    assert why(box, jobs[2]) == "waits for a place in group lr: 2 of 2 run"
    box.kill(daemon)
    box.serve(gpus="0 1 2")
    assert why(box, jobs[2]) == "waits for a place in group lr: 2 of 2 run"
    [group] = json.loads(box.ctl("groups", "--json").stdout)["groups"]
    assert (group["limit"], group["running"], group["waiting"]) == (2, 2, 1)
    box.ctl("group", "lr", "--limit", "none")
    opened = os.open(hold, os.O_RDWR)  # also for one that comes to it later
    os.write(opened, b"go\n" * 3)
    box.ctl("wait", "group:lr", check=False)
    os.close(opened)
    assert [one["id"] for one in json.loads(box.ctl("ls", "label:n=1", "--json").stdout)["jobs"]]
    assert box.job(jobs[1])["labels"] == {"n": "1"}
    told = box.ctl("show", str(jobs[1])).stdout
    assert "group       lr\nlabels      n=1\n" in told


def test_after_so_many_fails_the_rest_is_held_until_it_is_released(box: Box) -> None:
    config = configure(box, "[groups.lr]\nmax_fails = 2\n")
    daemon = box.serve("--config", str(config), gpus="0")
    lines = "".join(f"#gpud: group=lr label=n={n}\nexit {n % 2}\n" for n in (1, 0, 1, 0, 1))
    jobs = box.submit("-", input=lines)
    box.ctl("wait", *map(str, jobs[:3]), check=False)
    held = "held since 2 jobs of group lr failed: gpuctl release group:lr"
    assert [why(box, job) for job in jobs[3:]] == [held, held]
    box.kill(daemon)
    box.serve("--config", str(config), gpus="0")
    assert why(box, jobs[4]) == held
    late = box.ctl("submit", "--group", "lr", "true")
    assert held in late.stderr
    [last] = map(int, late.stdout.split())
    assert states(box, last) == ["held"]
    box.ctl("release", "group:lr", "--yes")
    box.ctl("wait", str(last), check=False)
    assert states(box, *jobs, last) == [
        "failed", "succeeded", "failed", "succeeded", "failed", "succeeded",
    ]  # fmt: skip
    row = box.ctl("groups").stdout.splitlines()[1].split()
    assert row[:1] == ["lr"]
    assert row[-4:] == ["1", "of", "2", "-"]


def test_jobs_of_a_source_and_of_a_gpu_wait_for_their_window(box: Box) -> None:
    queue = box.home / "gpu.queue"
    queue.write_text("true\n")
    source = f'[source.nightly]\ntype = "queue-file"\npath = "{queue}"\n'
    closed = far_away()
    window = f'[windows]\nnights = "{closed}"\n'
    text = f'{window}[pool]\nwindows = {{ 1 = "nights" }}\n{source}window = "nights"\n'
    config = configure(box, text)
    box.serve("--config", str(config))
    box.until("the line is read", lambda: "1" in box.ctl("ls", "--json").stdout)
    [job] = [one["id"] for one in json.loads(box.ctl("ls", "--json").stdout)["jobs"]]
    assert why(box, job).startswith("waits for the window nights, which opens ")
    hold = gate(box)
    [first] = box.submit("--gpus", "1", f"read x < {hold}")
    [second] = box.submit("--gpus", "1", "true")
    assert "GPU 1 takes no work: outside the window nights, which opens" in why(box, second)
    assert "outside the window nights" in box.ctl("gpus").stdout
    configure(box, text.replace(closed, "all day"))
    changes = box.ctl("reload").stdout
    assert "[windows] has changed" in changes
    box.ctl("wait", str(job), str(second))
    hold.write_text("go\n")
    box.ctl("wait", str(first))


def test_a_bad_configuration_changes_nothing(box: Box) -> None:
    config = configure(box, "[groups.lr]\nlimit = 0\n")
    box.serve("--config", str(config))
    [job] = box.submit("--group", "lr", "true")
    assert why(box, job) == "waits: group lr may have no job running (its limit is 0)"
    configure(box, '[groups.lr]\nlimt = 1\nwindow = "nights"\n')
    done = box.ctl("reload", check=False)
    assert done.returncode == 1
    assert "unknown key groups.lr.limt: did you mean limit?" in done.stderr
    assert states(box, job) == ["queued"]
    configure(box, "[groups.lr]\nlimit = 1\n")
    assert "[groups] has changed" in box.ctl("reload").stdout
    box.ctl("wait", str(job))


def test_users_have_limits_and_are_counted(box: Box) -> None:
    nobody = "[users.no-such-user]\nlimit = 9\n"
    text = f'[users.{ME}]\nlimit = 1\n{nobody}[fair_share]\nhalf_life_s = "7d"\n'
    config = configure(box, text)
    daemon = box.serve("--config", str(config))
    noted = "users.no-such-user has no effect: this machine knows no such user"
    assert noted in json.loads(box.ctl("status", "--json").stdout)["problems"]
    hold = gate(box)
    first, second = (box.submit(f"read x < {hold}")[0] for _ in range(2))
    assert why(box, second) == f"waits: user {ME} has 1 of 1 running"
    box.kill(daemon)
    box.serve("--config", str(config))
    hold.write_text("go\n")
    box.ctl("wait", str(first))
    [user] = json.loads(box.ctl("users", "--json").stdout)["users"]
    assert (user["user"], user["limit"], user["running"]) == (ME, 1, 1)
    assert user["used_s"] > 0
    assert box.ctl("users").stdout.split()[:2] == ["USER", "RUNNING"]
    box.ctl("cancel", f"user:{ME}", "--yes")


def test_bad_words_get_one_sentence(box: Box) -> None:
    box.serve()
    for words, said in [
        (["submit", "-l", "sweep", "true"], '-l "sweep": a label is KEY=VALUE'),
        (["submit", "--group", "a b", "true"], '--group "a b": a group has letters'),
        (["group", "lr", "--limit", "many"], '"many": write a number, none, or default'),
        (["group"], "NAME is missing"),
        (["ls", "label:x"], 'cannot select "label:x": a label is KEY=VALUE'),
        (["ls", "user:no-such-user"], "this machine knows no such user"),
        (["release", "group:none"], 'cannot release "group:none": no job is in this group'),
    ]:
        done = box.ctl(*words, check=False)
        assert done.returncode in (2, 3), words
        assert said in done.stderr, (words, done.stderr)
        assert len(done.stderr.splitlines()) <= 3
        assert "Traceback" not in done.stderr

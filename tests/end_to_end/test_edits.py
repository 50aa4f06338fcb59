"""Jobs are edited, moved and swapped while they wait: the installed commands."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.end_to_end.conftest import BIN, Box
from tests.end_to_end.test_order import gate


def editor(box: Box, script: str) -> dict[str, str]:
    """The environment of somebody whose editor is this shell script."""
    path = box.home / "editor"
    path.write_text(f"#!/bin/sh\nPATH={BIN}:$PATH\n{script}\n")
    path.chmod(0o755)
    (box.home / "tmp").mkdir(exist_ok=True)
    return box.env | {"EDITOR": str(path), "TMPDIR": str(box.home / "tmp")}


def kept(box: Box) -> list[Path]:
    return list((box.home / "tmp").glob("*/job-*.toml"))


def test_what_was_edited_is_what_runs_over_a_kill(box: Box) -> None:
    daemon = box.serve(gpus="0")
    hold = gate(box)
    [first] = box.submit(f"read x < {hold}")
    [job] = box.submit("--name", "old", "--env", "LR=1", "--begin", "+1h", "false")
    said = box.ctl(
        "edit", str(job), "--command", "echo $LR $SEED in $PWD", "--env", "LR=0.1", "--env",
        "SEED=7", "--cwd", "/tmp", "--name", "new", "--begin", "none", "--priority", "3",
    )  # fmt: skip
    assert said.stdout == f"job {job}: changed\n"
    box.kill(daemon)
    box.serve(gpus="0")
    shown = box.show(job)
    assert (shown["job"]["name"], shown["job"]["priority"], shown.get("begin_ms", 0)) == (
        "new",
        3,
        0,
    )
    (event,) = [event for event in shown["story"] if event["kind"] == "edited"]
    assert event["detail"]["changed"]["priority"] == [0, 3]
    assert event["detail"]["changed"]["env"] == ["LR", "SEED"]
    assert "0.1" not in json.dumps(shown["story"])
    hold.write_text("go\n")
    box.ctl("wait", str(first), str(job))
    assert box.ctl("logs", str(job)).stdout == "0.1 7 in /tmp\n"
    assert "edited: " in box.ctl("show", str(job)).stdout
    late = box.ctl("edit", str(job), "--priority", "1", check=False)
    assert (late.returncode, late.stderr) == (1, f"gpuctl: cannot edit job {job}: it is done\n")


def test_an_editor_and_a_job_that_starts_meanwhile(box: Box) -> None:
    box.serve(gpus="0")
    hold = gate(box)
    box.submit(f"read x < {hold}")
    [job] = box.submit("echo old")
    change = """sed -i 's/^command = .*/command = "echo new"/' "$1" """
    assert box.ctl("edit", str(job), env=editor(box, change)).stdout == f"job {job}: changed\n"
    assert box.show(job)["job"]["command"] == "echo new"
    assert box.ctl("edit", str(job), env=editor(box, "true")).stdout == "nothing to change\n"
    starts = f"""
    echo go > {hold}; gpuctl wait {job} > /dev/null
    sed -i 's/^command = .*/command = "echo too late"/' "$1" """
    late = box.ctl("edit", str(job), env=editor(box, starts), check=False)
    assert late.returncode == 1
    (path,) = kept(box)
    assert late.stderr == (
        f"gpuctl: cannot edit job {job}: it is done\n  what you typed is in {path}\n"
    )
    assert 'command = "echo too late"' in path.read_text()
    assert box.ctl("logs", str(job)).stdout == "new\n"


def test_bad_edits_get_one_sentence_each(box: Box) -> None:
    box.serve(gpus="0 1")
    box.submit("sleep 60")
    [a] = box.submit("--hold", "true")
    [b] = box.submit("--hold", "--after", str(a), "true")
    for words, status, why in [
        (["--after", str(b)], 1, f"it cannot come after job {b}, which comes after it"),
        (["--after", "@"], 1, f"it cannot come after job {b}, which comes after it"),
        (["--after", str(a)], 1, "it cannot come after itself"),
        (["--after", "99"], 3, "it cannot come after job 99: no such job"),
        (["--gpus", "3"], 1, "GPU"),
        (["--deadline", "2001-01-01"], 1, "it cannot be done by its deadline"),
        (["--time-limit", "soon"], 2, "that is no duration"),
        (["--command", ""], 2, "the command is empty"),
    ]:
        done = box.ctl("edit", str(a), *words, check=False)
        assert (done.returncode, done.stdout) == (status, ""), (words, done)
        assert done.stderr.startswith("gpuctl: cannot edit")
        assert why in done.stderr
    assert [event["kind"] for event in box.show(a)["story"]] == ["submitted"]


def test_the_order_is_theirs_and_survives(box: Box) -> None:
    daemon = box.serve(gpus="0")
    hold = gate(box)
    box.submit(f"read x < {hold}")
    jobs = [box.submit(f"echo {n} >> order", cwd=box.home)[0] for n in range(6)]
    box.ctl("move", str(jobs[5]), "--before", str(jobs[1]))
    box.ctl("move", str(jobs[0]), "--last")
    box.ctl("move", str(jobs[3]), "--first")
    box.ctl("swap", str(jobs[1]), str(jobs[4]))
    box.ctl("edit", str(jobs[2]), "--priority", "1")
    told = box.ctl("move", str(jobs[1]), "--after", str(jobs[2])).stdout
    assert told == f"job {jobs[1]}: after job {jobs[2]}, and now of its priority, 1\n"
    box.kill(daemon)
    box.serve(gpus="0")
    wanted = [2, 1, 3, 5, 4, 0]
    listed = json.loads(box.ctl("ls", "--json").stdout)["jobs"]
    waiting = [job["id"] for job in listed if job["state"] == "queued"]
    assert waiting == [jobs[n] for n in wanted]
    assert "1 job is before it" in box.ctl("why", str(jobs[1])).stdout
    hold.write_text("go\n")
    box.ctl("wait", "all")
    assert (box.home / "order").read_text().split() == list(map(str, wanted))


def test_an_edited_entry_of_a_file_is_not_taken_again(box: Box) -> None:
    queue = box.home / "gpu.queue"
    held = "#gpud: hold=yes\n"
    queue.write_text(f"{held}echo one >> out\n{held}echo two >> out\n")
    config = box.home / "gpud.toml"
    config.write_text(
        f'[pool]\ngpus = ["0"]\n[source.q]\ntype = "queue-file"\npath = "{queue}"\n'
        f'cwd = "{box.home}"\n'
    )
    box.serve("--config", str(config), gpus="")
    box.until("both are read", lambda: len(ids(box)) == 2)
    box.ctl("edit", str(ids(box)[0]), "--command", "echo ONE >> out")
    replaced = box.home / "new"
    replaced.write_text("echo three >> out\necho one >> out\necho two >> out\n")
    os.replace(replaced, queue)
    box.until("the new one is read", lambda: len(ids(box)) > 2)
    box.ctl("release", "all")
    box.ctl("wait", "all")
    assert sorted((box.home / "out").read_text().split()) == ["ONE", "three", "two"]


def ids(box: Box) -> list[int]:
    return [job["id"] for job in json.loads(box.ctl("ls", "--json").stdout)["jobs"]]


def test_more_than_ten_jobs_need_yes(box: Box) -> None:
    box.serve()
    box.submit("-", input="true\n" * 11, cwd=box.home)
    jobs = box.submit("--hold", "--name", "sweep", "-", input="true\n" * 11)
    for words in (["cancel"], ["edit", "--priority", "3"], ["move", "--first"], ["release"]):
        verb, *options = words
        done = box.ctl(verb, "name:sweep", *options, check=False)
        assert done.returncode == 2
        assert f"cannot {verb} 11 jobs without asking" in done.stderr
    assert box.job(jobs[0])["state"] == "held"
    box.ctl("edit", f"{jobs[0]}-{jobs[9]}", "--priority", "3")
    box.ctl("cancel", "name:sweep", "--yes")

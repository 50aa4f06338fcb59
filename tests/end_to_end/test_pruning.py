"""Retention as a user meets it: `gpuctl prune`, logs that are gone, queue files that go on."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.end_to_end.conftest import Box

HOUR_MS = 3_600_000


def age(box: Box, hours: float) -> None:
    """All that is done ended so much earlier; gpud is down."""
    with closing(sqlite3.connect(box.state / "gpud.db")) as db, db:
        db.execute("UPDATE jobs SET ended_at_ms = ended_at_ms - ?", (int(hours * HOUR_MS),))


def aged(box: Box, *args: str, hours: float = 48) -> None:
    """The daemon again, two days later."""
    box.stop(box.daemons[-1])
    age(box, hours)
    box.serve(*args, gpus="0")


def listed(box: Box) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(box.ctl("ls", "--all", "--json").stdout)["jobs"]
    return found


def test_prune_by_hand(box: Box) -> None:
    box.serve(gpus="0")
    jobs = [box.submit("echo", word)[0] for word in ("one", "two")]
    box.ctl("wait", *map(str, jobs))
    log = Path(box.show(jobs[0])["attempts"][0]["log"])
    assert box.ctl("prune", "--older", "1d").stdout == "nothing to prune\n"
    aged(box)
    [waits] = box.submit("--after", str(jobs[1]), "--hold", "true")
    refused = box.ctl("prune", "--older", "1d", check=False)
    assert refused.returncode == 2
    assert "cannot prune 1 job with logs" in refused.stderr
    assert "--yes" in refused.stderr
    would = box.ctl("prune", "--older", "1d", "--dry-run").stdout
    assert would == "1 job with logs (4 KiB of logs): would go\n"
    assert log.exists()
    told = box.ctl("prune", "--older", "1d", "--yes").stdout
    assert told == "1 job with logs (4 KiB of logs): gone\n"
    assert not log.exists()
    gone = box.ctl("logs", str(jobs[0]), check=False)
    assert gone.returncode == 3
    assert f"cannot show the log of job {jobs[0]}: it is no longer kept" in gone.stderr
    assert box.job(jobs[1])["outcome"] == "succeeded", "another one waits for it"
    box.ctl("release", str(waits))
    assert box.ctl("wait", str(waits), check=False).returncode == 0
    early = box.ctl("prune", "--older", "10m", check=False)
    assert early.returncode == 2
    assert "cannot prune what ended less than an hour ago" in early.stderr


def test_logs_only(box: Box) -> None:
    box.serve(gpus="0")
    [job] = box.submit("echo", "x")
    box.ctl("wait", str(job))
    aged(box)
    reply = box.ctl("prune", "--older", "1d", "--logs-only", "--yes", "--json").stdout
    assert json.loads(reply) == {"jobs": 0, "logs": 1, "log_bytes": 4096, "runs": 0}
    gone = box.ctl("logs", str(job), check=False)
    assert gone.returncode == 1
    assert f"cannot show the log of job {job}: it was removed 20" in gone.stderr
    assert "its log was removed 20" in box.ctl("show", str(job)).stdout
    assert box.ctl("prune", "--older", "1d", "--logs-only").stdout == "nothing to prune\n"


def test_a_line_of_a_queue_file_never_runs_twice(box: Box) -> None:
    queue, ran = box.home / "gpu.queue", box.home / "ran"
    config = box.home / "gpud.toml"
    config.write_text(f'[source.q]\ntype = "queue-file"\npath = "{queue}"\n')
    queue.write_text(f"echo a >> {ran}\necho b >> {ran}\n")
    box.serve("--config", str(config), gpus="0")
    box.until("both ran", lambda: box.ctl("status", "--json").stdout.count('"succeeded"') >= 2)
    aged(box, "--config", str(config))
    box.ctl("prune", "--older", "1d", "--yes")
    assert not listed(box)
    # Another file in its place: lines that were taken are known, though their jobs are gone.
    draft = box.home / "draft"
    draft.write_text(f"echo c >> {ran}\necho b >> {ran}\necho a >> {ran}\necho a >> {ran}\n")
    draft.rename(queue)
    box.until("the new ones ran", lambda: ran.read_text().count("\n") >= 4)
    box.ctl("wait", "all")
    assert sorted(ran.read_text().split()) == ["a", "a", "b", "c"]
    assert min(job["id"] for job in listed(box)) > 2


# Small steps, at once, so that a kill comes between two of them.
BY_ITSELF = """
import sys
from gpud.daemon import housekeeping
from gpud.main import main
housekeeping.FIRST_S, housekeeping.STEP, housekeeping.PAUSE_S = 0.0, 5, 0.02
sys.argv[0] = "gpud"
sys.exit(main())
"""


def test_the_daemon_does_it_by_itself_and_goes_on_after_a_kill(box: Box) -> None:
    config = box.home / "gpud.toml"
    config.write_text("[retention]\njobs_s = 7200\n")
    box.serve(gpus="0 0 0 0")
    box.submit("--array", "0-199", "echo x")
    box.submit("echo x")
    box.ctl("wait", "all")
    assert len([*box.state.glob("logs/*/*.log")]) == 201
    box.stop(box.daemons[-1])
    age(box, 48)

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", BY_ITSELF, "serve", "--state-dir", str(box.state)]
        command += ["--gpus", "0", "--config", str(config)]
        with open(box.home / "serve.log", "ab") as log:
            daemon = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=box.env, cwd=box.home
            )
        box.daemons.append(daemon)
        return daemon

    for _ in range(3):
        before = len([*box.state.glob("logs/*/*.log")])
        daemon = start()
        box.until("some went", lambda n=before: len([*box.state.glob("logs/*/*.log")]) < n)
        daemon.kill()
        daemon.wait()
        with closing(sqlite3.connect(box.state / "gpud.db")) as db:
            kept = {job for (job,) in db.execute("SELECT id FROM jobs")}
            due = {job for (job,) in db.execute("SELECT job FROM logs WHERE due")}
        there = {int(path.name.split(".")[0]) for path in box.state.glob("logs/*/*.log")}
        assert there <= kept | due, "no log without its job for ever"
        assert kept <= there | due, "no job whose log is gone does not say so"
    start()
    box.until("all logs are gone", lambda: not [*box.state.glob("logs/*/*.log")])
    box.until("all jobs are gone", lambda: not listed(box))
    assert box.submit("true") == [202]

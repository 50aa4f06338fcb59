"""The daemon as a user meets it: submit, restart, kill, lose, cancel."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

from tests.end_to_end.conftest import Box


def marks(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def test_a_job_runs_on_a_slot_and_its_end_is_exact(box: Box) -> None:
    box.serve()
    [good] = box.submit('echo "gpu $CUDA_VISIBLE_DEVICES job $GPUD_JOB_ID.$GPUD_ATTEMPT"')
    [bad] = box.submit("exit 7")
    [hit] = box.submit("kill -9 $$")
    assert box.ctl("wait", str(good)).returncode == 0
    assert box.ctl("wait", str(bad), check=False).returncode == 7
    assert box.ctl("wait", str(hit), check=False).returncode == 128 + 9
    assert box.ctl("logs", str(good)).stdout == f"gpu 0 job {good}.1\n"
    shown = box.show(bad)
    assert (shown["job"]["outcome"], shown["job"]["exit_code"]) == ("failed", 7)
    assert shown["attempts"][0]["user_s"] is not None
    assert box.job(hit)["signal"] == 9


def test_kill_9_of_the_daemon_changes_nothing_for_the_jobs(box: Box) -> None:
    daemon = box.serve(gpus="0")
    ran = box.home / "ran"
    gate = box.home / "gate"
    os.mkfifo(gate)
    [first] = box.submit(f"read x < {gate}; echo 1 >> {ran}; exit 5")
    rest = [box.submit(f"echo {n} >> {ran}")[0] for n in (2, 3, 4)]
    box.until("the first runs", lambda: box.job(first)["phase"] == "running")
    box.kill(daemon)
    gate.write_text("go\n")  # it ends while nobody looks
    box.until("the first ends", lambda: marks(ran) == ["1"])
    box.serve(gpus="0")
    assert box.ctl("wait", str(first), check=False).returncode == 5
    box.ctl("wait", *map(str, rest))
    assert marks(ran) == ["1", "2", "3", "4"]
    assert [a["attempt"] for a in box.show(first)["attempts"]] == [1]
    assert box.show(first)["attempts"][0]["max_rss_kib"] > 0


def test_kill_9_of_the_runner_loses_only_the_status(box: Box) -> None:
    box.serve(gpus="0")
    ran = box.home / "ran"
    gate = box.home / "gate"
    os.mkfifo(gate)
    [first] = box.submit(f"read x < {gate}; echo 1 >> {ran}")
    [second] = box.submit(f"echo 2 >> {ran}")
    box.until("the first runs", lambda: box.job(first)["phase"] == "running")
    for pid in box.runner_pids():
        os.kill(pid, signal.SIGKILL)
    gate.write_text("go\n")
    assert box.ctl("wait", str(first), check=False).returncode == 125
    assert box.job(first)["outcome"] == "lost"
    box.ctl("wait", str(second))
    assert marks(ran) == ["1", "2"]


def test_a_reboot_loses_what_ran_and_retries_what_asks_for_it(box: Box) -> None:
    boot = {**box.env, "GPUD_BOOT_ID": "11111111-1111-1111-1111-111111111111"}
    box.env = boot
    daemon = box.serve(gpus="0,1")
    ran = box.home / "ran"
    [plain] = box.submit("sleep 600")
    [again] = box.submit("--retries", "1", f"echo x >> {ran}; [ $GPUD_ATTEMPT = 2 ] || sleep 600")
    box.until("both run", lambda: all(box.job(j)["phase"] == "running" for j in (plain, again)))
    for pid in box.runner_pids():
        os.kill(pid, signal.SIGKILL)
    box.kill(daemon)
    box.env = {**boot, "GPUD_BOOT_ID": "22222222-2222-2222-2222-222222222222"}
    box.serve(gpus="0,1")
    assert box.ctl("wait", str(plain), check=False).returncode == 125
    assert box.job(plain)["outcome"] == "lost"
    assert "restarted" in box.job(plain)["why"]
    assert box.show(again)["attempts"][0]["outcome"] == "lost"
    assert box.ctl("wait", str(again)).returncode == 0  # it asked to be tried again
    assert marks(ran) == ["x", "x"]


def test_stop_leaves_jobs_running_and_says_how_to_stop_them(box: Box) -> None:
    daemon = box.serve()
    [job] = box.submit("sleep 600")
    box.until("it runs", lambda: box.job(job)["phase"] == "running")
    assert box.stop(daemon) == 0
    said = (box.home / "serve.log").read_text()
    assert f"job {job} goes on running" in said
    assert "kill " in said
    box.serve()
    assert box.job(job)["phase"] == "running"
    box.ctl("cancel", str(job))
    assert box.ctl("wait", str(job), check=False).returncode == 125
    assert box.job(job)["outcome"] == "cancelled"


def test_hold_release_drain_and_why(box: Box) -> None:
    box.serve(gpus="0")
    box.ctl("drain")
    [job] = box.submit("true")
    assert "drained" in box.ctl("why", str(job)).stdout
    box.ctl("hold", str(job))
    assert "held" in box.ctl("why", str(job)).stdout
    box.ctl("undrain")
    assert box.job(job)["state"] == "held"
    box.ctl("release", str(job))
    box.ctl("wait", str(job))


def test_priority_then_submission_order(box: Box) -> None:
    box.serve(gpus="0")
    ran = box.home / "ran"
    box.ctl("drain")
    jobs = box.submit("-", input="".join(f"echo {n} >> {ran}\n" for n in (1, 2, 3)))
    jobs += box.submit("--priority", "5", f"echo first >> {ran}")
    box.ctl("undrain")
    box.ctl("wait", *map(str, jobs))
    assert marks(ran) == ["first", "1", "2", "3"]


def test_a_key_submits_once(box: Box) -> None:
    box.serve()
    assert box.submit("--key", "k", "true") == box.submit("--key", "k", "true")
    refused = box.ctl("submit", "--key", "k", "false", check=False)
    assert refused.returncode == 1
    assert "cannot submit" in refused.stderr


def test_a_retry_by_hand_and_by_policy(box: Box) -> None:
    box.serve()
    [job] = box.submit("[ -e flag ]", cwd=box.home)
    assert box.ctl("wait", str(job), check=False).returncode == 1
    (box.home / "flag").touch()
    box.ctl("retry", str(job))
    box.ctl("wait", str(job))
    assert box.job(job)["attempt"] == 2


def test_a_retry_with_other_arguments(box: Box) -> None:
    """Split by the shell, for this attempt and those that follow it, over a restart."""
    daemon = box.serve()
    words = ("--", "sh", "-c", 'echo "$#: $*"; [ $# = 2 ]', "job")
    [job] = box.submit(
        "--retries", "1", "--backoff", "0..0", "--retry-on", "1", "--retry-args=--first", *words
    )
    assert box.ctl("wait", str(job), check=False).returncode == 1
    box.kill(daemon)
    box.serve()
    box.ctl("retry", str(job), "--args", "--from 'last one.ckpt'")
    box.ctl("wait", str(job))
    logs = [Path(attempt["log"]).read_text() for attempt in box.show(job)["attempts"]]
    assert logs == ["0: \n", "1: --first\n", "2: --from last one.ckpt\n"]
    assert "--from 'last one.ckpt'" in box.ctl("show", str(job)).stdout


def test_a_queue_file_is_a_source(box: Box) -> None:
    queue = box.home / "gpu.queue"
    ran = box.home / "ran"
    config = box.home / "gpud.toml"
    config.write_text(
        '[pool]\ngpus = ["0"]\n[source.queue]\ntype = "queue-file"\npath = "gpu.queue"\n'
    )
    daemon = box.serve("--config", str(config), gpus="")
    with queue.open("a") as file:
        file.write(f"echo 1 >> {ran}\n#gpud: name=two\necho 2 \\\n  >> {ran}\n")
    box.until("both ran", lambda: marks(ran) == ["1", "2"])
    box.kill(daemon)
    with queue.open("a") as file:
        file.write(f"echo 3 >> {ran}\n")
    box.serve("--config", str(config), gpus="")
    box.until("the third ran", lambda: marks(ran) == ["1", "2", "3"])
    box.ctl("wait", "name:two")
    sources = box.ctl("sources").stdout
    assert "queue" in sources
    box.ctl("source", "stop", "queue")
    with queue.open("a") as file:
        file.write(f"echo 4 >> {ran}\n")
    box.ctl("source", "start", "queue")
    box.until("the fourth ran", lambda: marks(ran) == ["1", "2", "3", "4"])


def test_reload_keeps_the_old_configuration_on_error(box: Box) -> None:
    config = box.home / "gpud.toml"
    config.write_text('[pool]\ngpus = ["0"]\n')
    box.serve("--config", str(config), gpus="")
    config.write_text('[pool]\ngpus = ["0"]\nslots = 3\n')
    refused = box.ctl("reload", check=False)
    assert refused.returncode == 1
    assert "pool.slots" in refused.stderr
    config.write_text('[pool]\ngpus = ["0", "1"]\n')
    assert "the pool is now" in box.ctl("reload").stdout
    assert "1" in box.ctl("gpus").stdout


def test_sighup_reloads_and_keeps_the_old_configuration_on_error(box: Box) -> None:
    config = box.home / "gpud.toml"
    log = box.home / "serve.log"
    config.write_text('[pool]\ngpus = ["0"]\n')
    daemon = box.serve("--config", str(config), gpus="")
    config.write_text("[pool\n")
    daemon.send_signal(signal.SIGHUP)
    box.until("it says why not", lambda: "not_reloaded" in log.read_text())
    assert box.ctl("gpus").stdout.count("1 of 1") == 1
    config.write_text('[pool]\ngpus = ["0", "1"]\n')
    daemon.send_signal(signal.SIGHUP)
    box.until("it is taken over", lambda: "the pool is now" in log.read_text())
    assert box.ctl("gpus").stdout.count("1 of 1") == 2


def test_a_time_limit_holds_while_the_daemon_is_down(box: Box) -> None:
    daemon = box.serve()
    pid_file = box.home / "pid"
    [job] = box.submit("--time-limit", "1s", "--grace", "1s", f"echo $$ > {pid_file}; sleep 600")
    box.until("it runs", lambda: box.job(job)["phase"] == "running" and marks(pid_file))
    box.kill(daemon)
    box.until("it is stopped", lambda: not Path(f"/proc/{marks(pid_file)[0]}").exists())
    box.serve()
    assert box.ctl("wait", str(job), check=False).returncode == 124
    assert box.job(job)["outcome"] == "timed-out"


def test_logs_follow_across_attempts(box: Box) -> None:
    box.serve()
    flag = box.home / "flag"
    [job] = box.submit(
        "--retries",
        "1",
        f"echo attempt $GPUD_ATTEMPT; [ -e {flag} ] || {{ touch {flag}; exit 1; }}",
    )
    followed = box.ctl("logs", "-f", str(job)).stdout
    assert "attempt 1" in followed
    assert "attempt 2" in followed
    assert box.job(job)["outcome"] == "succeeded"


def test_a_job_keeps_its_submitters_directory_environment_and_umask(box: Box) -> None:
    box.serve()
    place = box.home / "some where"
    place.mkdir()
    env = {**box.env, "FLAVOUR": "sour", "CUDA_VISIBLE_DEVICES": "7", "SLURM_JOB_ID": "9"}
    command = 'echo "$PWD|$FLAVOUR|$EXTRA|$CUDA_VISIBLE_DEVICES|$SLURM_JOB_ID"; umask'
    [job] = box.submit("--env", "EXTRA=1 2", command, env=env, cwd=place, umask=0o027)
    box.ctl("wait", str(job))
    assert box.ctl("logs", str(job)).stdout == f"{place}|sour|1 2|0|\n0027\n"


def test_environment_values_appear_nowhere(box: Box) -> None:
    box.env["SECRET_TOKEN"] = "hunter2-hunter2"
    box.serve("--log-level", "debug")
    [job] = box.submit("true")
    box.ctl("wait", str(job))
    shown = [
        box.ctl("show", str(job), "--json").stdout,
        box.ctl("ls", "all", "--json").stdout,
        box.ctl("events", "--since", "0").stdout,
        (box.home / "serve.log").read_text(),
    ]
    assert "SECRET_TOKEN" in shown[0]
    assert not [text for text in shown if "hunter2" in text]


def test_a_job_that_did_not_succeed_is_in_the_log(box: Box) -> None:
    box.serve("--log-format", "json")
    [job] = box.submit("exit 3")
    box.ctl("wait", str(job), check=False)
    lines = [json.loads(line) for line in (box.home / "serve.log").read_text().splitlines()]
    [ended] = [line for line in lines if line["event"] == "ended"]
    assert (ended["job"], ended["attempt"], ended["exit_code"]) == (job, 1, 3)


def test_a_runtime_directory_that_vanishes(box: Box) -> None:
    """As it does when its user logs out."""
    runtime = box.home / "run"
    runtime.mkdir()
    del box.env["GPUD_SOCKET"]
    box.env["XDG_RUNTIME_DIR"] = str(runtime)
    box.env["XDG_STATE_HOME"] = str(box.home)
    box.state = box.home / "gpud"
    box.serve()
    assert (runtime / "gpud" / "gpud.sock").is_socket()
    shutil.rmtree(runtime)
    [job] = box.submit("true")
    box.ctl("wait", str(job))

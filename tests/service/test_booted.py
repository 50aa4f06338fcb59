"""A real systemd: what stop, restart, crash, hang, a wrong configuration and shutdown do to jobs.

Boots one machine for all of them; the last test shuts it down and boots it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.service.booted import Machine

pytestmark = pytest.mark.slow

CONFIG = "/etc/gpud/gpud.toml"
DROP_IN = "/etc/systemd/system/gpud.service.d/test.conf"
GATE = "echo $$ > /root/pid; while [ ! -e /root/go ]; do sleep 0.1; done; exit 7"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    machine = Machine()
    machine.boot()
    try:
        yield machine
    finally:
        machine.close()


@pytest.fixture
def gpud(machine: Machine) -> Iterator[Machine]:
    """The service, installed and started, on no GPU."""
    machine.call("mkdir", "-p", "/etc/gpud")
    write(machine, CONFIG, '[pool]\ngpus = ["none"]\ncpu_slots = 4\n')
    machine.call("gpud", "install-service", "--now")
    yield machine
    machine.call("systemctl", "stop", "gpud", check=False)
    machine.call("systemctl", "stop", "gpud-jobs.slice", check=False)
    machine.call("systemctl", "reset-failed", check=False)
    machine.call("rm", "-rf", "/var/lib/gpud", "/root/go", "/root/pid")
    machine.call("rm", "-rf", DROP_IN.rpartition("/")[0])
    machine.call("systemctl", "daemon-reload")


def write(machine: Machine, path: str, text: str) -> None:
    machine.call("sh", "-c", 'mkdir -p "$(dirname "$1")"; printf %s "$2" > "$1"', "sh", path, text)


def submit(machine: Machine, command: str, *options: str) -> str:
    words = ("gpuctl", "submit", "--gpus", "0", *options, "--", "sh", "-c", command)
    return machine.call(*words).strip()


def job(machine: Machine, number: str) -> dict[str, Any]:
    """Its view, with its attempts."""
    detail: dict[str, Any] = json.loads(machine.call("gpuctl", "show", number, "--json"))["jobs"][0]
    return {**detail["job"], "attempts": detail["attempts"]}


def state(machine: Machine, number: str) -> str:
    found = job(machine, number)
    return str(found.get("phase") or found["state"])


def main_pid(machine: Machine) -> int:
    return int(machine.property("MainPID"))


def answers(machine: Machine) -> bool:
    return "answers" in machine.call("gpuctl", "ping", check=False)


def runners(machine: Machine) -> list[str]:
    words = ("systemctl", "list-units", "--no-legend", "--plain", "gpud-runner-*.service")
    said = machine.call(*words)
    return [line.split()[0] for line in said.splitlines()]


def running(machine: Machine) -> tuple[str, str]:
    """(a job that runs, the pid of its shell)"""
    number = submit(machine, GATE)
    machine.until(True, lambda: machine.call("cat", "/root/pid", check=False).strip().isdigit())
    return number, machine.call("cat", "/root/pid").strip()


def test_nothing_that_happens_to_gpud_touches_a_job(gpud: Machine) -> None:
    number, pid = running(gpud)
    (runner,) = runners(gpud)
    group = gpud.call("cat", f"/proc/{pid}/cgroup").strip()
    assert f"/gpud.slice/gpud-jobs.slice/{runner}/{number}.1-" in group
    assert gpud.call("cat", "/sys/fs/cgroup/system.slice/gpud.service/cgroup.procs").split() == [
        str(main_pid(gpud))
    ]

    gpud.call("systemctl", "restart", "gpud")
    assert state(gpud, number) == "running"

    before = main_pid(gpud)
    gpud.call("kill", "-KILL", str(before))
    gpud.until(True, lambda: main_pid(gpud) not in (0, before) and answers(gpud))
    assert state(gpud, number) == "running"

    gpud.call("systemctl", "stop", "gpud")
    assert gpud.call("systemctl", "is-active", "gpud", check=False).strip() == "inactive"
    gpud.call("kill", "-0", pid)
    gpud.call("touch", "/root/go")
    gpud.until("", lambda: gpud.call("sh", "-c", f"ls -d /proc/{pid} 2>/dev/null || true"))
    gpud.call("systemctl", "start", "gpud")
    gpud.until("done", state, gpud, number)
    assert (job(gpud, number)["outcome"], job(gpud, number)["exit_code"]) == ("failed", 7)
    assert runners(gpud) == [runner]


def test_one_that_hangs_is_started_again(gpud: Machine) -> None:
    write(gpud, DROP_IN, "[Service]\nWatchdogSec=1\nTimeoutAbortSec=1\n")
    gpud.call("systemctl", "daemon-reload")
    gpud.call("systemctl", "restart", "gpud")
    number, pid = running(gpud)
    before = main_pid(gpud)
    gpud.call("kill", "-STOP", str(before))
    gpud.until(True, lambda: main_pid(gpud) not in (0, before) and answers(gpud))
    assert "Watchdog timeout" in gpud.call("journalctl", "--unit=gpud", "--output=cat")
    gpud.call("kill", "-0", pid)
    assert state(gpud, number) == "running"


def test_a_wrong_configuration_is_not_tried_again_and_a_reload_refuses_it(gpud: Machine) -> None:
    before = main_pid(gpud)
    write(gpud, CONFIG, '[pool]\ngpus = ["none"]\ncpu_slots = 2\n')
    gpud.call("systemctl", "reload", "gpud")
    gpud.until(True, lambda: "reloaded" in journal(gpud))
    write(gpud, CONFIG, "[pool]\ncpu_slots = 'many'\n")
    gpud.call("systemctl", "reload", "gpud")
    gpud.until(True, lambda: "not_reloaded" in journal(gpud))
    assert main_pid(gpud) == before
    assert answers(gpud)
    assert gpud.property("ActiveState") == "active"

    gpud.call("systemctl", "restart", "gpud", check=False)
    assert gpud.property("ActiveState") == "failed"
    assert (gpud.property("ExecMainStatus"), gpud.property("NRestarts")) == ("78", "0")


def journal(machine: Machine) -> str:
    return machine.call("journalctl", "--unit=gpud", "--output=cat", "--no-pager")


def test_a_dead_runner_takes_no_job_with_it(gpud: Machine) -> None:
    number, pid = running(gpud)
    (first,) = runners(gpud)
    gpud.call("kill", "-KILL", gpud.property("MainPID", first))
    gpud.until(True, lambda: any(unit != first for unit in runners(gpud)))
    gpud.call("kill", "-0", pid)
    gpud.call("touch", "/root/go")
    gpud.until("done", state, gpud, number)
    assert job(gpud, number)["outcome"] == "lost"


def test_what_was_installed_is_taken_away_again(gpud: Machine) -> None:
    _, pid = running(gpud)
    assert gpud.call("getent", "group", "gpud").startswith("gpud:")
    said = gpud.call("gpud", "install-service", "--now")
    assert "it runs already" in said
    said = gpud.call("gpud", "uninstall-service")
    assert "stopped and disabled: gpud" in said
    assert "jobs go on; to end them: systemctl stop gpud-jobs.slice" in said
    gpud.call("kill", "-0", pid)
    left = gpud.call("sh", "-c", "find /etc -name '*gpud*' -not -path '/etc/group*'").split()
    assert left == ["/etc/gpud", "/etc/gpud/gpud.toml"]  # which was changed
    gpud.call("systemctl", "stop", "gpud-jobs.slice")
    assert "No such process" in gpud.call("kill", "-0", pid, check=False)


def test_for_one_person(machine: Machine) -> None:
    machine.call("systemctl", "start", "user@0.service")
    mine = ("env", "XDG_RUNTIME_DIR=/run/user/0")
    write(machine, "/root/.config/gpud/gpud.toml", '[pool]\ngpus = ["none"]\n')
    try:
        said = machine.call(*mine, "gpud", "install-service", "--user", "--now")
        assert "started, now and at boot" in said
        submit_it = (*mine, "gpuctl", "submit", "--gpus", "0", "--", "cat", "/proc/self/cgroup")
        number = machine.call(*submit_it).strip()
        machine.call(*mine, "gpuctl", "wait", number)
        group = machine.call(*mine, "gpuctl", "logs", number).strip()
        assert "/user@0.service/gpud.slice/gpud-jobs.slice/gpud-runner-" in group
        assert group.rpartition("/")[2].startswith(f"{number}.1-")
        said = machine.call(*mine, "gpud", "uninstall-service", "--user")
        assert said.count("removed: /root/.config/systemd/user/") == 2
    finally:
        machine.call("systemctl", "stop", "user@0.service", check=False)
        machine.call("rm", "-rf", "/root/.config/gpud", "/root/.local/state/gpud")


def test_a_shutdown_gives_jobs_their_grace_and_loses_none(gpud: Machine) -> None:
    saves = "trap 'sleep 0.5; echo saved; exit 0' TERM; echo $$ > /root/pid; "
    saves += "while :; do sleep 0.1; done"
    number = submit(gpud, saves)
    again = submit(gpud, "[ $GPUD_ATTEMPT = 2 ] || sleep 1000", "--retries", "1", "--backoff", "0s")
    for one in (number, again):
        gpud.until("running", state, gpud, one)
    waits = submit(gpud, "true", "--hold")
    gpud.until(True, lambda: gpud.call("cat", "/root/pid", check=False).strip().isdigit())
    gpud.shut_down()
    gpud.boot()
    gpud.call("systemctl", "start", "gpud")
    gpud.until("done", state, gpud, number)
    found = job(gpud, number)
    assert (found["outcome"], "shut down" in found["why"]) == ("lost", True)
    assert gpud.call("gpuctl", "logs", number).split()[-1] == "saved"
    gpud.until("done", state, gpud, again)
    assert (job(gpud, again)["outcome"], len(job(gpud, again)["attempts"])) == ("succeeded", 2)
    assert state(gpud, waits) == "held"

"""The runner as a service of its own: when, how, and what happens where systemd does not let us.

A real systemd is in tests/service/test_booted.py.
"""

from __future__ import annotations

import asyncio
import fcntl
from pathlib import Path

import pytest

from gpud.errors import GpudError
from gpud.executors.runner import RunnerExecutor
from gpud.executors.transient import Manager, launch_as_unit, manager
from tests.contracts.test_executors import Box

SYSTEM, USER = Manager(False, "gpud.service"), Manager(True, "gpud.service")
OF_A_USER = "/user.slice/user-1000.slice/user@1000.service"


@pytest.mark.parametrize(
    ("group", "environ", "found"),
    [
        ("/system.slice/gpud.service", {"NOTIFY_SOCKET": "/run/systemd/notify"}, SYSTEM),
        ("/system.slice/gpud.service", {"INVOCATION_ID": "1"}, SYSTEM),
        (f"{OF_A_USER}/app.slice/gpud.service", {"INVOCATION_ID": "1"}, USER),
        ("/system.slice/gpud.service", {}, None),
        # A terminal of a desktop, and an ssh session: what they have inherited means nothing.
        (f"{OF_A_USER}/app.slice/vte-spawn-1.scope", {"INVOCATION_ID": "1"}, None),
        ("/user.slice/user-1000.slice/session-3.scope", {"INVOCATION_ID": "1"}, None),
        ("/", {"NOTIFY_SOCKET": "/run/notify"}, None),
    ],
)
def test_who_runs_us(
    group: str, environ: dict[str, str], found: Manager | None, tmp_path: Path
) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text(f"1:name=systemd:/other.service\n0::{group}\n")
    assert manager(environ, proc=tmp_path, booted=tmp_path) == found
    assert manager(environ, proc=tmp_path, booted=tmp_path / "nothing") is None


def fake_systemd_run(directory: Path, script: str) -> None:
    program = directory / "systemd-run"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_what_systemd_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_systemd_run(tmp_path, f'printf "%s\\n" "$@" > {tmp_path}/words')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    units = {launch_as_unit(SYSTEM, tmp_path, None) for _ in range(2)}
    assert len(units) == 2
    words = (tmp_path / "words").read_text().splitlines()
    assert {"--system", "--slice=gpud-jobs.slice", "--service-type=notify"} <= set(words)
    # A runner that dies takes no job with it, and at shutdown gpud is stopped before the jobs are.
    assert {"--property=KillMode=process", "--property=Delegate=yes"} <= set(words)
    assert {"--property=OOMPolicy=continue", "--property=Before=gpud.service"} <= set(words)
    assert words[-2:] == ["--cgroup", "own"]
    launch_as_unit(USER, tmp_path, Path("/sys/fs/cgroup/mine"))
    words = (tmp_path / "words").read_text().splitlines()
    assert "--user" in words
    assert words[-2:] == ["--cgroup", "/sys/fs/cgroup/mine"]


def test_where_it_is_refused_the_runner_is_our_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_systemd_run(tmp_path, "echo 'Failed: Interactive authentication\n required.' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    refused = "cannot start the runner as a service: Failed: Interactive authentication required."
    with pytest.raises(GpudError, match=refused):
        launch_as_unit(SYSTEM, tmp_path, None)
    warned: list[tuple[str, dict[str, object]]] = []

    async def live() -> int:
        box = Box()
        executor = RunnerExecutor(
            tmp_path, "token", box, manager=SYSTEM,
            warn=lambda event, **values: warned.append((event, values)),
        )  # fmt: skip
        await executor.open()
        pid = executor.runner_pid
        await executor.close(retire=True)
        return pid

    with open(tmp_path / "lock", "w") as lock:
        lock.write("token\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert asyncio.run(live()) > 0
    ((event, values),) = warned
    assert event == "jobs_in_our_own_unit"
    assert values["why"] == refused
    assert "KillMode=process" in str(values["so"])

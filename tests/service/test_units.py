"""The units that come with gpud: what systemd says about them, and what gpud's promises need."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gpud.errors import EXIT_CONFIG
from gpud.executors.transient import SLICE
from gpud.tools.units import IN_UNIT

SYSTEMD = Path(__file__).parents[2] / "systemd"
SERVICES = [SYSTEMD / "gpud.service", SYSTEMD / "user" / "gpud.service"]
UNITS = [*SERVICES, SYSTEMD / SLICE]
MOST_EXPOSED = 5.0  # "OK"; a service of root's without any protection has 9.6

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze"
)


def settings(unit: Path) -> dict[str, str]:
    lines = [line for line in unit.read_text().splitlines() if "=" in line and line[0] not in "#;"]
    return dict(line.split("=", 1) for line in lines)


def runnable(unit: Path, directory: Path) -> Path:
    """A copy whose program is there."""
    copy = directory / unit.name
    copy.write_text(unit.read_text().replace(f"ExecStart={IN_UNIT} ", "ExecStart=/bin/true "))
    return copy


@needs_analyze
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.relative_to(SYSTEMD)))
def test_systemd_has_nothing_to_say_about_it(
    unit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown keys are warnings, with exit status 0: every word on stderr counts."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    command = ["systemd-analyze", "verify", "--man=no", str(runnable(unit, tmp_path))]
    if unit.parent.name == "user":
        command.insert(2, "--user")
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_analyze
def test_it_is_not_exposed_more_than_it_has_to_be(tmp_path: Path) -> None:
    unit = runnable(SYSTEMD / "gpud.service", tmp_path)
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    if "offline" in done.stderr:
        pytest.skip("needs systemd 250, for security --offline")
    level = re.search(r"exposure level for gpud.service: ([0-9.]+)", done.stdout)
    assert level is not None, done.stdout + done.stderr
    assert float(level[1]) <= MOST_EXPOSED


@pytest.mark.parametrize("unit", SERVICES, ids=["system", "user"])
def test_what_the_promises_need(unit: Path) -> None:
    found = settings(unit)
    assert found["Type"] == "notify"
    assert int(found["WatchdogSec"]) > 0
    assert found["KillMode"] == "mixed"
    assert "Delegate" not in found  # there is nothing in it to be kept alive
    assert found["Restart"] == "on-failure"
    assert found["RestartPreventExitStatus"] == str(EXIT_CONFIG)
    assert found["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert found["ExecStart"].split()[:2] == [IN_UNIT, "serve"]


def test_what_would_take_the_gpus_or_the_queue_files_away_is_not_there() -> None:
    found = settings(SYSTEMD / "gpud.service")
    assert found["StateDirectory"] == found["RuntimeDirectory"] == "gpud"
    for key in ("PrivateDevices", "DevicePolicy", "DeviceAllow", "ProtectClock", "ProtectHome"):
        assert key not in found
    kept = found["CapabilityBoundingSet"].split()
    assert {"CAP_MKNOD", "CAP_SETUID", "CAP_SYS_PTRACE"} <= set(kept)

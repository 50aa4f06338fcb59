"""The unit: what systemd says about it, and what gpud's promises need of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from gpud.errors import EXIT_CONFIG

UNIT = Path(__file__).parents[2] / "systemd" / "gpud.service"


def settings() -> dict[str, str]:
    lines = [line for line in UNIT.read_text().splitlines() if "=" in line and line[0] not in "#;"]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_has_nothing_to_say_about_it(tmp_path: Path) -> None:
    """Unknown keys are warnings, with exit status 0: every word on stderr counts."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("ExecStart=gpud ", "ExecStart=/bin/true "))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_jobs_do_not_notice_gpud() -> None:
    unit = settings()
    assert unit["KillMode"] == "process"
    assert unit["OOMPolicy"] == "continue"
    assert unit["TasksMax"] == "infinity"
    assert unit["Delegate"] == "yes"
    bound_to_jobs = [key for key in unit if key.startswith(("OOMScore", "Private", "Protect"))]
    assert bound_to_jobs == []


def test_a_wrong_configuration_is_not_tried_again() -> None:
    unit = settings()
    assert unit["RestartPreventExitStatus"] == str(EXIT_CONFIG)
    assert unit["Type"] == "notify"
    assert unit["ExecStart"].split()[:2] == ["gpud", "serve"]

"""The delegated cgroup, on a copy of what the kernel shows in both layouts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpud.executors.delegated import cgroup_of, delegated, mount_point

UNIT = "system.slice/gpud.service"


class Machine:
    def __init__(self, base: Path, *, hybrid: bool) -> None:
        self.proc = base / "proc"
        root = base / "cgroup" / ("unified" if hybrid else "")
        self.unit = root / UNIT
        self.unit.mkdir(parents=True)
        (self.unit / "cgroup.procs").touch()
        (self.proc / "self").mkdir(parents=True)
        mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        if hybrid:
            mounts += f"30 22 0:26 / {root.parent}/memory rw shared:9 - cgroup cgroup rw,memory\n"
        mounts += f"31 22 0:27 / {root} rw,nosuid shared:10 - cgroup2 cgroup2 rw\n"
        (self.proc / "self" / "mountinfo").write_text(mounts)
        lines = "5:memory:/x\n" if hybrid else ""
        (self.proc / "self" / "cgroup").write_text(f"{lines}0::/{UNIT}\n")

    def delegate(self, value: bytes = b"1") -> None:
        try:
            os.setxattr(self.unit, "user.delegate", value)
        except OSError as error:
            pytest.skip(f"needs extended attributes: {error.strerror}")


@pytest.fixture(params=[False, True], ids=["unified", "hybrid"])
def machine(tmp_path: Path, request: pytest.FixtureRequest) -> Machine:
    return Machine(tmp_path, hybrid=request.param)


def test_a_delegated_cgroup_is_found(machine: Machine) -> None:
    machine.delegate()
    assert delegated(machine.proc) == machine.unit


def test_one_that_is_not_delegated_is_left_alone(machine: Machine) -> None:
    assert delegated(machine.proc) is None
    machine.delegate(b"0")
    assert delegated(machine.proc) is None


def test_one_that_has_gone_is_none(machine: Machine) -> None:
    machine.delegate()
    (machine.unit / "cgroup.procs").unlink()
    assert delegated(machine.proc) is None


def test_without_version_2_there_is_none(machine: Machine) -> None:
    (machine.proc / "self" / "mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
    assert mount_point(machine.proc) is None
    assert delegated(machine.proc) is None
    (machine.proc / "self" / "cgroup").write_text("5:memory:/x\n")
    assert cgroup_of("self", machine.proc) is None
    assert cgroup_of(12345, machine.proc) is None

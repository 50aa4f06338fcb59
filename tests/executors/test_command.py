"""What the runner is asked to execute: checked by executing it."""

from __future__ import annotations

import subprocess

import pytest

from gpud.core.model import Device, JobSpec
from gpud.executors.command import argv_of, attempt_environment, environment, script_argv


def run(spec: JobSpec, attempt: int = 1) -> bytes:
    argv = argv_of(spec, attempt)
    return subprocess.run(argv, capture_output=True, check=True).stdout


def test_a_shell_command_runs_as_it_is() -> None:
    assert run(JobSpec(b"echo a | tr a b")) == b"b\n"


def test_an_exact_argument_list_needs_no_shell() -> None:
    spec = JobSpec(b"shown", argv=(b"/bin/echo", b"$HOME", b"a  b", b"caf\xe9"))
    assert argv_of(spec, 1) == [b"/bin/echo", b"$HOME", b"a  b", b"caf\xe9"]


def test_a_setup_line_comes_first_in_the_same_shell() -> None:
    assert run(JobSpec(b"echo $x", setup=b"x=1")) == b"1\n"
    exact = JobSpec(b"shown", argv=(b"printenv", b"x"), setup=b"export x='2  3'")
    assert run(exact) == b"2  3\n"


@pytest.mark.parametrize(
    ("command", "first", "second"),
    [
        (b"echo train", b"train\n", b"train --resume\n"),
        (b"echo train > /dev/stdout", b"train\n", b"train --resume\n"),
        (b"echo a; echo b", b"a\nb\n", b"a\nb --resume\n"),
        (b"xargs echo <<END\ntrain\nEND", b"train\n", b"--resume train\n"),
        (b"echo a \\\n  b", b"a b\n", b"a b --resume\n"),
    ],
)
def test_retry_args_are_added_from_the_second_attempt_on(
    command: bytes, first: bytes, second: bytes
) -> None:
    spec = JobSpec(command, retry_args=b"--resume")
    assert run(spec, 1) == first
    assert run(spec, 2) == second
    assert run(spec, 3) == second


def test_retry_args_of_an_exact_list_are_split_as_a_shell_does() -> None:
    spec = JobSpec(b"shown", argv=(b"printf", b"<%s>", b"a b"), retry_args=b"--from 'last one'")
    assert run(spec, 1) == b"<a b>"
    assert run(spec, 2) == b"<a b><--from><last one>"


@pytest.mark.parametrize(
    ("shell", "expected"),
    [
        ((b"/bin/sh", b"-c"), [b"/bin/sh", b"/s"]),
        ((b"/bin/bash", b"-lc"), [b"/bin/bash", b"-l", b"/s"]),
        ((b"/bin/bash", b"-e", b"-c"), [b"/bin/bash", b"-e", b"/s"]),
    ],
)
def test_a_script_runs_under_the_same_shell(
    shell: tuple[bytes, ...], expected: list[bytes]
) -> None:
    assert script_argv(JobSpec(b"x", shell=shell), b"/s") == expected


def test_the_environment_tells_the_job_what_it_has() -> None:
    spec = JobSpec(b"x", env=b"A=1\0B=2")
    assert environment(spec) == ["A=1", "B=2"]
    assert environment(JobSpec(b"x")) == []
    two = (Device("GPU-a", ("0",), uuids=("GPU-a",)), Device("GPU-b", ("2",), uuids=("GPU-b",)))
    assert attempt_environment(spec, 42, 3, two) == [
        "CUDA_VISIBLE_DEVICES=0,2",
        "GPUD_JOB_ID=42",
        "GPUD_ATTEMPT=3",
        "NVIDIA_VISIBLE_DEVICES=0,2",
        "GPUD_GPU_UUIDS=GPU-a,GPU-b",
        "CUDA_DEVICE_ORDER=PCI_BUS_ID",
    ]


def test_what_is_not_known_of_a_gpu_is_not_told() -> None:
    told = attempt_environment(JobSpec(b"x"), 1, 1, (Device("1", ("1",)),))
    assert "NVIDIA_VISIBLE_DEVICES=1" in told
    assert not any(pair.startswith("GPUD_GPU_UUIDS") for pair in told)


def test_a_job_for_the_cpu_sees_no_gpu() -> None:
    told = attempt_environment(JobSpec(b"x"), 1, 1, (Device("cpu", (), 4),))
    assert {"CUDA_VISIBLE_DEVICES=", "NVIDIA_VISIBLE_DEVICES=void"} <= set(told)


def test_amds_gpus_have_their_own_variable() -> None:
    told = attempt_environment(JobSpec(b"x"), 1, 1, (Device("1", ("1",), maker="amd"),))
    assert {"CUDA_VISIBLE_DEVICES=1", "HIP_VISIBLE_DEVICES=1"} <= set(told)
    assert not any(pair.startswith("NVIDIA") for pair in told)


def test_an_order_of_devices_that_was_set_is_kept() -> None:
    told = attempt_environment(JobSpec(b"x", env=b"CUDA_DEVICE_ORDER=FASTEST_FIRST"), 1, 1, ())
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" not in told
    told = attempt_environment(JobSpec(b"x", env=b"A=1\0X=CUDA_DEVICE_ORDER="), 1, 1, ())
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in told


def test_a_cpu_job_sees_no_gpu_of_amd_either() -> None:
    """HIP takes an empty variable for none, and shows all GPUs."""
    lane = Device("cpu", (), 4, maker="amd")
    told = attempt_environment(JobSpec(b"x"), 1, 1, (lane,))
    assert {"CUDA_VISIBLE_DEVICES=", "HIP_VISIBLE_DEVICES=-1"} <= set(told)
    assert "CUDA_VISIBLE_DEVICES=" in told  # a CPU job sees no GPU


def test_an_environment_that_is_not_utf_8_travels() -> None:
    told = environment(JobSpec(b"x", env=b"A=caf\xe9"))
    assert told[0] != "A=café"
    assert not isinstance(told[0], str)

"""GPUs by the real pynvml over a stub of the driver's library, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from nvml_stub import environment

from gpud.core.model import Device
from gpud.devices.detect import detect
from gpud.errors import GpudError

PROGRAM = """
import sys, msgspec
from gpud.devices.detect import detect, survey
from gpud.errors import GpudError
try:
    found = {"devices": detect(cpu_slots=3), "survey": survey()}
except GpudError as error:
    found = {"message": error.message, "hint": error.hint}
sys.stdout.buffer.write(msgspec.json.encode(found))
"""


class Found(msgspec.Struct):
    devices: list[Device] = []
    survey: tuple[str, list[tuple[int, str, str, int]], list[str]] = ("", [], [])
    message: str = ""
    hint: str = ""


def ask(directory: Path, **settings: object) -> Found:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env=environment(directory, **settings),
        stdout=subprocess.PIPE,
        check=True,
        timeout=30,
    )
    return msgspec.json.decode(done.stdout, type=Found)


def uuid(index: int) -> str:
    return f"GPU-{index:08}-aaaa-bbbb-cccc-dddddddddddd"


def test_gpus_are_devices_by_uuid(stub_nvml: Path) -> None:
    found = ask(stub_nvml, gpus=2)
    assert found.devices == [
        Device(uuid(0), (uuid(0),)),
        Device(uuid(1), (uuid(1),)),
        Device("cpu", (), 3),
    ]
    assert found.survey == (
        "999.01",
        [(0, uuid(0), "Stub 0", 80 * 1024), (1, uuid(1), "Stub 1", 81 * 1024)],
        [],
    )


def test_a_lost_gpu_does_not_take_the_others_along(stub_nvml: Path) -> None:
    found = ask(stub_nvml, gpus=3, lost=1)
    assert [device.key for device in found.devices] == [uuid(0), uuid(2), "cpu"]
    assert found.survey[2] == ["GPU 1 cannot be used: it has fallen off the bus"]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"init": 9}, "the NVIDIA driver is installed and not loaded"),
        ({"init": 18}, "the driver was updated: restart the machine"),
        ({"init": 4}, "permission denied"),
        ({"init": 999}, "cannot ask the NVIDIA driver for GPUs: "),
        ({"gpus": 1, "driver": 999}, "cannot list the GPUs: "),
        ({"gpus": 0}, "cannot find a GPU: the NVIDIA driver has none"),
        ({"gpus": 1, "lost": 0}, "cannot find a GPU: GPU 0 cannot be used"),
    ],
)
def test_no_gpu_gets_one_sentence_and_a_hint(
    stub_nvml: Path, settings: dict[str, int], why: str
) -> None:
    found = ask(stub_nvml, **settings)
    assert why in found.message
    assert "\n" not in found.message
    assert found.hint.startswith("name the slots yourself: --gpus 0,1")


def test_no_library(tmp_path: Path) -> None:
    """A file that is no library stands in the way of one that this machine may have."""
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    assert "no NVIDIA driver found (NVML library missing)" in ask(tmp_path).message


def test_its_own_environment_says_which_gpus_are_gpuds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert [device.key for device in detect(1)] == ["2", "3", "cpu"]
    for nothing in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", nothing)
        assert [device.key for device in detect(1)] == ["cpu"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,,1")
    with pytest.raises(GpudError, match="cannot use CUDA_VISIBLE_DEVICES=0,,1: a GPU id"):
        detect()

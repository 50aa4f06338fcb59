"""GPUs by the real pynvml over a stub of the driver's library, asked once."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud.devices.survey import survey
from gpud.errors import GpudError
from tests.devices.nvml_stub import Stub, mig_uuid, uuid

pytestmark = pytest.mark.usefixtures("here")


def test_gpus_have_uuids_and_indexes() -> None:
    assert [(gpu.uuid, gpu.index) for gpu in survey().gpus] == [(uuid(0), 0), (uuid(1), 1)]


def test_mig_instances_are_devices(stub: Stub) -> None:
    stub.gpu(1, mig=1)
    stub.instance(1, 0)
    stub.instance(1, 1)
    assert [gpu.uuid for gpu in survey().gpus] == [uuid(0), mig_uuid(1, 0), mig_uuid(1, 1)]


def test_a_lost_gpu_does_not_take_the_others_along(stub: Stub) -> None:
    stub.have(3)
    stub.order("fail", "nvmlDeviceGetHandleByIndex_v2", gpu=1, code=15)
    found = survey()
    assert [gpu.uuid for gpu in found.gpus] == [uuid(0), uuid(2)]
    assert found.unusable == {1: "it has fallen off the bus"}


@pytest.mark.parametrize(
    ("function", "code", "why"),
    [
        ("nvmlInitWithFlags", 9, "the NVIDIA driver is installed and not loaded"),
        ("nvmlInitWithFlags", 18, "the driver was updated: restart the machine"),
        ("nvmlInitWithFlags", 4, "permission denied"),
        ("nvmlInitWithFlags", 999, "cannot ask the NVIDIA driver for GPUs: "),
        ("nvmlDeviceGetCount_v2", 999, "cannot ask the NVIDIA driver for GPUs: "),
    ],
)
def test_no_gpu_gets_one_sentence_and_a_hint(
    stub: Stub, function: str, code: int, why: str
) -> None:
    stub.order("fail", function, code=code)
    with pytest.raises(GpudError) as error:
        survey()
    assert why in error.value.message
    assert "\n" not in error.value.message
    assert error.value.hint.startswith("name the slots yourself: --gpus 0,1")


def test_a_driver_without_gpus(stub: Stub) -> None:
    stub.have(0)
    with pytest.raises(GpudError, match="cannot find a GPU: the NVIDIA driver has none") as error:
        survey()
    assert error.value.kind == "not-found"


def test_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is no library stands in the way of one that this machine may have."""
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(GpudError, match="no NVIDIA driver found") as error:
        survey()
    assert error.value.kind == "not-found"


def test_a_driver_that_hangs(stub: Stub) -> None:
    stub.order("hang", "nvmlInitWithFlags")
    with pytest.raises(GpudError, match=r"it does not answer within 0\.2 s") as error:
        survey(0.2)
    assert error.value.kind == "unreachable"

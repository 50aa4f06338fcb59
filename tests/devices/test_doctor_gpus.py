"""What `gpud doctor` says of GPUs, over the stub of the driver's library."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gpud.config.schema import Config
from gpud.devices import survey
from gpud.devices.whose import OTHERS_UNSEEN, blindness
from gpud.ports import GpusFound
from gpud.tools import probe_gpus
from gpud.tools.findings import Situation
from tests.devices.nvml_stub import Stub, mig_uuid, uuid

BLIND = [f"{OTHERS_UNSEEN}: {blindness()}"] if blindness() else []


def gpus(stub: Stub, home: Path, config: str = "") -> list[dict[str, str]]:
    file = home / "gpud.toml"
    file.write_text(f'state_dir = "state"\nsocket = "s"\n{config}')
    done = subprocess.run(
        [sys.executable, "-m", "gpud.main", "doctor", "--json", "--config", str(file)],
        env=stub.environment,
        stdout=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    findings = json.loads(done.stdout)["findings"]
    return [finding for finding in findings if finding["subject"] == "gpus"]


def texts(found: list[dict[str, str]], level: str) -> list[str]:
    assert all(finding["do"] for finding in found if finding["level"] != "ok")
    return [finding["text"] for finding in found if finding["level"] == level]


def test_what_there_is(stub: Stub, tmp_path: Path) -> None:
    found = gpus(stub, tmp_path)
    assert texts(found, "ok") == [
        f"0: Stub 0, 81920 MiB, {uuid(0)}",
        f"1: Stub 1, 82944 MiB, {uuid(1)}",
        "driver 999.01",
    ]
    assert texts(found, "note") == BLIND


def test_what_is_configured_and_is_not_there(stub: Stub, tmp_path: Path) -> None:
    stub.have(3)
    stub.gpu(1, mig=1)
    stub.instance(1, 0)
    stub.order("fail", "*", gpu=2, code=15)
    ids = f'[0, 1, 2, 7, "GPU-00000000", "GPU-feed", "{mig_uuid(1, 0)}", "MIG-1", "MIG-GPU-1/0/1"]'
    found = gpus(stub, tmp_path, f"[pool]\ngpus = {ids.replace(' 2,', ' ')}")
    assert texts(found, "problem") == [
        "GPU 2 cannot be used: it has fallen off the bus",
        "pool.gpus names 7, which this machine does not have",
        "pool.gpus names GPU-feed, which this machine does not have",
        "pool.gpus names MIG-1, which this machine does not have",
    ]


def test_one_that_is_ill_is_not_said_to_be_missing(stub: Stub, tmp_path: Path) -> None:
    stub.order("fail", "*", gpu=1, code=15)
    found = gpus(stub, tmp_path, "[pool]\ngpus = [0, 1]")
    assert texts(found, "problem") == ["GPU 1 cannot be used: it has fallen off the bus"]


@pytest.mark.parametrize(
    ("function", "code", "why"),
    [
        ("nvmlInitWithFlags", 9, "the NVIDIA driver is installed and not loaded"),
        ("nvmlInitWithFlags", 18, "the driver was updated: restart the machine"),
    ],
)
def test_what_is_wrong(stub: Stub, tmp_path: Path, function: str, code: int, why: str) -> None:
    stub.order("fail", function, code=code)
    assert texts(gpus(stub, tmp_path), "problem") == [
        f"cannot ask the NVIDIA driver for GPUs: {why}"
    ]


def test_no_gpu_is_how_some_machines_are(stub: Stub, tmp_path: Path) -> None:
    stub.have(0)
    assert texts(gpus(stub, tmp_path), "note") == ["the NVIDIA driver has none"]


def test_where_it_is_blind_it_says_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    found = GpusFound("999.01", (), blind="this is a container")
    monkeypatch.setattr(survey, "survey", lambda limit_s: found)
    notes = [f for f in probe_gpus.gpus(Situation(Config(), None, ())) if f.level == "note"]
    unseen = "other people's processes cannot be told from jobs here"
    text = f"{unseen}, so GPUs that they use get jobs, too: this is a container"
    do = "name GPUs that nobody else uses: pool.gpus"
    assert [(note.text, note.do) for note in notes] == [(text, do)]


HANGING = """
from gpud.tools import doctor, probe_gpus
doctor.PROBES, probe_gpus.LIMIT_S = (probe_gpus.gpus,), 0.3
raise SystemExit(doctor.main([]))
"""


@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetHandleByIndex_v2"])
def test_a_driver_that_hangs_does_not_hang_the_doctor(stub: Stub, function: str) -> None:
    stub.order("hang", function)
    done = subprocess.run(
        [sys.executable, "-c", HANGING],
        env=stub.environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    why = "it does not answer within 0.3 s"
    assert f"problem  gpus  cannot ask the NVIDIA driver for GPUs: {why}\n" in done.stdout

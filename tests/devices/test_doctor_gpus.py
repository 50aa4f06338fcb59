"""What `gpud doctor` says of GPUs, over the stub of the driver's library."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from nvml_stub import environment


def gpus(directory: Path, home: Path, config: str = "", **settings: object) -> list[dict[str, str]]:
    file = home / "gpud.toml"
    file.write_text(f'state_dir = "state"\nsocket = "s"\n{config}')
    done = subprocess.run(
        [sys.executable, "-m", "gpud.main", "doctor", "--json", "--config", str(file)],
        env=environment(directory, **settings),
        stdout=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    findings = json.loads(done.stdout)["findings"]
    return [finding for finding in findings if finding["subject"] == "gpus"]


def test_what_there_is(stub_nvml: Path, tmp_path: Path) -> None:
    found = gpus(stub_nvml, tmp_path, gpus=1)
    assert [finding["text"] for finding in found] == [
        "0: Stub 0, 81920 MiB, GPU-00000000-aaaa-bbbb-cccc-dddddddddddd",
        "driver 999.01",
    ]


def test_what_is_configured_and_is_not_there(stub_nvml: Path, tmp_path: Path) -> None:
    config = '[pool]\ngpus = [1, 7, "GPU-00000000", "GPU-feed", "MIG-1"]'
    found = gpus(stub_nvml, tmp_path, config, gpus=2)
    assert [finding["text"] for finding in found if finding["level"] == "problem"] == [
        "pool.gpus names 7, which this machine does not have",
        "pool.gpus names GPU-feed, which this machine does not have",
    ]


@pytest.mark.parametrize(
    ("settings", "level", "word"),
    [
        ({"init": 9}, "problem", "installed and not loaded"),
        ({"gpus": 2, "lost": 1}, "problem", "GPU 1 cannot be used: it has fallen off the bus"),
        ({"gpus": 0}, "note", "the NVIDIA driver has none"),
    ],
)
def test_what_is_wrong(
    stub_nvml: Path, tmp_path: Path, settings: dict[str, int], level: str, word: str
) -> None:
    found = gpus(stub_nvml, tmp_path, **settings)
    assert [finding["text"] for finding in found if finding["level"] == level] == [
        text for text in (finding["text"] for finding in found) if word in text
    ]
    assert any(word in finding["text"] for finding in found)
    assert all(finding["do"] for finding in found if finding["level"] != "ok")


HANGING = """
from gpud.tools import doctor, probe_gpus
doctor.PROBES, doctor.LIMIT_S = (probe_gpus.gpus,), 0.3
raise SystemExit(doctor.main([]))
"""


def test_a_driver_that_hangs_does_not_hang_the_doctor(stub_nvml: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGING],
        env=environment(stub_nvml, hang=60, gpus=1),
        stdout=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.startswith("problem  gpus  no answer within 0.3 s\n")

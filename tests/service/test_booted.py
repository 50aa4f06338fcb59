"""A real systemd: what stop, restart, crash, hang, a wrong configuration and a shutdown do to jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.service.booted import Machine

CONFIG = "/etc/gpud/gpud.toml"


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
    machine.call("sh", "-c", f"mkdir -p /etc/gpud; printf '[pool]\ngpus = [\"none\"]\n' > {CONFIG}")
    machine.call("gpud", "install-service", "--now")
    yield machine
    machine.call("systemctl", "stop", "gpud", "gpud-jobs.slice", check=False)
    machine.call("systemctl", "reset-failed", check=False)
    machine.call("sh", "-c", "rm -rf /var/lib/gpud /etc/systemd/system/gpud.service.d")


def submit(machine: Machine, command: str, *options: str) -> str:
    return machine.call("gpuctl", "submit", "--gpus", "0", *options, "--", command).strip()


def job(machine: Machine, number: str) -> dict[str, object]:
    shown: dict[str, object] = json.loads(machine.call("gpuctl", "show", number, "--json"))
    return shown


def state(machine: Machine, number: str) -> object:
    return job(machine, number)["job"]["state"]


def test_nothing_that_happens_to_gpud_touches_a_job(gpud: Machine) -> None:
    number = submit(gpud, "echo $$ > /root/pid; while [ ! -e /root/go ]; do sleep 0.1; done; exit 7")
    gpud.until("running", state, gpud, number)
    print(job(gpud, number))

"""Where systemd runs gpud: the runner as a service of its own, outside the cgroup of gpud's unit.

Called by executors/runner.py; daemon/serve.py asks for the manager. So stop, restart, kill -9 and
watchdog of gpud.service touch no job (docs/decisions/0024). The name is fresh each time: what a
dead runner has left behind may still be in the cgroup of its unit. Blocks; called in a thread.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from gpud.errors import GpudError, why_os
from gpud.executors.delegated import PROC, cgroup_of
from gpud.executors.launch import READY_TIMEOUT_S
from gpud.runner import ENTRY

BOOTED = Path("/run/systemd/system")  # sd_booted(3)
SLICE = "gpud-jobs.slice"
PER_USER = "/user@"  # user@UID.service runs the manager of one person
STOP_TIMEOUT_S = 300  # the longest grace that jobs have when the machine is shut down

PROPERTIES = (
    # What a runner that died has left goes on, and its successor finds it; one that is stopped ends
    # its jobs itself, each with its grace.
    "KillMode=process",
    f"TimeoutStopSec={STOP_TIMEOUT_S}",
    f"TimeoutStartSec={READY_TIMEOUT_S:.0f}",
    "Delegate=yes",
    "OOMPolicy=continue",  # a job that the kernel kills for its memory is that job's end only
    "TasksMax=infinity",  # they are the jobs'; gpud-jobs.slice can have a limit
)
# At shutdown what is ordered after stops before: gpud, then the jobs, then what jobs may use.
BEFORE_THE_JOBS = "remote-fs.target network-online.target nvidia-persistenced.service"


class Manager(NamedTuple):
    """Who runs us: the system's or a user's manager, and as what."""

    is_user: bool
    unit: str


def manager(
    environ: Mapping[str, str] = os.environ, proc: Path = PROC, booted: Path = BOOTED
) -> Manager | None:
    """None where we are no service of a systemd: in a terminal, a container, a batch job. What a
    service has started may have inherited its variables; so our cgroup must be a service's too."""
    if not booted.is_dir() or not ("NOTIFY_SOCKET" in environ or "INVOCATION_ID" in environ):
        return None
    group = cgroup_of("self", proc) or ""
    unit = next((part for part in reversed(group.split("/")) if part), "")
    return Manager(PER_USER in group, unit) if unit.endswith(".service") else None


def launch_as_unit(manager: Manager, state_dir: Path, cgroup: Path | None) -> str:
    """Start a runner of our version; its unit, once it listens. Raises GpudError."""
    log = state_dir / "runner.log"
    unit = f"gpud-runner-{os.urandom(4).hex()}"
    command = ["systemd-run", "--user" if manager.is_user else "--system", "--quiet", "--collect"]
    command += ["--no-ask-password", "--service-type=notify", f"--unit={unit}", f"--slice={SLICE}"]
    command += [f"--description=gpud: the jobs of {state_dir}"]
    for line in (*PROPERTIES, f"Before={manager.unit}", f"StandardOutput=append:{log}"):
        command.append(f"--property={line}")
    if not manager.is_user:
        command.append(f"--property=After={BEFORE_THE_JOBS}")
    command += ["--", sys.executable, "-I", "-S", ENTRY, str(state_dir)]
    command += ["--cgroup", str(cgroup) if cgroup else "own"]
    try:
        os.close(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=2 * READY_TIMEOUT_S,
            check=False,
        )
    except OSError as error:
        raise GpudError(f"cannot start the runner as a service: {why_os(error)}") from error
    except subprocess.TimeoutExpired as error:
        why = "systemd-run does not answer"
        raise GpudError(f"cannot start the runner as a service: {why}") from error
    if done.returncode:
        said = re.sub(r"\s+", " ", done.stderr.decode(errors="replace")).strip()
        why = said or f"systemd-run ended with {done.returncode}"
        raise GpudError(f"cannot start the runner as a service: {why}")
    return f"{unit}.service"

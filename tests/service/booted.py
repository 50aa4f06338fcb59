"""A real systemd, booted on a throw-away overlay of this machine's own root: no image, no download.

The directory above the overlay stays from one boot to the next, as a disk would. Needs root,
systemd-nspawn, and a kernel that lets root mount an overlay; says which of them is missing.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
CGROUPS = [Path("/sys/fs/cgroup"), *map(Path, ("/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"))]
BOOT_S, CALL_S = 20.0, 30.0
POWEROFF = signal.SIGRTMIN + 4  # systemd(1)


class Machine:
    def __init__(self) -> None:
        """Skips the test where it cannot be."""
        if os.geteuid():
            pytest.skip("needs root, to boot a systemd")
        for program in ("systemd-nspawn", "nsenter", "mount"):
            if shutil.which(program) is None:
                pytest.skip(f"needs {program}, to boot a systemd")
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()
        self.base = Path(memory) / f"gpud-boot-{os.getpid()}"  # also the name of the machine
        self.base.mkdir()
        self.root, self.init = self.base / "root", 0
        for name in ("upper", "work", "root"):
            (self.base / name).mkdir()
        layers = f"lowerdir=/,upperdir={self.base}/upper,workdir={self.base}/work"
        mount = ["mount", "-t", "overlay", "overlay", "-o", layers, str(self.root)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            shutil.rmtree(self.base)
            pytest.skip("needs an overlay of /, to boot a systemd")
        self.groups = [
            group / self.base.name for group in CGROUPS if (group / "cgroup.procs").exists()
        ]
        self.nspawn: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        """Until it answers. Skips the test where it does not come up."""
        hosted = Path("/run/systemd/system").is_dir()  # then our cgroup is systemd's business
        command = [
            "systemd-nspawn", "--quiet", "--boot", f"--directory={self.root}", "--register=no",
            "--private-network", "--console=pipe", f"--machine={self.base.name}",
            *(f"--bind-ro={path}" for path in {REPOSITORY, Path(sys.prefix)}),
            *([] if hosted else ["--keep-unit"]),
            "systemd.log_target=journal", "systemd.unit=basic.target",
        ]  # fmt: skip
        if not hosted:
            for group in self.groups:
                group.mkdir(exist_ok=True)
            enter = "".join(f"echo $$ > {group}/cgroup.procs; " for group in self.groups)
            command = ["sh", "-c", f'{enter}exec "$@"', "sh", *command]
        with open(self.base / "console", "ab") as console:
            self.nspawn = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )  # fmt: skip
        deadline = time.monotonic() + BOOT_S
        while time.monotonic() < deadline and self.nspawn.poll() is None:
            self.init = child_called("systemd", self.nspawn.pid)
            if self.init:
                state = self.call("systemctl", "is-system-running", check=False).strip()
                if state in ("running", "degraded"):
                    return
            time.sleep(0.05)
        said = (self.base / "console").read_text(errors="replace")[-500:]
        self.close()
        pytest.skip(f"no systemd boots here: {said}")

    def call(self, *command: str, check: bool = True) -> str:
        """Its output, both streams together."""
        inside = [
            "nsenter", "--target", str(self.init), "--mount", "--pid", "--uts", "--ipc", "--net",
            "--cgroup", "env", "-i", "HOME=/root", "LC_ALL=C.UTF-8",
            f"PATH={Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
        ]  # fmt: skip
        done = subprocess.run(
            [*inside, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=CALL_S, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"{command}: {done.returncode}: {done.stdout}"
        return done.stdout

    def property(self, name: str, unit: str = "gpud") -> str:
        return self.call("systemctl", "show", "--property", name, "--value", unit).strip()

    def until(self, wanted: object, look: object, *args: object) -> None:
        """Until `look(*args)` says `wanted`; fails after CALL_S."""
        assert callable(look)
        deadline = time.monotonic() + CALL_S
        while (seen := look(*args)) != wanted:
            assert time.monotonic() < deadline, f"{seen!r} is not {wanted!r}"
            time.sleep(0.05)

    def shut_down(self) -> None:
        """As a machine is: every service is stopped in its order."""
        assert self.nspawn is not None
        os.kill(self.init, POWEROFF)
        self.nspawn.wait(CALL_S)
        self.nspawn, self.init = None, 0

    def close(self) -> None:
        if self.nspawn is not None:
            for pid in filter(None, (self.init, self.nspawn.pid)):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.nspawn.wait(CALL_S)
            self.nspawn = None
        subprocess.run(["umount", "--lazy", str(self.root)], check=False)
        for group in filter(Path.exists, self.groups):
            deadline = time.monotonic() + CALL_S
            while not removed(group) and time.monotonic() < deadline:
                time.sleep(0.05)  # what was killed is still leaving
        shutil.rmtree(self.base, ignore_errors=True)


def removed(group: Path) -> bool:
    for where, _, _ in os.walk(group, topdown=False):
        try:
            os.rmdir(where)
        except OSError:
            return False
    return True


def child_called(name: str, parent: int) -> int:
    """A process that this one has made; 0: none. nspawn's own helper stands between."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(errors="replace")
        except OSError:
            continue
        called, _, rest = text.partition("(")[2].rpartition(") ")
        if called == name and int(rest.split()[1]) == parent:
            return int(stat.parent.name)
    return 0

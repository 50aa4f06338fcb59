"""`gpud install-service` below a directory: what it writes, leaves alone and takes away again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gpud.tools import units

GPUD = Path(sys.executable).with_name("gpud")
SERVICE = "etc/systemd/system/gpud.service"


def gpud(*words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(GPUD), *map(str, words)],
        capture_output=True, text=True, timeout=50, check=False, env=env,
    )  # fmt: skip


def below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_it_writes_and_takes_away_the_same(tmp_path: Path) -> None:
    done = gpud("install-service", "--root", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    wrote = below(tmp_path)
    assert wrote == {
        SERVICE, "etc/systemd/system/gpud-jobs.slice", "etc/sysusers.d/gpud.conf",
        "etc/tmpfiles.d/gpud.conf", "etc/gpud/gpud.toml",
    }  # fmt: skip
    said = set(done.stdout.splitlines())
    assert said == {f"wrote: {tmp_path / name}" for name in wrote}
    assert f"\nExecStart={GPUD} serve --config /etc/gpud/gpud.toml\n" in (
        (tmp_path / SERVICE).read_text()
    )
    again = gpud("install-service", "--root", tmp_path)
    assert all(line.startswith("there already: ") for line in again.stdout.splitlines())
    gone = gpud("uninstall-service", "--root", tmp_path)
    assert (gone.returncode, below(tmp_path)) == (0, set())
    assert not (tmp_path / "etc" / "gpud").exists()


def test_what_a_person_changed_is_left_alone(tmp_path: Path) -> None:
    gpud("install-service", "--root", tmp_path)
    changed = (tmp_path / SERVICE).read_text().replace("WatchdogSec=60", "WatchdogSec=30")
    (tmp_path / SERVICE).write_text(changed)
    other = tmp_path / "etc/tmpfiles.d/gpud.conf"
    other.unlink()
    other.symlink_to("/dev/null")
    done = gpud("install-service", "--root", tmp_path)
    assert done.returncode == 0
    assert f"left as it is: {tmp_path / SERVICE}, which somebody changed" in done.stdout
    assert f"left as it is: {other}, which somebody changed" in done.stdout
    gone = gpud("uninstall-service", "--root", tmp_path)
    assert f"left as it is: {tmp_path / SERVICE}, which somebody changed" in gone.stdout
    assert (tmp_path / SERVICE).read_text() == changed
    assert other.is_symlink()


def test_another_version_is_replaced(tmp_path: Path) -> None:
    (tmp_path / SERVICE).parent.mkdir(parents=True)
    (tmp_path / SERVICE).write_text(units.stamped("[Service]\nExecStart=/old/gpud serve\n"))
    done = gpud("install-service", "--root", tmp_path)
    assert f"replaced: {tmp_path / SERVICE}" in done.stdout
    assert "/old/gpud" not in (tmp_path / SERVICE).read_text()


def test_one_persons_own(tmp_path: Path) -> None:
    env = {"HOME": "/home/alice", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    done = gpud("install-service", "--user", "--root", tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    where = "home/alice/.config/systemd/user/"
    assert below(tmp_path) == {where + "gpud.service", where + "gpud-jobs.slice"}
    assert f"\nExecStart={GPUD} serve\n" in (tmp_path / where / "gpud.service").read_text()


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/opt/gpud/bin/gpud", "/opt/gpud/bin/gpud"),
        ("/home/a b/gpud", '"/home/a b/gpud"'),
        ('/a"b/100%/gpud', '"/a\\"b/100%%/gpud"'),
        ("/a\\b/gpud", '"/a\\\\b/gpud"'),
    ],
)
def test_any_path_can_be_the_program(path: str, written: str) -> None:
    assert units.word(path) == written


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("no directory")
    done = gpud("install-service", "--root", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"gpud install-service: cannot read {tmp_path / SERVICE}: not a")


@pytest.mark.parametrize("verb", ["install-service", "uninstall-service"])
def test_without_systemd_it_is_one_sentence(verb: str) -> None:
    if Path("/run/systemd/system").is_dir():
        pytest.skip("needs a machine that systemd does not run")
    done = gpud(verb)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2
    assert "the service: systemd does not run this machine" in done.stderr


def test_what_stands_for_nothing_is_no_stamp() -> None:
    assert units.is_as_written(units.stamped("x\n"))
    assert not units.is_as_written(units.stamped("x\n") + "y\n")
    assert not units.is_as_written("[Service]\n")
    assert not units.is_as_written("")

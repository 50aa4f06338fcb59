"""The state directory: who may have it, where it may be, and the token in its lock."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpud import paths
from gpud.errors import GpudError
from gpud.filesystem import is_network, type_of
from gpud.store import statedir
from gpud.store.statedir import StateDir


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    old = os.umask(0o002)
    yield
    os.umask(old)


def refusal(path: Path, *, configured: bool = True) -> GpudError:
    with pytest.raises(GpudError) as caught:
        StateDir.open(path, configured=configured).close()
    assert caught.value.kind == "storage"
    return caught.value


def test_it_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "gpud"
    directory = StateDir.open(path, configured=False)
    assert (directory.path, directory.note) == (path, "")
    for place in (path, path.parent, path.parent.parent):
        assert place.stat().st_mode & 0o777 == 0o700
    directory.close()
    StateDir.open(path, configured=True).close()


def test_the_lock_holds_a_fresh_token(tmp_path: Path) -> None:
    tokens = []
    for _ in range(2):
        directory = StateDir.open(tmp_path, configured=True)
        tokens.append(directory.token)
        assert (tmp_path / "lock").read_text() == f"{directory.token}\n"
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
        directory.close()
        directory.close()
    assert tokens[0] != tokens[1]
    assert all(re.fullmatch(r"\d{10}-[0-9a-f]{32}", token) for token in tokens)


def test_a_second_one_is_refused_and_the_first_keeps_its_token(tmp_path: Path) -> None:
    first = StateDir.open(tmp_path, configured=True)
    assert refusal(tmp_path).message == (
        f"cannot use {tmp_path}: another gpud (pid {os.getpid()}) has it"
    )
    assert (tmp_path / "lock").read_text() == f"{first.token}\n"
    first.close()


def test_a_lock_without_a_pid(tmp_path: Path) -> None:
    with open(tmp_path / "lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert refusal(tmp_path).message == f"cannot use {tmp_path}: another gpud has it"


def test_the_lock_ends_with_the_process(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from gpud.store.statedir import StateDir;"
        "StateDir.open(Path(sys.argv[1]), configured=True); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path], check=False)
    StateDir.open(tmp_path, configured=True).close()


def test_a_runner_that_looks_at_the_token_is_no_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(tmp_path / "lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        monkeypatch.setattr(statedir.time, "sleep", lambda _: other.close())
        StateDir.open(tmp_path, configured=True).close()


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_where_others_may_write(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    error = refusal(tmp_path)
    assert error.message == f"cannot use {tmp_path}: other users may write in it"
    assert error.hint == f"chmod go-w {tmp_path}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    assert refusal(tmp_path).message == (
        f"cannot use {tmp_path}: it belongs to another user (uid 65534)"
    )


def test_a_file_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.touch()
    assert refusal(path).message == f"cannot use {path}: it is not a directory"
    assert refusal(path / "x").message == f"cannot use {path / 'x'}: not a directory"


def test_where_nothing_can_be_made() -> None:
    path = Path("/proc/gpud")
    assert refusal(path).message == f"cannot use {path}: no such file or directory"


# -- network file systems ----------------------------------------------------------------------

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /home rw - nfs4 server:/home rw
31 30 0:41 / /home/me/local rw - xfs /dev/nvme0n1 rw
32 22 0:42 / /mnt/two\\040words rw,nosuid shared:7 master:2 - fuse.sshfs host: rw
33 22 0:43 / /data rw - ext4 /dev/a rw
34 22 0:44 / /data rw - cifs //server/data rw
"""


@pytest.mark.parametrize(
    ("path", "type_"),
    [
        ("/var/lib/gpud", "ext4"),
        ("/home/me/.local/state/gpud", "nfs4"),
        ("/home/me/local/gpud", "xfs"),
        ("/home/me/locality", "nfs4"),
        ("/homes", "ext4"),
        ("/home", "nfs4"),
        ("/mnt/two words/x", "fuse.sshfs"),
        ("/data/x", "cifs"),
    ],
)
def test_type_of(tmp_path: Path, path: str, type_: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert type_of(Path(path), mounts) == type_
    assert is_network(type_) == (type_ not in ("ext4", "xfs"))


def test_type_of_what_is_here() -> None:
    assert type_of(Path("/proc/self/status")) == "proc"
    assert type_of(Path("/"), Path("/nowhere")) == ""


@pytest.fixture
def nfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home on NFS, and the fallback in tmp_path too."""
    home = tmp_path / "home"
    monkeypatch.setattr(paths, "fallback_state_dir", lambda: tmp_path / "fallback")
    monkeypatch.setattr(paths, "state_dir", lambda: home / "gpud")
    monkeypatch.setattr(
        statedir, "type_of", lambda path: "nfs4" if path.is_relative_to(home) else "ext4"
    )
    return home


def test_a_configured_directory_on_nfs_is_refused(nfs: Path) -> None:
    error = refusal(nfs / "gpud")
    assert error.message == f"cannot use {nfs / 'gpud'}: it is on a network file system (nfs4)"
    assert not nfs.exists()


def test_the_default_directory_on_nfs_is_kept_elsewhere(nfs: Path, tmp_path: Path) -> None:
    fallback = tmp_path / "fallback"
    directory = StateDir.open(nfs / "gpud", configured=False)
    assert directory.path == fallback
    assert directory.note == (
        f"{nfs / 'gpud'} is on a network file system (nfs4): state is kept in {fallback}"
    )
    assert fallback.stat().st_mode & 0o777 == 0o700
    run = StateDir.open(nfs / "gpud" / "runs" / "1", configured=False)
    assert run.path == fallback / "runs" / "1"
    run.close()
    directory.close()


def test_a_fallback_that_others_may_enter(nfs: Path, tmp_path: Path) -> None:
    fallback = tmp_path / "fallback"
    fallback.mkdir(mode=0o755)
    error = refusal(nfs / "gpud", configured=False)
    assert error.message == f"cannot use {fallback}: other users may enter it"


def test_a_fallback_that_is_a_link(nfs: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "fallback").symlink_to(tmp_path / "elsewhere")
    error = refusal(nfs / "gpud", configured=False)
    assert error.message == f"cannot use {tmp_path / 'fallback'}: it is not a directory"

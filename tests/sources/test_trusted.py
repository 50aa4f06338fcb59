"""Files that others have a say in are refused, and it is said who."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpud.errors import GpudError
from gpud.sources.trusted import open_trusted

ADA, EVE = 41001, 41002

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "ada"
    path.mkdir(mode=0o755)
    os.chown(path, ADA, ADA)
    return path


@pytest.fixture
def queue(home: Path) -> Path:
    path = home / "gpu.queue"
    path.write_text("true\n")
    os.chown(path, ADA, ADA)
    path.chmod(0o644)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(GpudError) as caught:
        open_trusted(str(path), ADA)
    return caught.value.message


def read(path: Path) -> bytes:
    opened = open_trusted(str(path), ADA)
    with open(opened.fd, "rb") as file:
        assert opened.directory == (path.parent.stat().st_dev, path.parent.stat().st_ino)
        return file.read()


def test_ones_own_file_is_read_and_so_is_one_of_root(queue: Path) -> None:
    assert read(queue) == b"true\n"
    os.chown(queue, 0, 0)
    assert read(queue) == b"true\n"


def test_a_file_that_is_not_there(queue: Path) -> None:
    queue.unlink()
    assert open_trusted(str(queue), ADA).fd == -1
    assert "No such file" in refusal(queue / "x" / "y") or "not" in refusal(queue / "x" / "y")


@pytest.mark.parametrize(
    ("owner", "group", "mode", "who"),
    [
        (EVE, EVE, 0o644, f"user {EVE}"),
        (ADA, ADA, 0o646, "everybody"),
        (ADA, EVE, 0o664, f"group {EVE}"),
        (EVE, 0, 0o600, f"user {EVE}"),
    ],
)
def test_others_that_may_write_it(queue: Path, owner: int, group: int, mode: int, who: str) -> None:
    os.chown(queue, owner, group)
    queue.chmod(mode)
    assert f"{who} may write to {queue}" in refusal(queue)
    os.chown(queue, ADA, ADA)
    queue.chmod(0o644)
    os.chown(queue.parent, owner, group)
    queue.parent.chmod(mode | 0o111)
    assert f"{who} may write in {queue.parent}" in refusal(queue)


def test_a_shared_directory_with_the_sticky_bit_is_fine(queue: Path) -> None:
    os.chown(queue.parent, 0, 0)
    queue.parent.chmod(0o1777)
    assert read(queue) == b"true\n"


def test_links_are_followed_only_where_they_are_roots(queue: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root's\n")
    link = queue.parent / "link"
    link.symlink_to(secret)
    os.chown(link, ADA, ADA, follow_symlinks=False)
    assert f"{link} is a symbolic link of user {ADA}" in refusal(link)
    elsewhere = queue.parent / "elsewhere"
    elsewhere.symlink_to(tmp_path)
    os.chown(elsewhere, ADA, ADA, follow_symlinks=False)
    assert "symbolic link" in refusal(elsewhere / "secret")
    tmp_path.chmod(0o755)
    (tmp_path / "of-root").symlink_to(queue.parent)
    assert open_trusted(str(tmp_path / "of-root" / "gpu.queue"), ADA).fd >= 0
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert "symbolic link" in refusal(loop)
    hardlink = queue.parent / "hard"
    os.link(secret, hardlink)
    assert "has other names" in refusal(hardlink)  # else it would be read for who linked it

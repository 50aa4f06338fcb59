"""Opening a file that only one user may have a say in: what system mode reads jobs from.

Called by sources/file_sight.py and sources/build.py at every read, as root. Every directory on the
way is opened by itself and looked at, so nothing can be exchanged between the look and the open.
Rule 1: nobody but root and that user may write the file, or exchange it or a directory above it.
Rule 2: a symbolic link is followed only if it is root's, in a directory where root alone may write.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from typing import NamedTuple

from gpud.errors import GpudError, why_os

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
MOST_LINKS = 20
ROOT = 0


class Opened(NamedTuple):
    fd: int  # -1: the file is not in its directory
    directory: tuple[int, int]


def open_trusted(path: str, uid: int) -> Opened:
    """`path` is absolute. Raises GpudError, which says who has a say in it beside user `uid`; and
    OSError."""
    parts, links = _parts(path), 0
    at, here = os.open("/", DIRECTORY), "/"
    try:
        around = os.fstat(at)
        while True:
            name, rest = parts[0], parts[1:]
            try:
                found = os.stat(name, dir_fd=at, follow_symlinks=False)
            except FileNotFoundError as error:
                if rest:
                    raise _no(path, f"{os.path.join(here, name)}: {why_os(error)}") from error
                return Opened(-1, (around.st_dev, around.st_ino))
            place = os.path.join(here, name)
            if stat.S_ISLNK(found.st_mode):
                links += 1
                if found.st_uid != ROOT or writers(around, ROOT) or links > MOST_LINKS:
                    raise _no(
                        path,
                        f"{place} is a symbolic link of user {_user(found.st_uid)}, and those are "
                        "not followed",
                    )
                target = os.readlink(name, dir_fd=at)
                parts = [*_parts(os.path.join(here, target)), *rest]
                os.close(at)
                at, here = os.open("/", DIRECTORY), "/"
                around = os.fstat(at)
                continue
            fd = os.open(name, DIRECTORY if rest else FILE, dir_fd=at)
            around_file = os.fstat(fd)
            if who := writers(around_file, uid):
                os.close(fd)
                raise _no(
                    path,
                    f"{who} may write {'in ' if rest else 'to '}{place}, and its jobs run as user "
                    f"{_user(uid)}",
                    f"chown {_user(uid)} {place}; chmod go-w {place}",
                )
            if not rest and around_file.st_uid == ROOT != uid and around_file.st_nlink > 1:
                os.close(fd)
                raise _no(path, f"{place} is root's and has other names (hard links)")
            if not rest:
                return Opened(fd, (around.st_dev, around.st_ino))
            os.close(at)
            at, here, around, parts = fd, place, around_file, rest
    finally:
        os.close(at)


def writers(found: os.stat_result, uid: int) -> str:
    """Who may change it beside root and user `uid`; "": nobody. In a directory with the sticky bit
    nobody can exchange what is another's."""
    if found.st_uid not in (ROOT, uid):
        return f"user {_user(found.st_uid)}"
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
        return ""
    if found.st_mode & 0o002:
        return "everybody"
    if found.st_mode & 0o020 and found.st_gid != ROOT and not _is_private(found.st_gid, uid):
        return f"group {_group(found.st_gid)}"
    return ""


def _is_private(gid: int, uid: int) -> bool:
    """A group of the user's own: of the same name, and with nobody else in it."""
    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(uid)
    except KeyError:
        return False
    alone = group.gr_name == user.pw_name and user.pw_gid == gid
    return alone and set(group.gr_mem) <= {user.pw_name}


def _parts(path: str) -> list[str]:
    return [part for part in os.path.normpath(path).split("/") if part]


def _no(path: str, why: str, hint: str = "") -> GpudError:
    return GpudError(f"cannot read {path}: {why}", hint=hint)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        group = grp.getgrgid(gid)
    except KeyError:
        return str(gid)
    return f"{group.gr_name} ({', '.join(group.gr_mem)})" if group.gr_mem else group.gr_name

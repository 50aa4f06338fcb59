"""Making the process of a command: by vfork as the runner's user, by fork as another.

Called by start.py. Returns a pid or raises: when it returns, the program runs. Must not know of
attempts, and leaves the runner's own directory, umask and signals as they were.
"""

import errno
import os
import signal

from gpud.runner.command import CannotStart, Command, Environ, User
from gpud.runner.wire import shown

SHORT_OF = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT}
REASONS = {
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "is not a directory",
    errno.EACCES: "may not be used by this user",
}
NULL_BYTE = "a null byte stands in it, its environment or a path"

# Run by the other user's own rights, with the log as stdout and a pipe as stderr. What is written
# to the pipe says why the job cannot start; the last line gives the pipe up.
AS_USER = b"""cd -- "$1" 2>/dev/null || { echo cwd >&2; exit 126; }
unset OLDPWD; shift
case $1 in */*) [ -f "$1" ] && [ -x "$1" ];; *) command -v -- "$1" >/dev/null;; esac ||
{ echo shell >&2; exit 126; }
exec "$@" 2>&1"""


def spawn(c: Command, environ: Environ, output: int) -> int:
    """In a session of its own, with the runner's stdin, which is /dev/null."""
    try:
        os.chdir(c.cwd)
    except OSError as e:
        raise short_of(e) or CannotStart("cwd", f"the directory {shown(c.cwd)} {reason(e)}") from e
    umask = -1 if c.umask is None else os.umask(c.umask)
    try:
        return os.posix_spawn(
            program(c.argv[0], environ), c.argv, environ, setsid=True, setsigmask=(),
            file_actions=((os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)),
        )  # fmt: skip
    except OSError as e:
        raise short_of(e) or CannotStart("shell", f"{shown(c.argv[0])} {reason(e)}") from e
    finally:
        if umask >= 0:
            os.umask(umask)
        os.chdir("/")


def program(name: bytes, environ: Environ) -> bytes:
    """The path of a program that is named without one."""
    if b"/" not in name:
        for where in environ.get(b"PATH", os.defpath.encode()).split(b":"):
            path = os.path.join(where, name)
            if os.access(path, os.X_OK) and os.path.isfile(path):
                return path
    return name


def spawn_as(user: User, c: Command, environ: Environ, output: int, gate: int) -> int:
    """AS_USER with the writing end of a pipe as its stderr. To change user, posix_spawn is not
    enough: this is a fork, of which the parent waits for the exec, as of a vfork."""
    why, why_in = os.pipe2(os.O_CLOEXEC)
    # Until it is another program, no handler of the runner's runs in the child.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
    try:
        pid = os.fork()
        if pid == 0:
            become(user, c, environ, output, gate, why_in)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(why_in)
    try:
        number = int(os.read(why, 16) or 0)
    finally:
        os.close(why)
    if number == 0:
        return pid
    os.waitpid(pid, 0)
    e = OSError(number, os.strerror(number))
    cannot = f"the runner cannot become user {user.uid}: {reason(e)}"
    raise short_of(e) or CannotStart("user", cannot)


def become(user: User, c: Command, environ: Environ, output: int, gate: int, why_in: int) -> None:
    """In the child; never returns."""
    number = errno.EINVAL
    try:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(gate, 2)
        if c.umask is not None:
            os.umask(c.umask)
        os.setgroups(user.groups)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.execve(b"/bin/sh", [b"/bin/sh", b"-c", AS_USER, b"sh", c.cwd, *c.argv], environ)
    except OSError as e:
        number = e.errno or number
    finally:
        os.write(why_in, b"%d" % number)
        os._exit(126)


def reason(e: OSError) -> str:
    return REASONS.get(e.errno or 0) or e.strerror or str(e)


def short_of(e: OSError) -> CannotStart | None:
    """What is the machine's fault, or the kernel's, whatever was tried."""
    if e.errno in SHORT_OF:
        return CannotStart("resources", f"the machine is short of something: {reason(e)}")
    if e.errno == errno.E2BIG:
        return CannotStart("command", "it or its environment is too long for the kernel")
    return None

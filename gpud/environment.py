"""Which part of a person's environment a job inherits: pure, standard library only.

Owns one rule: what is captured from somebody's shell loses what was meant for that shell alone
(the GPU it was given, its Slurm job, its terminal multiplexer, its login) and what systemd told
the daemon about itself. The way to the ssh agent is kept: git and rsync in jobs log in with it, as
long as it is there. gpuctl and the sources call `capture`; it must not read `os.environ` itself,
and nothing here is ever logged: values may be secrets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_DROPPED = frozenset(
    (
        b"CUDA_VISIBLE_DEVICES",  # the lease sets it
        b"HIP_VISIBLE_DEVICES",
        # These would give the lease's indexes another meaning.
        b"CUDA_DEVICE_ORDER",
        b"ROCR_VISIBLE_DEVICES",
        b"GPU_DEVICE_ORDINAL",
        # sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3): about the daemon, not its jobs
        b"NOTIFY_SOCKET",
        b"WATCHDOG_PID",
        b"WATCHDOG_USEC",
        b"LISTEN_PID",
        b"LISTEN_FDS",
        b"LISTEN_FDNAMES",
        b"INVOCATION_ID",
        b"JOURNAL_STREAM",
        b"MAINPID",
    )
)
_DROPPED_PREFIXES = (b"GPUD_", b"SLURM_", b"TMUX", b"SSH_")
_KEPT = frozenset((b"SSH_AUTH_SOCK",))


def is_dropped(name: bytes) -> bool:
    return name in _DROPPED or (name.startswith(_DROPPED_PREFIXES) and name not in _KEPT)


def capture(environ: Mapping[bytes, bytes]) -> list[bytes]:
    """`K=V` strings, sorted by name, without the dropped names and what no process can be given."""
    return [
        name + b"=" + environ[name]
        for name in sorted(environ)
        if name
        and b"=" not in name
        and b"\0" not in name
        and b"\0" not in environ[name]
        and not is_dropped(name)
    ]


def pack(pairs: Iterable[bytes]) -> bytes:
    """The form a job's spec carries: `K=V` strings joined by NUL."""
    return b"\0".join(pairs)


def unpack(env: bytes) -> dict[bytes, bytes]:
    """The inverse of `pack`, by name."""
    pairs = (item.partition(b"=") for item in env.split(b"\0") if item)
    return {name: value for name, _, value in pairs}

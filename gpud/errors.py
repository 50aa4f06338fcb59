"""What gpud says when something cannot be done.

One class for every expected failure: a *kind* for machines, a sentence for people ("cannot open
/x/gpu.queue: permission denied"), a hint where one helps. Everything that is not a `GpudError` is
a bug, and ends the process with a traceback. Standard library only; imported by every floor.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_UNREACHABLE = 4
EXIT_CONFIG = 78  # sysexits.h EX_CONFIG: systemd's RestartPreventExitStatus in gpud.service

# kind -> exit status; the kinds are part of the protocol (docs/protocol.md).
EXIT_OF_KIND = {
    "refused": EXIT_REFUSED,
    "usage": EXIT_USAGE,
    "not-found": EXIT_NOT_FOUND,
    "unreachable": EXIT_UNREACHABLE,
    "storage": EXIT_REFUSED,
    "protocol": EXIT_REFUSED,
    "config": EXIT_CONFIG,
}


class GpudError(Exception):
    """An expected failure.

    `kind` is one of `EXIT_OF_KIND`; `message` reads "cannot <do what>: <why>"; `hint` says what to
    do about it, or is empty.
    """

    def __init__(self, message: str, *, kind: str = "refused", hint: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint

    @property
    def exit_status(self) -> int:
        return EXIT_OF_KIND.get(self.kind, EXIT_REFUSED)

    def for_people(self, program: str) -> str:
        """The lines to print on stderr."""
        text = f"{program}: {self.message}"
        return f"{text}\n  {self.hint}" if self.hint else text


def why_os(error: OSError) -> str:
    """The reason of an `OSError` as a clause: "permission denied"."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]

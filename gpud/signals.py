"""What people call a signal. Standard library only; every floor may use it.

`signal` is imported when the first name is asked for: it brings `enum` along, and a `gpuctl
submit` does without both.
"""

from __future__ import annotations

NOT_CAUGHT = ("SIGKILL", "SIGSTOP", "SIGCONT")  # the last one is what continues a paused job


def signal_name(number: int) -> str:
    """ "SIGKILL"; "signal 200" for one without a name."""
    from signal import Signals

    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


def signal_number(text: str) -> int:
    """Of "SIGUSR1", "usr1" or "10". Raises ValueError for what is none that a program can act on.

    33 and 32 belong to the C library.
    """
    from signal import NSIG, Signals

    word = text.strip().upper()
    if word.isascii() and word.isdecimal() and len(word) < 4:
        number = int(word)
    else:
        name = word if word.startswith("SIG") else f"SIG{word}"
        number = Signals.__members__[name].value if name in Signals.__members__ else 0
    if not 0 < number < NSIG or number in (32, 33) or signal_name(number) in NOT_CAUGHT:
        raise ValueError(text)
    return number

"""What people call a signal. Standard library only; every floor may use it.

`signal` is imported when the first name is asked for: it brings `enum` along, and a `gpuctl
submit` does without both.
"""

from __future__ import annotations


def signal_name(number: int) -> str:
    """ "SIGKILL"; "signal 200" for one without a name."""
    from signal import Signals

    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"

"""What a probe of `gpud doctor` looks at and what it finds; probes run so that none harms another.

A probe is a function from a `Situation` to findings. It may crash or hang: that is a finding too.
Called by doctor.py and the probe_*.py files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from gpud import paths
from gpud.config.schema import Config

Level = Literal["ok", "note", "problem"]


class Finding(NamedTuple):
    """`do` says what to do about it; every problem has one."""

    level: Level
    subject: str
    text: str
    do: str = ""


class Situation(NamedTuple):
    """What is asked about. `config` is the default where the file cannot be used."""

    config: Config
    config_path: Path | None
    config_problems: Sequence[str]

    @property
    def state_dir(self) -> Path:
        """May touch a dead mount: for use inside probes only."""
        if self.config.state_dir:
            return Path(self.config.state_dir)
        from gpud.filesystem import is_network, type_of

        usual = paths.state_dir()
        return paths.fallback_state_dir() if is_network(type_of(str(usual))) else usual

    @property
    def socket(self) -> Path:
        if self.config.socket:
            return Path(self.config.socket)
        return paths.socket_path(self.state_dir)


Probe = Callable[[Situation], Iterable[Finding]]


def run(probes: Sequence[Probe], situation: Situation, limit_s: float) -> Iterator[Finding]:
    """All at the same time, the findings in the order of `probes`; none is waited for longer.

    The threads of probes that hang are left behind: they are daemons and end with the process.
    """
    answers: list[list[Finding]] = [[] for _ in probes]
    threads = []
    for probe, answer in zip(probes, answers, strict=True):
        thread = threading.Thread(target=_safely, args=(probe, situation, answer), daemon=True)
        thread.start()
        threads.append(thread)
    deadline_s = time.monotonic() + limit_s
    for probe, answer, thread in zip(probes, answers, threads, strict=True):
        thread.join(max(0.0, deadline_s - time.monotonic()))
        yield from list(answer)
        if thread.is_alive():
            yield Finding(
                "problem",
                probe.__name__,
                f"no answer within {limit_s:g} s",
                "see what hangs: a dead mount, or a driver that does not answer (dmesg)",
            )


def _safely(probe: Probe, situation: Situation, answer: list[Finding]) -> None:
    try:
        answer.extend(probe(situation))
    except Exception as error:
        what = f"this check itself failed: {type(error).__name__}: {error}"
        answer.append(Finding("problem", probe.__name__, what, "please report it: a bug of gpud"))

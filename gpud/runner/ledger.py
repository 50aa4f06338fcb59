"""All attempts that are not forgotten, and what the journal says of them.

Owns the journal. Written by start.py, ending.py, orders.py and adopt.py. What they note is written
at the end of the turn (`flush`), before the daemon hears of it; `begin` writes at once,
and what was noted before with it.
"""

from gpud.runner.attempt import Attempt, Key
from gpud.runner.journal import Journal
from gpud.runner.machine import log

COMPACT_BYTES = 1 << 20


class Ledger:
    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.attempts: dict[Key, Attempt] = {}  # until forgotten
        self.live: dict[Key, Attempt] = {}  # until ended
        self.forgotten: set[Key] = set()  # those the journal still names
        self.pending = bytearray()  # lines to be written at the end of this turn

    def begin(self, a: Attempt) -> None:
        """Write its `starting`. The reserve is not for starts. Raises OSError."""
        line = a.starting_line()
        self.journal.write(bytes(self.pending) + line, spend_reserve=False)
        self.pending.clear()
        a.lines.append(line)

    def note(self, a: Attempt, line: bytes) -> None:
        a.lines.append(line)
        self.pending += line

    def finish(self, a: Attempt, phase: str, line: bytes) -> None:
        a.phase, a.end = phase, line
        self.note(a, line)
        del self.live[a.key]

    def forget(self, keys: list[Key]) -> None:
        done = [key for key in keys if key in self.attempts and self.attempts[key].end]
        if done:
            for key in done:
                del self.attempts[key]
            self.forgotten.update(done)
            pairs = ",".join([f"[{job},{attempt}]" for job, attempt in done])
            self.pending += f'{{"ev":"forgotten","attempts":[{pairs}]}}\n'.encode()

    def listing(self) -> list[dict[str, object]]:
        return [
            {"job": a.job, "attempt": a.attempt, "phase": a.shown_phase(), "pid": a.pid}
            for a in self.attempts.values()
        ]

    def flush(self) -> None:
        if self.pending:
            try:
                self.journal.write(bytes(self.pending))
                self.pending.clear()
            except OSError as e:  # kept, and tried again next turn; the daemon hears of it anyway
                log(f"cannot write the journal: {e.strerror}")
        if self.journal.size > COMPACT_BYTES:
            useful = sum(len(line) for a in self.attempts.values() for line in a.lines)
            if 2 * useful <= self.journal.size:
                self.compact()

    def compact(self) -> None:
        try:
            self.rewrite()
        except OSError as e:
            log(f"cannot compact the journal: {e.strerror}")

    def rewrite(self) -> None:
        """Only what is of use. Raises OSError, and then all is as before."""
        self.journal.replace(line for a in self.attempts.values() for line in a.lines)
        self.pending.clear()
        self.forgotten.clear()

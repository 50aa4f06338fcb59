"""The console of `gpud run`: whole lines, prefixes, a closed reader."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from gpud.daemon.console import Tail

SCRIPT = """
import os, sys
from gpud.daemon.console import Console, Ended, Note, Started
log = sys.argv[1]
console = Console(prefix=False, progress=None)
console.put(Started(1, log, "started"))
for n in range(2000):
    console.put(Note("note"))
console.put(Ended(1, "ended"))
console.close()
print("closed", file=sys.stderr)
"""


def test_only_whole_lines_appear_until_the_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    tail = Tail(str(log), b"")
    assert tail.more(last=False) == b""
    log.write_bytes(b"one\ntw")
    assert tail.more(last=False) == b"one\n"
    with log.open("ab") as file:
        file.write(b"o\nthr")
    assert tail.more(last=False) == b"two\n"
    assert tail.more(last=True) == b"thr\n"


def test_a_prefix_stands_before_each_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"a\n\nb")
    assert Tail(str(log), b"[7] ").more(last=True) == b"[7] a\n[7] \n[7] b\n"


def test_no_log_is_no_output(tmp_path: Path) -> None:
    assert Tail(str(tmp_path / "none"), b"").more(last=True) == b""


def test_a_reader_that_goes_away_stops_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x\n" * 200_000)
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(log)],
        stdout=write_end, stderr=subprocess.PIPE, timeout=30, check=False, text=True,
    )  # fmt: skip
    os.close(write_end)
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == "closed"
    assert done.stderr.splitlines()[-2] == "ended"

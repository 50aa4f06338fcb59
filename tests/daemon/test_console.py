"""The console of `gpud run`: whole lines, prefixes, a closed reader."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from gpud.daemon.console import CHUNK_BYTES, Tail

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

WITHOUT_OUTPUT = """
import sys
from gpud.daemon.console import Console, Ended, Started
console = Console(prefix=False, progress=None)
console.put(Started(1, sys.argv[1], ""))
sys.stdin.readline()
console.put(Ended(1, "", has_output=False), Started(2, sys.argv[1], ""), Ended(2, "", False))
console.close()
"""


def more(tail: Tail) -> bytes:
    return b"".join(tail.more())


def rest(tail: Tail) -> bytes:
    return b"".join(tail.rest())


def test_only_whole_lines_appear_until_the_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    tail = Tail(str(log), b"")
    assert more(tail) == b""
    log.write_bytes(b"one\ntw")
    assert more(tail) == b"one\n"
    with log.open("ab") as file:
        file.write(b"o\nthr")
    assert more(tail) == b"two\n"
    assert rest(tail) == b"thr\n"


def test_a_progress_bar_is_seen_while_it_moves(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"10%\r20%\r30")
    tail = Tail(str(log), b"[1] ")
    assert more(tail) == b"[1] 10%\r20%\r"
    with log.open("ab") as file:
        file.write(b"%\r")
    assert rest(tail) == b"30%\r\n"


def test_a_line_without_end_is_passed_on_in_pieces(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * (5 * CHUNK_BYTES + 7))
    tail = Tail(str(log), b"")
    pieces = [*tail.more(), *tail.rest()]
    assert b"".join(pieces) == b"x" * (5 * CHUNK_BYTES + 7) + b"\n"
    assert max(map(len, pieces)) <= 2 * CHUNK_BYTES


def test_a_prefix_stands_before_each_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"a\n\nb")
    assert rest(Tail(str(log), b"[7] ")) == b"[7] a\n[7] \n[7] b\n"


def test_no_log_is_no_output(tmp_path: Path) -> None:
    assert rest(Tail(str(tmp_path / "none"), b"")) == b""


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


def test_what_is_said_to_have_no_output_is_not_looked_at_unless_it_was_before(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\ntwo")
    with subprocess.Popen(
        [sys.executable, "-c", WITHOUT_OUTPUT, str(log)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"one\n"  # of job 1, while it runs
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.read() == b"two\n"  # nothing of job 2

"""What a person sees: gpuctl and a real daemon, in pseudo-terminals of 80 and of 200 columns.

Each act is a story told in commands; its screens are held against golden/NAME-WIDTH.txt, with
times, directories and people made alike. How columns are laid out is in tests/ctl/test_screens.py.
After a change that is meant: `GPUCTL_GOLDEN=write python -m pytest
tests/end_to_end/test_terminal.py` writes the files again; read the diff.
"""

from __future__ import annotations

import getpass
import os
import pty
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.end_to_end.conftest import GPUCTL, TIMEOUT_S, Box

GOLDEN = Path(__file__).parent / "golden"
SLEEP = "sleep 1000"

# `$ command < what is typed`; a line without $ is a comment in the golden file.
ACTS: dict[str, Sequence[str]] = {
    "order": (
        f"$ submit --name first '{SLEEP}'",
        "$ submit --name second --after @ true",
        "$ submit --name third --after-any 1 --after-failed wait true",
        "$ submit --name never --after 2 --deadline +10000d true",
        "$ submit --after 9 true",
        "$ submit --begin 25:00 true",
        "$ submit --time-limit soon true",
        "$ ls",
        "$ why 2",
        "$ why 4",
        "$ cancel 2",
        "$ ls state:cancelled",
        "$ why 4",
        "$ retry 4",
    ),
    # More than a week ahead, so that each moment is a date, which is as long as any other.
    "when": (
        f"$ submit --time-limit 200h '{SLEEP}'",
        f"$ submit --time-limit 300h --gpus 2 '{SLEEP}'",
        f"$ submit --time-limit 180h --array 0-3 '{SLEEP}'",
        "$ submit --hold true",
        f"$ submit --begin +2000.5h '{SLEEP}'",
        "$ submit --priority -1 true",
        "$ why 2",
        "$ why 3[2]",
        "$ why 7",
        "$ why 8",
        "$ why 9",
        "$ why all",
    ),
    "arrays": (
        f"$ submit --array 0,2,5-19 --name sweep '{SLEEP}'",
        "$ submit --after @ --name eval true",
        "$ ls",
        "$ why 1",
        "$ why 1[9]",
        "$ why 18",
        "$ hold 1[5-6]",
        "$ cancel 1 < n",
        "$ ls 1",
        "$ show 1",
        "$ show 1[7]",
        "$ cancel 1[9]",
        "$ ls 1",
        "$ show 1[4]",
        "$ submit --array 5-1 true",
        "",
    ),
    "groups": (
        "$ group lr --limit 1 --max-fails 2",
        f"$ submit --group lr -l sweep=lr -l seed=1 '{SLEEP}'",
        f"$ submit --array 0-3%2 --group lr --priority urgent --name sweep '{SLEEP}'",
        "$ submit --group 'a b' true",
        "$ submit -l sweep true",
        "$ submit --priority high true",
        "$ ls group:lr",
        "$ ls label:sweep=lr",
        "$ show 1",
        "$ groups",
        "$ users",
        "$ why 1",
        "$ group lr --limit none --max-fails default",
        "$ groups",
        "$ group nobody",
        "$ ls group:nobody",
    ),
    "changing": (
        "$ submit --name one python one.py",
        "$ submit --name two --after @ python two.py",
        "$ submit --name three --array 0-3 python three.py",
        "$ edit 2 --priority 9 --gpus 1 -l a=b --group g --after none",
        "$ show 2",
        "$ move 3 --first",
        "$ ls",
        "$ swap 1 2",
        "$ ls",
        "$ edit 1 --after 2",
        "$ edit 2 --after 1",
        "$ edit 1 --gpus 3",
        "$ edit 99 --priority 1",
        "$ move 1 --before 99",
        "$ move 1",
        "$ swap 1",
    ),
}

ALIKE = [
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    (re.compile(r"\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d)?"), "DATE"),
    (re.compile(r"\d\d:\d\d:\d\d"), "CLOCK"),
    (re.compile(r"\b(about) \d\d:\d\d"), r"\1 HH:MM"),
    (re.compile(r"\b\d+(\.\d)?(ms|s|m)( ago)?\b(?! \d)"), "TIME"),
    (re.compile(r" {2,}"), "  "),  # how wide a time is decides how wide a column is
    (re.compile(r"\b\d+ variables"), "N variables"),
    (re.compile(rf"^{re.escape(getpass.getuser())}  ", re.M), "u  "),
]


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("act", ACTS)
def test_what_a_person_sees(box: Box, act: str, width: int) -> None:
    box.serve(gpus="0 1")
    box.ctl("drain")  # so that nothing moves between two looks
    screens = []
    for line in ACTS[act]:
        if line.startswith("$ "):
            command, _, typed = line[2:].partition(" < ")
            screens.append(f"$ gpuctl {command}\n{on_terminal(box, command, typed, width)}")
        elif line:
            screens.append(f"# {line}\n")
    found = alike("\n".join(screens), box)
    tables = [line for line in found.splitlines() if not line.startswith(("$", "gpuctl: "))]
    assert all(len(line) <= width for line in tables)
    path = GOLDEN / f"{act}-{width}.txt"
    if os.environ.get("GPUCTL_GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(found)
    assert found == path.read_text(), "see the docstring"


def on_terminal(box: Box, command: str, typed: str, width: int) -> str:
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [GPUCTL, *shlex.split(command)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**box.env, "TERM": "xterm", "COLUMNS": str(width), "TZ": "UTC"},
        cwd=box.home,
        start_new_session=True,
    )
    os.close(theirs)
    if typed:
        os.write(ours, typed.encode() + b"\n")
    shown = bytearray()
    try:
        while data := os.read(ours, 1 << 16):
            shown += data
    except OSError:
        pass  # EIO: nobody has the other side any more
    os.close(ours)
    status = child.wait(TIMEOUT_S)
    text = shown.decode().replace("\r\n", "\n")
    return text + (f"(exit status {status})\n" if status else "")


def alike(text: str, box: Box) -> str:
    text = text.replace(str(box.home), "/home/u")
    for pattern, replacement in ALIKE:
        text = pattern.sub(replacement, text)
    user = re.compile(r"^(user +)\S+$", re.MULTILINE)
    return re.sub(r" +$", "", user.sub(r"\1u", text), flags=re.MULTILINE)

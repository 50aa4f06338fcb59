"""What the verbs say where nobody can read it: a sentence, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERBS = pytest.mark.parametrize("verb", ["check", "doctor"])


def gpud(verb: str, home: Path, stdout: int | None, end: str = "") -> tuple[int, str]:
    config = home / "gpud.toml"
    config.write_text(f'state_dir = "{home}/state"\n')
    line = f'exec "{sys.executable}" -m gpud.main {verb} --config {config} {end}'
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONPATH": str(ROOT), "HOME": str(home), "PATH": os.environ["PATH"]},
    )
    return done.returncode, done.stderr


@VERBS
def test_a_full_disk_is_a_sentence(verb: str, tmp_path: Path) -> None:
    why = "cannot write the output: no space left on device"
    assert gpud(verb, tmp_path, None, "> /dev/full") == (1, f"gpud {verb}: {why}\n")


@VERBS
def test_a_reader_that_has_gone_is_none(verb: str, tmp_path: Path) -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    assert gpud(verb, tmp_path, ours) == (1, "")
    os.close(ours)


@VERBS
def test_nobody_needs_to_listen(verb: str, tmp_path: Path) -> None:
    status, errors = gpud(verb, tmp_path, None, ">&-")
    assert errors == ""
    assert verb == "doctor" or status == 0

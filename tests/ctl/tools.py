"""How the tests run gpuctl as a process, and what comes of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import gpud

PROGRAM = [sys.executable, "-c", "import sys; from gpud.ctl.main import main; sys.exit(main())"]
ROOT = str(Path(gpud.__file__).parents[1])


class Result:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    def __repr__(self) -> str:
        return f"status {self.status}\n--- out\n{self.out}\n--- err\n{self.err}"


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": ROOT, **more}

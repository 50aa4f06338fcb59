"""The benchmarks run, each in its tiniest form. No time is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .__main__ import GROUPS, main
from .limits import LIMITS


@pytest.mark.parametrize("group", GROUPS)
def test_group(group: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    assert main(["--smoke", "--json", str(file), "--dir", str(tmp_path), group]) == 0
    figures = json.loads(file.read_text())["figures"]
    assert figures
    for figure in figures:
        assert figure["key"] in LIMITS
        assert "skipped" in figure or figure["samples"]
        assert LIMITS[figure["key"]].what in capsys.readouterr().out or len(figures) > 1


def test_check_says_what_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    from . import __main__ as command
    from .measure import Measured

    monkeypatch.setattr(command, "GROUPS", {"made-up": lambda bench: [Measured("growth", [9.0])]})
    assert main(["made-up", "--check"]) == 1
    assert main(["made-up"]) == 0

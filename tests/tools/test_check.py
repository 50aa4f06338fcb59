"""`gpud check`: every problem a line, and the status that keeps systemd from trying again."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud.errors import EXIT_CONFIG
from gpud.tools.check import main


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gpud.toml"


def source(name: str) -> str:
    return f'[source.{name}]\ntype = "queue-file"\npath = "{name}.queue"\n'


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("", "every GPU, no source"),
        ("[pool]\ngpus = [0, 0, 1]\n" + source("a"), "2 GPUs, 1 source"),
        ('[pool]\ngpus = ["none"]\n' + source("a") + source("b"), "no GPU, 2 sources"),
        ("[pool]\ngpus = [3]\n", "1 GPU, no source"),
    ],
)
def test_a_good_file(
    file: Path, capsys: pytest.CaptureFixture[str], text: str, summary: str
) -> None:
    file.write_text(text)
    assert main(["--config", str(file)]) == 0
    assert capsys.readouterr() == (f"{file}: fine: {summary}\n", "")


def test_problems_come_one_a_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text('[log]\nlevel = "loud"\n[poool]\n')
    assert main(["--config", str(file)]) == EXIT_CONFIG
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f'{file}:2: log.level cannot be "loud": it can be debug, error, info, warning',
        f"{file}:3: unknown key poool: did you mean pool?",
    ]


def test_a_missing_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(file)]) == EXIT_CONFIG
    assert capsys.readouterr().err == f"{file}: cannot read it: no such file or directory\n"


def test_without_a_file_the_defaults_are_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gpud.tools.check.default_path", lambda: None)
    assert main([]) == 0
    assert "runs on its defaults" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setenv("GPUD_CONFIG", str(tmp_path / "missing.toml"))
    assert main([]) == EXIT_CONFIG


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "gpud check --config gpud.toml" in capsys.readouterr().out

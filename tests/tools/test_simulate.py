"""`gpud simulate` as a user meets it: by its command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpud.ctl import render
from gpud.tools.side_by_side import duration

DOCS = Path(__file__).parents[2] / "docs" / "simulate.md"
SWEEP = "duration,count\n40m,60\n"


def gpud_simulate(
    *words: str, cwd: Path | None = None, input: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gpud.main", "simulate", *words],
        cwd=cwd,
        input=input,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONPATH": str(DOCS.parents[1]), "PYTHONIOENCODING": "utf-8"},
    )


def test_the_page_shows_what_the_command_says(tmp_path: Path) -> None:
    page = DOCS.read_text()
    [trace] = re.findall(r"^```csv\n(.*?)^```", page, re.S | re.M)
    (tmp_path / "sweep.csv").write_text(trace)
    shown = re.findall(r"^```console\n\$ (.*?)\n(.*?)^```", page, re.S | re.M)
    assert len(shown) == 2
    for command, output in shown:
        text, _, verb = command.rpartition(" | ")
        given = re.sub("^printf '(.*)'$", r"\1", text).replace("\\n", "\n")
        words = verb.removeprefix("gpud simulate ").split()
        done = gpud_simulate(*words, cwd=tmp_path, input=given)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == output


def test_standard_input() -> None:
    done = gpud_simulate("-", "--gpus", "4", input=SWEEP)
    assert done.returncode == 0
    assert done.stdout.startswith("standard input\n60 jobs, 1d16h of GPU time\n\n")
    assert re.search(r"^last job done after +10h +10h$", done.stdout, re.M)


def test_every_line_fits_eighty_columns(tmp_path: Path) -> None:
    name = "n" * 200
    (tmp_path / "t.csv").write_text(f"duration,gpus,name,submit\n100d,9,{name},3000d\n1h,0,,1\n")
    done = gpud_simulate("t.csv", "--gpus", "1,2,3,4,5,16", "--vram", "80G", cwd=tmp_path)
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stdout.count("gpud     FIFO") == 6
    assert "With 1 GPU, 2 jobs are refused:" in done.stdout
    assert "needs the lane cpu, which has no slots" in done.stdout


def test_the_shape_of_the_pool() -> None:
    trace = "duration,gpus,vram\n1h,,40G\n1h,,40G\n1h,0,\n"
    words = ["-", "--gpus", "1", "--vram", "80G", "--cpu-slots", "1", "--json"]
    [pool] = json.loads(gpud_simulate(*words, input=trace).stdout)["pools"]
    assert pool["gpud"]["makespan_s"] == 3600.0
    assert pool["gpud"]["utilisation"] == 1.0
    words = ["-", "--gpus", "1", "--slots-per-gpu", "4", "--json"]
    [pool] = json.loads(gpud_simulate(*words, input=SWEEP).stdout)["pools"]
    assert pool["gpud"]["makespan_s"] == 15 * 2400.0


def test_a_synthetic_trace() -> None:
    words = ["--synthetic", "200", "--gpus", "8,16", "--seed", "3"]
    first, second = gpud_simulate(*words), gpud_simulate(*words)
    assert first.returncode == 0
    assert first.stdout == second.stdout
    assert first.stdout.startswith("synthetic, seed 3, load 0.9 on 8 GPUs\n200 jobs, ")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--gpus", "4"], "it takes a trace, or --synthetic N, and not both"),
        (["-", "--synthetic", "5", "--gpus", "4"], "it takes a trace, or --synthetic N, and not"),
        (["-"], "the following arguments are required: --gpus"),
        (["-", "--gpus", "0"], 'argument --gpus: "0" is not a whole number from 1 to 1,024'),
        (["-", "--gpus", "4,x"], 'argument --gpus: "x" is not a whole number from 1 to 1,024'),
        (["-", "--gpus", "4", "--vram", "80"], 'cannot read "80" as an amount of memory: say of'),
        (["-", "--gpus", "4", "--slots-per-gpu", "0"], '"0" is not a whole number from 1 to 1,000'),
        (["--synthetic", "9", "--gpus", "4", "--load", "nan"], '"nan" is not a load from 0.01 to'),
        (["--synthetic", "0", "--gpus", "4"], 'argument --synthetic: "0" is not a whole number'),
    ],
)
def test_a_wrong_option(words: list[str], sentence: str) -> None:
    done = gpud_simulate(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_trace_that_cannot_be_used(tmp_path: Path) -> None:
    done = gpud_simulate("missing.csv", "--gpus", "4", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    why = "cannot open the trace missing.csv: no such file or directory"
    assert done.stderr == f"gpud simulate: {why}\n"
    assert gpud_simulate(str(tmp_path), "--gpus", "4").stderr.endswith(": is a directory\n")
    done = gpud_simulate("-", "--gpus", "4", input="duration,gpu\n1h,1\n")
    assert done.returncode == 1
    assert done.stderr == (
        "gpud simulate: cannot use the trace on standard input:\n"
        '  line 1: unknown column "gpu": did you mean gpus?\n'
    )


def test_help_has_the_columns_and_examples() -> None:
    done = gpud_simulate("--help")
    assert done.returncode == 0
    assert "gpud simulate sweep.csv --gpus 8" in done.stdout
    for column in ("submit", "duration", "gpus", "vram", "limit", "priority", "name", "count"):
        assert column in done.stdout
        assert f"| `{column}` |" in DOCS.read_text()


@pytest.mark.parametrize("seconds", [0.4, 1, 59, 60, 61, 3599, 3600, 3720, 86_400, 90_061, 1e9])
def test_durations_look_as_those_of_gpuctl(seconds: float) -> None:
    assert duration(seconds) == render.duration(seconds)

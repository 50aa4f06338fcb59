"""`gpud simulate` as a user meets it: by its command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpud.ctl import render
from gpud.tools.side_by_side import duration
from gpud.tools.trace import MOST_JOBS
from gpud.tools.trace_csv import LONGEST_ROW, MOST_LINES, MOST_SHOWN

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
    assert "needs no GPU; say with --cpu-slots how many such jobs may run" in done.stdout


def test_the_shape_of_the_pool() -> None:
    trace = "duration,gpus,vram\n1h,,40G\n1h,,40G\n1h,0,\n"
    words = ["-", "--gpus", "1", "--vram", "80G", "--cpu-slots", "1", "--json"]
    [pool] = json.loads(gpud_simulate(*words, input=trace).stdout)["pools"]
    assert pool["gpud"]["makespan_s"] == 3600.0
    assert pool["gpud"]["utilisation"] == 1.0
    words = ["-", "--gpus", "1", "--slots-per-gpu", "4", "--json"]
    [pool] = json.loads(gpud_simulate(*words, input=SWEEP).stdout)["pools"]
    assert pool["gpud"]["makespan_s"] == 15 * 2400.0


def test_what_is_refused_names_the_option_that_would_help() -> None:
    trace = "duration,gpus,vram,name\n1h,,40G,memory\n1h,0,,none\n1h,0,1G,both\n1h,9,,wide\n"
    words = ["-", "--gpus", "1", "--json"]

    def refused(*more: str) -> dict[str, str]:
        [pool] = json.loads(gpud_simulate(*words, *more, input=trace).stdout)["pools"]
        return {one["job"].partition(" ")[0]: one["why"] for one in pool["refused"]}

    both = "asks for no GPU, and for memory or a model of one"
    wide = "needs 9 GPUs, this machine has 1"
    assert refused() == {
        "memory": "asks for GPU memory; say with --vram how much a GPU has",
        "none": "needs no GPU; say with --cpu-slots how many such jobs may run",
        "both": both,
        "wide": wide,
    }
    much = "needs 40 GiB of GPU memory, the largest GPU here has 24 GiB"
    assert refused("--cpu-slots", "1", "--vram", "24G") == {
        "memory": much,
        "both": both,
        "wide": wide,
    }


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


ENDLESS = "line 1: it is longer than 1,048,576 characters"


def test_a_file_without_end_is_not_read_for_ever() -> None:
    """In an address space that would soon be full."""
    done = shell("ulimit -v 1000000; SIMULATE /dev/zero --gpus 1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"gpud simulate: cannot use the trace /dev/zero:\n  {ENDLESS}\n"


def shell(line: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    program = f'"{sys.executable}" -m gpud.main simulate'
    return subprocess.run(
        ["/bin/sh", "-c", line.replace("SIMULATE", program)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONPATH": str(DOCS.parents[1]), "PATH": os.environ["PATH"]},
    )


@pytest.mark.parametrize("rows", [1, 2000])  # the output: less than a buffer, and more
def test_where_the_output_cannot_go(tmp_path: Path, rows: int) -> None:
    (tmp_path / "t.csv").write_text("duration,gpus\n" + "1,9\n" * rows)
    simulate = f"SIMULATE {tmp_path}/t.csv --gpus 1 --json"
    full = shell(f"{simulate} > /dev/full")
    assert full.returncode == 1
    assert full.stderr == "gpud simulate: cannot write the output: no space left on device\n"
    theirs, ours = os.pipe()
    os.close(theirs)
    gone = shell(simulate, stdout=ours)
    os.close(ours)
    assert (gone.returncode, gone.stderr) == (1, "")
    closed = shell(f"{simulate} >&-")
    assert (closed.returncode, closed.stderr) == (0, "")


def test_what_the_output_cannot_spell_is_said_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("duration,gpus,name\n1,9,größer\n")
    done = shell(f"PYTHONIOENCODING=ascii SIMULATE {tmp_path}/t.csv --gpus 1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "gr\\xf6\\xdfer (line 2): needs 9 GPUs" in done.stdout


def test_standard_input_that_is_closed() -> None:
    done = shell("SIMULATE - --gpus 1 <&-")
    assert done.returncode == 1
    assert done.stderr.startswith("gpud simulate: cannot use the trace on standard input:\n")


IMPATIENT = """
import sys
from gpud.tools import progress, simulate
progress.PATIENCE_S = progress.EVERY_S = 0
sys.exit(simulate.main(sys.argv[1:]))
"""
PATIENT = "import sys; from gpud.tools import simulate; sys.exit(simulate.main(sys.argv[1:]))"


def on_terminal(program: str, *words: str, given: str = "") -> str:
    """What a run shows on its terminal, while its output goes elsewhere."""
    ours, its = os.openpty()
    with os.fdopen(its, "wb"):
        subprocess.run(
            [sys.executable, "-c", program, *words],
            input=given.encode(),
            stdout=subprocess.PIPE,
            stderr=its,
            timeout=60,
            check=False,
            env={"PYTHONPATH": str(DOCS.parents[1])},
        )
    shown = b""
    with os.fdopen(ours, "rb", 0) as terminal:
        try:
            while more := terminal.read(4096):
                shown += more
        except OSError:  # nothing more can come
            pass
    return shown.decode()


def test_a_long_simulation_says_on_the_terminal_how_far_it_is() -> None:
    given = "duration\n1\n1\n1\n1\n"
    shown = on_terminal(IMPATIENT, "-", "--gpus", "1,2", given=given)
    lines = shown.split("\r\x1b[K")
    assert lines[1] == "reading the trace: line 1"
    for head in ("1 GPU", "2 GPUs"):
        for whose in ("gpud", "FIFO"):
            assert f"{head}, {whose}: 50 % of the jobs done" in lines
            assert f"{head}, {whose}: 100 % of the jobs done" in lines
    assert lines[-1] == ""  # it is removed
    assert "\n" not in shown


def test_what_ends_the_simulation_stands_alone_on_its_line() -> None:
    shown = on_terminal(IMPATIENT, "-", "--gpus", "1", given="duration\n1\nx\n")
    assert shown.rpartition("\x1b[K")[2].startswith("gpud simulate: cannot use the trace on stand")


def test_a_short_one_and_one_without_a_terminal_say_nothing() -> None:
    assert on_terminal(PATIENT, "-", "--gpus", "1", given=SWEEP) == ""
    done = shell(f"printf '{SWEEP}' | \"{sys.executable}\" -c '{IMPATIENT}' - --gpus 1")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_page_has_the_limits() -> None:
    page = DOCS.read_text()
    for words in (f"{MOST_JOBS:,} jobs", f"{MOST_LINES:,} lines", f"{LONGEST_ROW:,} characters"):
        assert words in page
    assert f"the first {MOST_SHOWN}," in page


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

"""`gpuctl submit -` and `--file` speak the language of queue files and of `gpud run`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud import environment
from gpud.control.fields import lay_over
from gpud.core.model import JobSpec
from gpud.ctl.many import job_lines
from gpud.errors import GpudError
from gpud.protocol.framing import decode_job
from gpud.protocol.replies import Submitted
from gpud.protocol.requests import Submit
from gpud.sources.build import Template
from gpud.sources.lexer import Lexer

from .fake_server import FakeServer
from .tools import PROGRAM, Result
from .tools import environment as process_environment

Gpuctl = Callable[..., Result]
EXAMPLES = Path(__file__).parents[2] / "examples" / "commands.txt"
BASE = JobSpec(command=b"", cwd=b"/data", env=b"A=1\0B=2", name="given", priority=3)
OPTIONS = (
    "name=big", "gpus=0", "priority=-5", "retries=3", "backoff=30s", "backoff-max=1h",
    "backoff=1s..2s", "retry-on=1,signal",
    "retry-args='--resume x'", "time-limit=2h30m", "grace=20s", "linger=wait", "linger=1m",
    "cwd=sub", "cwd=/data", "env.A='x y'", "env.C=", "hold=true", "hold=no", "gpsu=2", "name",
    "vram=12G", "vram=auto", "vram=0", "gpu-model=H100", "exclusive=yes", "gpus=0.5",
    "retry-on=oom,lost",
)  # fmt: skip
LINES = (
    "echo a", "  # c", "", "a \\", "cat <<E", "E", "echo 'open", "echo 1 << 2", "echo \udcff\r",
    "\t", *(f"#gpud: {option}" for option in OPTIONS),
)  # fmt: skip


@pytest.fixture(autouse=True)
def taken(server: FakeServer) -> None:
    server.answers = {
        Submit: lambda request, lines=(): Submitted(id=0, first=42, count=len(lines) or 1)
    }


def as_of_a_source(content: bytes) -> list[JobSpec] | None:
    """The jobs of `gpud run`; None when one of them would not run."""
    lexer = Lexer()
    lexer.feed(content, 0.0)
    lexer.finish()
    template = Template(BASE, "x")
    built = [template.build(entry, "") for entry in lexer.entries(1000, 0.0)]
    if any(job.problem for job in built):
        return None
    return [plain(job.spec) for job in built]


def as_submitted(path: Path) -> list[JobSpec]:
    """What the daemon makes of what gpuctl sends."""
    specs = [lay_over(BASE, decode_job(line), {}) for line in job_lines(str(path), b"/data")]
    return [plain(spec) for spec in specs]


def plain(spec: JobSpec) -> JobSpec:
    """Without where it came from, and with its environment in one order."""
    env = environment.pack(sorted(spec.env.split(b"\0")))
    return msgspec.structs.replace(spec, where="", entry_key=None, env=env)


@given(lines=st.lists(st.sampled_from(LINES), max_size=8))
def test_whatever_the_lines_they_are_the_jobs_of_gpud_run(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "commands.txt"
    path.write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    expected = as_of_a_source(path.read_bytes())
    if expected:
        assert as_submitted(path) == expected
    else:
        # By gpuctl, or by the daemon for what contradicts itself.
        with pytest.raises(GpudError, match=r"cannot (submit: |ask for memory|be exclusive)"):
            as_submitted(path)


def test_the_examples() -> None:
    specs = as_submitted(EXAMPLES)
    assert specs == as_of_a_source(EXAMPLES.read_bytes())
    assert len(specs) == 5
    assert (specs[3].name, specs[3].retry.retries) == ("report", 2)
    assert specs[4].command.startswith(b"cat <<END\n")


def test_options_here_are_what_lines_may_override(
    server: FakeServer, process: Callable[..., Any]
) -> None:
    text = b"a\n#gpud: name=own cwd=sub env.T=1 hold=no linger=wait retry-args=\xff\nb\n"
    result = process("submit", "--name", "all", "--hold", "--cwd", "/data", "-", stdin=text)
    assert (result.status, result.out) == (0, "42\n43\n"), result
    (request,) = server.asked(Submit)
    assert (request.common.name, request.common.held, request.common.cwd) == ("all", True, "/data")
    first, second = server.jobs
    assert msgspec.to_builtins(first) == {"command": "a"}
    assert msgspec.to_builtins(second) == {
        "command": "b", "name": "own", "cwd": "/data/sub", "env_add": ("T=1",), "held": False,
        "linger_s": "wait", "retry_args": {"b64": "/w=="},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a\n\n#gpud: gpsu=2\nb\n", '3: the option "gpsu" is not known; the nearest is "gpus"'),
        (b"#gpud: gpus=1\n#gpud: gpus=x\nb\n", '2: the option "gpus" cannot be "x": it takes a'),
        (b"a\ncat <<END\nb\n", '2: the here-document that ends with "END" is still open at the'),
        (b"a\nb \\\n", "2: its last line ends in a backslash at the end of the input"),
        (b"a\n#gpud: gpus=1\n", "2: no command follows"),
        (b"a\nb\0\n", "2: it contains a NUL byte"),
        (b"a\n" + b"x" * (1 << 20) + b"\n", "2: it is 1048591 bytes long, and gpud reads lines of"),
    ],
)
def test_one_line_that_cannot_be_refuses_them_all(
    server: FakeServer, gpuctl: Gpuctl, tmp_path: Path, text: bytes, message: str
) -> None:
    file = tmp_path / "commands.txt"
    file.write_bytes(text)
    result = gpuctl("submit", "--file", str(file))
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(f"gpuctl: cannot submit: {file}:{message}")
    assert result.err.endswith("\n  nothing was submitted\n")
    assert server.requests == []


def test_standard_input_has_a_name_too(server: FakeServer, process: Callable[..., Any]) -> None:
    result = process("submit", "-", stdin=b"#gpud: nmae=x\ntrue\n")
    assert result.status == 2
    assert result.err.startswith('gpuctl: cannot submit: standard input:1: the option "nmae" is no')
    assert '"name"' in result.err
    assert server.requests == []


def test_options_behind_the_dash_are_not_lost(
    server: FakeServer, process: Callable[..., Any]
) -> None:
    result = process("submit", "-", "--name", "sweep", stdin=b"true\n")
    assert (result.status, result.err) == (
        2,
        "gpuctl: cannot submit: options go before -\n  for example: gpuctl submit --name sweep -\n",
    )
    assert server.requests == []
    assert process("submit", "--", "-", "--name").status == 0
    assert server.asked(Submit)[0].job.argv == ("-", "--name")


def test_on_a_terminal_it_says_what_it_waits_for(
    server: FakeServer, terminal: Callable[..., Any]
) -> None:
    result = terminal("submit", "-", typed=b"true\n\x04")
    assert result.status == 0, result
    assert "reading commands, one a line; Ctrl-D ends\n" in result.out
    assert result.out.endswith("job 42 queued\n")


def test_in_a_pipe_it_says_nothing(process: Callable[..., Any]) -> None:
    assert process("submit", "-", stdin=b"true\n").err == ""


def test_no_standard_input(process: Callable[..., Any]) -> None:
    line = f'"{PROGRAM[0]}" -c "{PROGRAM[2]}" submit - <&-'
    result = process(line, program=["sh", "-c"])
    assert (result.status, result.err) == (
        1,
        "gpuctl: cannot read standard input: it is closed\n",
    )


def test_it_needs_none_of_the_dependencies(server: FakeServer) -> None:
    tell = (
        "import sys; from gpud.ctl.main import main; status = main();"
        "print(*sys.modules, file=sys.stderr); sys.exit(status)"
    )
    ended = subprocess.run(
        [sys.executable, "-S", "-c", tell, "submit", "-"],
        input=b"#gpud: name=x retries=2 env.A=1\ntrue\n", capture_output=True, timeout=30,
        env=process_environment(),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    imported = {name.partition(".")[0] for name in ended.stderr.decode().split()}
    seven = {"anyio", "google", "gspread", "msgspec", "pynvml", "structlog", "watchfiles"}
    assert imported & (seven | {"asyncio", "difflib"}) == set()

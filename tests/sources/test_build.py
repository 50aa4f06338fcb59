"""Options, environments and defaults: what an entry becomes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud import environment
from gpud.config.schema import JobDefaults, QueueFileSource
from gpud.core.model import JobSpec, Request, RetryPolicy
from gpud.errors import GpudError
from gpud.sources.build import Template, read_env_file, template_of
from gpud.sources.lexer import Entry
from gpud.sources.options import KEYS

BASE = JobSpec(command=b"", cwd=b"/data", env=b"A=1\0B=2", source="q", uid=5)


def entry(*options: bytes, command: bytes = b"run", problem: str = "") -> Entry:
    numbered = tuple((number, text) for number, text in enumerate(options, 1))
    return Entry(0, 4, len(options) + 1, 1, command, numbered, problem)


def built(*options: bytes) -> JobSpec:
    job = Template(BASE, "gpu.queue").build(entry(*options), "1:0")
    assert job.problem == ""
    return job.spec


def problem(*options: bytes) -> str:
    return Template(BASE, "gpu.queue").build(entry(*options), "1:0").problem


def test_every_option() -> None:
    spec = built(
        b" name=big gpus=2 priority=-5 retries=3",
        b'backoff=30s backoff-max=1h retry-args="--resume x"',
        b" time-limit=2h30m grace=20s linger=wait checkpoint=USR2",
        b"cwd=sub env.NAME='a b' env.B=3 hold=true",
    )
    assert (spec.name, spec.priority, spec.held) == ("big", -5, True)
    assert spec.request == Request(gpus=2)
    assert spec.retry == RetryPolicy(retries=3, backoff_s=30.0, backoff_max_s=3600.0)
    assert spec.retry_args == b"--resume x"
    assert (spec.time_limit_s, spec.grace_s, spec.linger_s) == (9000.0, 20.0, None)
    assert spec.checkpoint == 12
    assert (spec.cwd, spec.env) == (b"/data/sub", b"A=1\0B=3\0NAME=a b")
    assert (spec.entry_key, spec.where, spec.uid) == ("1:0", "gpu.queue:5", 5)


def test_underscores_and_the_last_one_counts() -> None:
    assert built(b"time_limit=1 time-limit=2", b"time-limit=3").time_limit_s == 3.0
    assert built(b"cwd=/x").cwd == b"/x"
    assert built(b"hold=no").held is False
    assert built(b"name=\xc3\xbc").name == "ü"
    assert built(b"env.X=\xff").env.endswith(b"X=\xff")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (b"gpsu=2", ['"gpsu"', 'nearest is "gpus"']),
        (b"timelimit=2", ['"timelimit"', 'nearest is "time-limit"']),
        (b"zzz=2", ['"zzz"', "there are name, gpus"]),
        (b"hold", ['"hold" has no value']),
        (b"gpus=two", ['"gpus" cannot be "two"', "whole number"]),
        (b"gpus=-1", ['"gpus" cannot be "-1"']),
        (b"time-limit=soon", ['"time-limit" cannot be "soon"', "duration"]),
        (b"time-limit=0", ["more than nothing"]),
        (b"hold=perhaps", ["yes or no"]),
        (b"checkpoint=SIGSTOP", ['"checkpoint" cannot be "SIGSTOP"', "a program can catch"]),
        (b"exclusive=maybe", ['"exclusive" cannot be "maybe"', "yes or no"]),
        (b"gpus=0.0001", ["a share is at least 0.001"]),
        (b"gpu-model=", ['"gpu-model"', "part of a model's name"]),
        (b"vram=0G", ["more than nothing"]),
        (b'name="a', ["no closing quotation"]),
        (b"name=\xff", ["UTF-8"]),
        (b"name=", ["takes a name"]),
        (b"name=" + b"x" * 201, ["longer than 200 characters"]),
        (b"gpus=1025", ["from 0 to 1024"]),
        (b"env.1=a", ["letters"]),
        (b"env.A=a\0b", ["NUL"]),
        (b"env=a", ['"env"', "env.NAME"]),
        (b"gpus=\xff\x1b[0m", ["gpus"]),
    ],
)
def test_options_that_cannot_be(options: bytes, words: list[str]) -> None:
    text = problem(b"gpus=1", options)
    assert text.startswith("cannot run line 3 of gpu.queue: on line 2 ")
    for word in words:
        assert word in text
    assert text.isprintable()
    text.encode()


@pytest.mark.parametrize(
    "options",
    [
        b"env.A-B=hunter2",
        b"env.=hunter2",
        b"env.A:hunter2",
        b"env.A:aHVudGVyMg=hunter2",
        b"env.A=a\0hunter2",
        b"env.A=a hunter2",
        b"env.A= hunter2",
        b"env.A=a hunter2=b",
        b"env.A=a b -hunter2",
        b"env.A=hunter2 gpsu=2",
        b"env.A=hunter2 gpus=x",
        b"env.A='hunter2",
        b"env_A=hunter2",
    ],
)
def test_the_value_of_a_variable_is_never_shown(options: bytes) -> None:
    text = problem(options)
    assert text
    assert "hunter2" not in text
    assert "aHVudGVy" not in text


@given(text=st.one_of(st.binary(max_size=60), st.sampled_from(sorted(KEYS)).map(str.encode)))
def test_whatever_the_options_a_spec_or_a_sentence(text: bytes) -> None:
    sentence = problem(text)
    assert not sentence or sentence.startswith("cannot run line 2 of gpu.queue: on line 1 ")


def test_environments_are_shared() -> None:
    template = Template(BASE, "q")
    plain = [template.build(entry(), "k").spec.env for _ in range(2)]
    assert plain[0] is plain[1] is BASE.env
    merged = [template.build(entry(b"env.X=1"), "k").spec.env for _ in range(2)]
    assert merged[0] is merged[1]


def test_a_problem_of_the_lexer_is_kept() -> None:
    job = Template(BASE, "gpu.queue").build(entry(command=b"cat <<E", problem="it is open"), "1:0")
    assert job.problem == "cannot run line 1 of gpu.queue: it is open"
    assert job.spec.command == b"cat <<E"


def test_what_the_source_says_and_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("C=file\nD=file\n")
    config = QueueFileSource(
        path="x/gpu.queue",
        shell=("/bin/bash", "-lc"),
        setup="module load cuda",
        env={"C": "config"},
        env_file="env",
        gpus=2,
        retries=1,
        linger_s="wait",
    )
    template = template_of(
        "q",
        config,
        JobDefaults(retries=5, grace_s=3.0, backoff_s=7.0),
        path=tmp_path / "x" / "gpu.queue",
        base_dir=tmp_path,
        uid=7,
        environ={b"HOME": b"/h", b"CUDA_VISIBLE_DEVICES": b"3", b"SSH_TTY": b"x"},
    )
    spec = template.spec
    assert template.label == "gpu.queue"
    assert spec.shell == (b"/bin/bash", b"-lc")
    assert (spec.setup, spec.cwd) == (b"module load cuda", bytes(tmp_path / "x"))
    assert spec.env == b"C=config\0D=file\0HOME=/h"
    assert (spec.request.gpus, spec.retry.retries, spec.retry.backoff_s) == (2, 1, 7.0)
    assert (spec.grace_s, spec.linger_s, spec.uid, spec.source) == (3.0, None, 7, "q")


def test_an_env_file(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_bytes(b"# c\n\nexport A=1\n B = x y \r\nC='q u'\nD=\"\"\nE=a=b#c\nF=\xff\n")
    assert read_env_file(file) == {
        b"A": b"1", b"B": b"x y", b"C": b"q u", b"D": b"", b"E": b"a=b#c", b"F": b"\xff",
    }  # fmt: skip
    file.write_bytes(b"A=1\nnonsense\n")
    with pytest.raises(GpudError, match=r"cannot use line 2 of .*env: it is not KEY=VALUE"):
        read_env_file(file)


def test_what_is_captured_of_an_environment() -> None:
    kept = environment.capture(
        {
            b"PATH": b"/bin", b"CUDA_VISIBLE_DEVICES": b"0", b"CUDA_HOME": b"/c", b"GPUD_X": b"1",
            b"SLURM_JOB_ID": b"1", b"TMUX": b"1", b"TMUX_PANE": b"1", b"SSH_AUTH_SOCK": b"/s",
            b"SSH_TTY": b"1", b"SSH_CONNECTION": b"1",
            b"NOTIFY_SOCKET": b"/n", b"A": b"\xff", b"GPUDX": b"", b"N": b"a\0b",
        }
    )  # fmt: skip
    assert kept == [b"A=\xff", b"CUDA_HOME=/c", b"GPUDX=", b"PATH=/bin", b"SSH_AUTH_SOCK=/s"]
    assert environment.unpack(environment.pack(kept)) == {
        b"A": b"\xff", b"CUDA_HOME": b"/c", b"GPUDX": b"", b"PATH": b"/bin",
        b"SSH_AUTH_SOCK": b"/s",
    }  # fmt: skip

"""From what a client writes to what the core takes: JobFields laid over a JobSpec."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.config.jobs import spec_of
from gpud.config.schema import JobDefaults
from gpud.control.fields import Environments, lay_over
from gpud.core.model import JobSpec, Request, RetryPolicy
from gpud.errors import GpudError
from gpud.protocol.requests import JobFields

BASE = spec_of(JobDefaults(), uid=1000)


def lay(base: JobSpec = BASE, known: Environments | None = None, **fields: Any) -> JobSpec:
    parsed = msgspec.convert(fields, JobFields)
    return lay_over(base, parsed, {} if known is None else known)


def test_the_daemons_defaults_are_the_ground() -> None:
    defaults = JobDefaults(
        shell=("/bin/bash", "-lc"),
        setup=". venv/bin/activate",
        retries=2,
        backoff_s=1.0,
        backoff_max_s=5.0,
        time_limit_s=60.0,
        grace_s=3.0,
        linger_s="wait",
        checkpoint=12,
    )
    assert spec_of(defaults, uid=7) == JobSpec(
        command=b"",
        shell=(b"/bin/bash", b"-lc"),
        setup=b". venv/bin/activate",
        retry=RetryPolicy(2, 1.0, 5.0),
        time_limit_s=60.0,
        grace_s=3.0,
        linger_s=None,
        checkpoint=12,
        uid=7,
    )


def test_every_field_arrives() -> None:
    spec = lay(
        command="train é",
        shell=["/bin/bash", "-c"],
        setup="true",
        cwd={"b64": "L3RtcC//"},
        env=["A=1", "B=x=y"],
        env_add=["A=2", "C="],
        umask=0o27,
        name="sweep",
        gpus=2,
        priority=-5,
        retries=3,
        backoff_s=1.5,
        backoff_max_s=60,
        retry_args="--resume",
        time_limit_s=3600,
        grace_s=20,
        linger_s="wait",
        checkpoint="SIGUSR1",
        held=True,
    )
    assert spec == JobSpec(
        command="train é".encode(),
        shell=(b"/bin/bash", b"-c"),
        setup=b"true",
        cwd=b"/tmp/\xff",
        env=b"A=2\0B=x=y\0C=",
        umask=0o27,
        name="sweep",
        request=Request(2),
        priority=-5,
        retry=RetryPolicy(3, 1.5, 60.0),
        retry_args=b"--resume",
        time_limit_s=3600.0,
        grace_s=20.0,
        linger_s=None,
        checkpoint=10,
        held=True,
        uid=1000,
    )


def test_what_is_not_said_comes_from_below() -> None:
    common = lay(cwd="/data", env=["A=1"], gpus=2, retries=3, command="a", time_limit_s=5)
    assert lay(common) == common
    job = lay(common, argv=["b", "c d"], env_add=["B=2"], gpus=None, backoff_s=1, time_limit_s=None)
    assert (job.cwd, job.env) == (b"/data", b"A=1\0B=2")
    assert job.request == Request(None)
    assert job.retry == RetryPolicy(3, 1.0, 600.0)
    assert (job.command, job.argv) == (b"b 'c d'", (b"b", b"c d"))
    assert job.time_limit_s is None
    assert lay(job, command="a").argv is None
    assert lay(common, env=["Z=1"]).env == b"Z=1"
    saves = lay(common, checkpoint=15)
    assert (saves.checkpoint, lay(saves, checkpoint="none").checkpoint) == (15, 0)


def test_an_argument_list_is_shown_quoted_whatever_its_bytes() -> None:
    spec = lay(argv=["python", {"b64": "/yA="}, "", "it's"])
    assert spec.argv == (b"python", b"\xff ", b"", b"it's")
    assert spec.command == b"python '\xff ' '' 'it'\"'\"'s'"


def test_equal_environments_are_one_object() -> None:
    known: Environments = {}
    one = lay(known=known, command="a", env=["A=1", "B=2"], env_add=["C=3"])
    two = lay(known=known, command="b", env=["A=1", "B=2"], env_add=["C=3"])
    assert one.env is two.env
    assert lay(one, known=known, command="c").env is one.env


NUL = " contains a NUL byte"
NO_SIGNAL = "it takes a signal that a program can catch, like SIGUSR1, SIGTERM or 10, or none"
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"command": ""}, "the command is empty"),
    ({"command": " \n\t"}, "the command is empty"),
    ({"command": "a\0b"}, "the command" + NUL),
    ({"command": {"b64": "!"}}, "the command is not a valid text"),
    ({"command": "a", "argv": ["a"]}, "both command and argv are given"),
    ({"argv": []}, "argv names no program"),
    ({"argv": [""]}, "argv names no program"),
    ({"argv": ["a", "\0"]}, "argv" + NUL),
    ({"shell": []}, "shell names no program"),
    ({"shell": ["\0"]}, "shell" + NUL),
    ({"setup": "\0"}, "setup" + NUL),
    ({"retry_args": "\0"}, "retry_args" + NUL),
    ({"cwd": "data"}, "the working directory must be absolute"),
    ({"cwd": ""}, "the working directory must be absolute"),
    ({"cwd": "/a\0"}, "the working directory" + NUL),
    ({"env": ["A=1", "token"]}, "entry 2 of env is not NAME=VALUE"),
    ({"env": ["=1"]}, "entry 1 of env is not NAME=VALUE"),
    ({"env": ["A=\0"]}, "entry 1 of env" + NUL),
    ({"env_add": ["A"]}, "entry 1 of env_add is not NAME=VALUE"),
    ({"umask": -1}, "umask must be from 0 to 511 (octal 777)"),
    ({"umask": 512}, "umask must be from 0 to 511 (octal 777)"),
    ({"name": "x" * 201}, "the name cannot be used: it is longer than 200 characters"),
    ({"name": "a\nb"}, "the name cannot be used: it contains a control character"),
    ({"name": "\x9b2J"}, "the name cannot be used: it contains a control character"),
    ({"name": "\0"}, "the name cannot be used: it contains a control character"),
    ({"gpus": -1}, "gpus: it takes a whole number from 0 to 1024, or a share of one: 0.5"),
    ({"gpus": 10**30}, "gpus: it takes a whole number from 0 to 1024, or a share of one: 0.5"),
    ({"gpus": 0.0001}, "gpus: a share is at least 0.001"),
    ({"vram_mib": 1 << 31}, "vram: no GPU has that much memory"),
    (
        {"gpu_model": "x" * 101},
        "gpu_model: it takes a part of a model's name, like A100, of at most 100 characters",
    ),
    ({"priority": 10**9 + 1}, "priority must be from -1000000000 to 1000000000"),
    ({"retries": -1}, "retries must be from 0 to 1000000"),
    ({"backoff_s": -1}, "backoff_s must be from 0 to 316224000 seconds"),
    ({"backoff_max_s": 1e300}, "backoff_max_s must be from 0 to 316224000 seconds"),
    ({"time_limit_s": 0}, "time_limit_s must be more than 0"),
    ({"time_limit_s": -1}, "time_limit_s must be from 0 to 316224000 seconds"),
    ({"grace_s": float("nan")}, "grace_s must be from 0 to 316224000 seconds"),
    ({"linger_s": float("inf")}, "linger_s must be from 0 to 316224000 seconds"),
    *[
        ({"checkpoint": signal}, f"checkpoint: {NO_SIGNAL}")
        for signal in ("SIGFOO", "KILL", "19", 18, 0, -1, 65, 32, "", "1" * 5000)
    ],
]


@pytest.mark.parametrize(("fields", "why"), WRONG, ids=[why for _, why in WRONG])
def test_what_cannot_be_is_refused_with_its_reason(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(GpudError) as caught:
        lay(**fields)
    assert caught.value.message == why
    assert caught.value.kind == "refused"


def test_bounds_are_inclusive() -> None:
    spec = lay(priority=-(10**9), gpus=0, retries=0, name="x" * 200, grace_s=0, linger_s=0)
    assert (spec.priority, spec.request.gpus) == (-(10**9), 0)


@given(
    st.lists(st.from_regex(rb"\A[A-Z]{1,2}=[^\0]{0,4}\Z"), max_size=6),
    st.lists(st.from_regex(rb"\A[A-Z]{1,2}=[^\0]{0,4}\Z"), max_size=6),
)
def test_what_is_added_wins_and_nothing_else_changes(base: list[bytes], more: list[bytes]) -> None:
    ground = lay(env=[pair.decode("latin-1") for pair in base])
    found = lay(ground, env_add=[pair.decode("latin-1") for pair in more]).env
    wanted = dict(pair.decode("latin-1").encode().split(b"=", 1) for pair in (*base, *more))
    assert dict(pair.split(b"=", 1) for pair in found.split(b"\0") if pair) == wanted

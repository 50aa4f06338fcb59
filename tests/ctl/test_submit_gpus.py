"""What a submit says of GPUs and of retries, and in which words it is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gpud.protocol.replies import Shown, Submitted
from gpud.protocol.requests import Show, Submit

from . import samples
from .fake_server import DROP, FakeServer
from .tools import Result

Gpuctl = Callable[..., Result]
WHOLE = "it takes a whole number from 0 to 1024, or a share of one: 0.5"
MODEL = "it takes a part of a model's name, like A100, of at most 100 characters"


@pytest.fixture(autouse=True)
def taken(server: FakeServer) -> None:
    server.answers = {Submit: Submitted(id=0, first=42, count=1)}


@pytest.mark.parametrize(
    ("option", "value", "field", "sent"),
    [
        ("--gpus", "999", "gpus", 999),
        ("--gpus", "1024", "gpus", 1024),
        ("--gpus", "0.001", "gpus", 0.001),
        ("--vram", "0", "vram_mib", 0),
        ("--vram", "12G", "vram_mib", 12288),
        ("--vram", "auto", "vram_mib", "auto"),
        ("--gpu-model", "A100", "gpu_model", "A100"),
    ],
)
def test_what_is_asked_of_the_gpus(
    server: FakeServer, gpuctl: Gpuctl, option: str, value: str, field: str, sent: object
) -> None:
    assert gpuctl("submit", option, value, "true").status == 0
    assert getattr(server.asked(Submit)[0].job, field) == sent


@pytest.mark.parametrize(
    ("options", "retries", "told"),
    [
        (
            ["--retry-on", "oom"],
            0,
            "gpuctl: job 42 is not tried again: --retry-on needs --retries\n",
        ),
        (["--retry-on", "oom"], 2, ""),  # the daemon's defaults have some
        (["--retry-on", "oom", "--retries", "2"], None, ""),
        (["--retries", "2"], None, ""),
        ([], None, ""),
    ],
)
def test_ends_to_retry_on_without_retries(
    server: FakeServer, gpuctl: Gpuctl, options: list[str], retries: int | None, told: str
) -> None:
    if retries is not None:
        detail = samples.detail(samples.job(42), retries=retries)
        server.answers[Show] = Shown(id=0, jobs=(detail,))
    result = gpuctl("submit", *options, "true")
    assert (result.status, result.out, result.err) == (0, "42\n", told)
    assert [request.jobs for request in server.asked(Show)] == [(42,)] * (retries is not None)


def test_a_submit_is_a_submit_though_nobody_can_say_more_of_it(
    server: FakeServer, gpuctl: Gpuctl
) -> None:
    server.answers[Show] = DROP
    result = gpuctl("submit", "--retry-on", "oom", "true")
    assert (result.status, result.out, result.err) == (0, "42\n", "")


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--gpus", "٣", "it takes a whole number, or a share of one GPU: 0.5"),
        ("--gpus", "1025", WHOLE),
        ("--gpus", "2.5", WHOLE),
        ("--gpus", "0.0001", "a share is at least 0.001"),
        ("--gpu-model", "", MODEL),
        ("--gpu-model", "x" * 300, MODEL),
        ("--vram", "0G", 'cannot use "0G" as an amount of memory: it must be more than nothing'),
        ("--priority", "٣", "it takes a whole number from -1000000000 to 1000000000, or urgent"),
        ("--retry-on", "cancelled", '"cancelled" is no end to retry on; there are failed, killed'),
    ],
)
def test_what_cannot_be_asked(
    server: FakeServer, gpuctl: Gpuctl, option: str, value: str, why: str
) -> None:
    result = gpuctl("submit", option, value, "true")
    shown = value if len(value) < 60 else value[:60] + "…"
    assert result.err.startswith(f'gpuctl: cannot submit: {option} "{shown}": {why}')
    assert (result.status, server.requests) == (2, [])

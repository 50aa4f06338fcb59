"""What a job may ask of the GPUs, in people's words, and what they become."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.config import asking
from gpud.config.asking import read_checkpoint
from gpud.config.requests import (
    asked_of,
    backoff_of,
    ends_of,
    gpus_of,
    request_of,
    retry_on,
    with_likeness,
)
from gpud.core.model import AUTO_VRAM, JobSpec, Outcome, Request, RetryPolicy
from gpud.errors import GpudError
from gpud.signals import signal_name


@pytest.mark.parametrize(
    ("text", "gpus", "request_"),
    [
        ("0", 0, Request(0)),
        ("2", 2, Request(2)),
        ("0.5", 0.5, Request(1, 500)),
        (".25", 0.25, Request(1, 250)),
        ("1.0", 1.0, Request(1)),
        ("0.9999", 0.9999, Request(1)),
        ("0.001", 0.001, Request(1, 1)),
        ("0.0014", 0.0014, Request(1, 1)),
    ],
)
def test_how_many(text: str, gpus: float, request_: Request) -> None:
    assert asking.read_gpus(text) == gpus
    assert request_of(gpus, 0, "", False) == request_


@pytest.mark.parametrize("text", ["", "two", "-1", "1.5", "1e3", "nan", "1025", "0x1", "1 2", "²"])
def test_what_is_no_number_of_gpus(text: str) -> None:
    with pytest.raises(GpudError, match=r"it takes a whole number.*0\.5"):
        asking.read_gpus(text)


@pytest.mark.parametrize("text", ["0.0001", "0.000999", ".0005"])
def test_a_share_that_is_nothing(text: str) -> None:
    with pytest.raises(GpudError, match=r"^a share is at least 0\.001$"):
        asking.read_gpus(text)
    with pytest.raises(GpudError, match=r"^gpus: a share is at least 0\.001$"):
        request_of(float(text), 0, "", False)


def test_memory() -> None:
    assert asking.read_vram("0") == asking.read_vram(" 0 ") == 0
    assert asking.read_vram("12G") == 12 * 1024
    assert asking.read_vram("auto") == "auto"
    assert request_of(None, "auto", "", False).vram_mib == AUTO_VRAM
    for text in ("12", "lots", "-1G", "0G"):
        with pytest.raises(GpudError):
            asking.read_vram(text)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ((0.5, 0, "", True), "a share of a GPU cannot be exclusive"),
        ((0, 1024, "", False), "a job for the CPU"),
        ((0, 0, "A100", False), "a job for the CPU"),
        ((1, -5, "", False), "vram"),
        ((1, "some", "", False), "vram"),
        ((1, (1 << 30) + 1, "", False), "^vram: no GPU has that much memory$"),
        ((1, 0, "x" * 101, False), "^gpu_model: it takes a part .* at most 100 characters$"),
        ((1, 0, "a\nb", False), "^gpu_model: it takes a part"),
        ((float("nan"), 0, "", False), "gpus"),
        ((float("inf"), 0, "", False), "gpus"),
    ],
)
def test_what_contradicts_itself(asked: tuple[float, int, str, bool], why: str) -> None:
    with pytest.raises(GpudError, match=why):
        request_of(*asked)


@given(
    gpus=st.none() | st.integers(1, 1024) | st.integers(1, 999).map(lambda n: n / 1000),
    vram=st.just("auto") | st.integers(0, 1 << 30),
    model=st.sampled_from(["", "A100"]),
)
def test_there_and_back(gpus: float | None, vram: int | str, model: str) -> None:
    request = request_of(gpus, vram, model, False)
    assert asked_of(request) == (gpus, vram, model, False)
    assert gpus_of(request) == gpus


def test_ends_to_retry_on() -> None:
    words = (*(o.value for o in Outcome if o.value in asking.RETRY_ON), "signal", asking.OOM)
    assert sorted(words) == sorted(asking.RETRY_ON)
    policy = retry_on(RetryPolicy(3), asking.read_retry_on("oom, signal,killed, 75,1,75"))
    assert policy == RetryPolicy(3, on=(Outcome.KILLED,), oom=True, codes=(1, 75))
    assert ends_of(policy) == ("killed", "oom", 1, 75)
    for text in ("", "oom,", "cancelled", "0", "256", "1.5", "-1"):
        with pytest.raises(GpudError, match="there are failed, killed"):
            asking.read_retry_on(text)


def test_pauses() -> None:
    assert asking.read_backoff("30s..10m") == (30, 600)
    assert asking.read_backoff("30s") == (30, None)
    assert asking.read_backoff("0..0") == (0, 0)
    for text in ("", "soon", "1s..", "..1s", "10m..30s", "1s..2s..3s", "99999d"):
        with pytest.raises(GpudError):
            asking.read_backoff(text)


def test_a_first_pause_is_never_cut_by_a_longest_that_nobody_named() -> None:
    policy = RetryPolicy(3, backoff_s=10, backoff_max_s=600)
    assert backoff_of(policy, 3600, None) == RetryPolicy(3, backoff_s=3600, backoff_max_s=3600)
    assert backoff_of(policy, 5, None) == RetryPolicy(3, backoff_s=5, backoff_max_s=600)
    assert backoff_of(policy, None, 5) == RetryPolicy(3, backoff_s=10, backoff_max_s=5)


def test_jobs_of_one_likeness() -> None:
    def likeness(command: str, name: str = "") -> str:
        asked = request_of(None, "auto", "", False)
        return with_likeness(JobSpec(command.encode(), name=name, request=asked)).request.likeness

    one = likeness("CUDA_LAUNCH_BLOCKING=1 python -u train.py --lr 0.1")
    assert one == likeness("python train.py --lr 0.2 > log") == "0: python train.py"
    assert likeness("./run.sh 1") == "0: ./run.sh"
    assert likeness("anything", "net") == "0: net"
    assert likeness("echo 'open") == "0: echo"
    assert with_likeness(JobSpec(b"x")).request.likeness == ""


@pytest.mark.parametrize(
    ("text", "number"),
    [("SIGUSR1", 10), ("usr1", 10), (" Term ", 15), ("12", 12), ("64", 64), ("none", 0)],
)
def test_signals(text: str, number: int) -> None:
    assert read_checkpoint(text) == number
    if number:
        assert read_checkpoint(signal_name(number).replace("signal ", "")) == number


@pytest.mark.parametrize("text", ["", "SIG", "SIGNONE", "NONE", "0", "65", "-10", "1.5", "kill"])
def test_what_is_no_signal_that_a_program_can_catch(text: str) -> None:
    with pytest.raises(GpudError, match="a program can catch"):
        read_checkpoint(text)

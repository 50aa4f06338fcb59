"""What a job could ask for to start now, in words. That it then starts is in test_foretold.py."""

from __future__ import annotations

import pytest

from gpud.core.events import DrainRequested
from gpud.core.model import AUTO_VRAM, Device, JobId, JobSpec, Request
from gpud.core.remedies import remedies
from gpud.core.state import State

from .build import CPUS, NOW_MS, A, B, happens, ready, started, submit

BIG = Device("m", ("m",), 2, memory_mib=40_000, model="A100")
SMALL = Device("n", ("n",), 2, memory_mib=16_000, model="L4")


def texts(state: State, job: int, now_ms: int = NOW_MS, **spec: object) -> list[str]:
    found = remedies(state, JobId(job), JobSpec(b"train", **spec), now_ms)
    return [remedy.text for remedy in found]


def taken(state: State, *requests: Request, limit_s: float | None = None) -> None:
    specs = [JobSpec(b"train", request=request, time_limit_s=limit_s) for request in requests]
    for job in range(submit(state, *specs), state.next_id):
        started(state, JobId(job))


@pytest.mark.parametrize(
    ("there", "wanted", "said"),
    [
        ([Request(1)], Request(2), ["with 1 GPU"]),
        ([Request(vram_mib=20_000)], Request(vram_mib=30_000), ["with 19 GiB of GPU memory"]),
        ([Request(vram_mib=39_500)], Request(vram_mib=30_000), ["with 15 GiB of GPU memory"]),
        ([Request(share_milli=700)] * 2, Request(share_milli=500), ["with 0.3 of a GPU"]),
        ([Request(share_milli=990)] * 2, Request(share_milli=500), []),
        ([Request(), Request(1), Request()], Request(exclusive=True),
         ["beside others on its GPU"]),
        ([Request(0)] * 2, Request(0), []),
        ([Request(gpu_model="A100", exclusive=True)], Request(gpu_model="a100"),
         ["on a GPU of any model"]),
        ([Request(1)] * 4, Request(gpu_model="a100"), []),
        ([Request(vram_mib=20_000)], Request(vram_mib=AUTO_VRAM, likeness="x"), []),
    ],
)  # fmt: skip
def test_less_of_what_it_asks_for(there: list[Request], wanted: Request, said: list[str]) -> None:
    devices = (A, B) if there == [Request(1)] else (BIG, SMALL, CPUS)
    state = ready(*devices)
    taken(state, *there)
    assert texts(state, submit(state, request=wanted)) == said


def test_a_job_that_waits_for_something_else_than_room() -> None:
    state = ready(A, CPUS)
    taken(state, Request(1))
    submit(state, request=Request(1), held=True)
    submit(state, request=Request(1), begin_ms=NOW_MS + 1)
    submit(state, request=Request(exclusive=True))
    assert [texts(state, job) for job in (1, 2, 3, 4, 99)] == [[]] * 5
    other = ready(A, B)
    taken(other, Request(1))
    submit(other, request=Request(2))
    assert texts(other, 2) == ["with 1 GPU"]
    happens(other, DrainRequested(1))
    assert texts(other, 2) == []


def test_a_time_limit_lets_it_into_the_gap() -> None:
    """The grace and what the shell leaves behind count, too, and times are rounded up."""
    state = ready(A, B)
    taken(state, Request(1), limit_s=7180.0)
    submit(state, request=Request(2))
    submit(state, request=Request(1))
    assert state.reservation is not None
    assert texts(state, 3) == ["with a time limit of 1h59m"]
    assert texts(state, 3, NOW_MS + 6_000_000) == ["with a time limit of 16m"]
    assert texts(state, 3, NOW_MS + 7_150_000) == []
    assert texts(state, 3, linger_s=None) == []


def test_what_those_before_it_would_then_keep_is_not_for_it() -> None:
    """Nothing is kept while all that wait are alike; were it another, the first would keep it."""
    state = ready(A, B)
    taken(state, Request(1))
    submit(state, *[JobSpec(b"train", request=Request(2))] * 2)
    assert state.reservation is None
    assert texts(state, 2) == ["with 1 GPU"]
    assert texts(state, 3) == []

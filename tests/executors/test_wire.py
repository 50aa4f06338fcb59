"""What a runner says, as the core hears it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gpud.core.events import AttemptEnded, RunnerGone, RunnerReady
from gpud.core.model import JobId
from gpud.executors.wire import EndedMessage, decode, fact_of
from tests.contracts.test_executors import Box, RealRig, launch, rig_in

ENDED = b"""{"ev":"ended","job":4,"attempt":2,"at_ms":9,"started_at_ms":%b,"exit":{"lost":"gone"},
"timed_out":false,"stopped":false,"rusage":null,"killed":[],"unassigned":[]}"""


def test_an_end_carries_what_it_was_of() -> None:
    message = decode(ENDED % b"7")
    fact = fact_of(message, "host")
    assert isinstance(fact, AttemptEnded)
    assert (fact.job, fact.attempt, fact.lost, fact.oom) == (4, 2, "gone", "host")


def test_an_end_without_a_start_can_be_read() -> None:
    message = decode(ENDED % b"null")
    assert isinstance(message, EndedMessage)
    assert message.started_at_ms is None


def test_a_runner_that_died_while_starting_is_met_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with rig_in(RealRig, tmp_path) as rig:
            box = Box()
            monkeypatch.setenv("GPUD_RUNNER_CRASH", "after-starting")
            executor = await rig.meet(box)
            monkeypatch.delenv("GPUD_RUNNER_CRASH")
            executor.start(launch(rig, 1, b"exit 0"))
            await box.wait(lambda e: isinstance(e, RunnerGone))
            box.events.clear()
            end = await box.wait(lambda e: isinstance(e, AttemptEnded))
            assert end.lost == "the runner died while starting it"
            assert any(isinstance(e, RunnerReady) for e in box.events)
            executor.forget([(JobId(1), 1)])

    asyncio.run(scenario())

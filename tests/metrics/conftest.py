"""A daemon over the real core and a real store, with what metrics are read from."""

from __future__ import annotations

import pytest

from gpud.core.events import JobsSubmitted
from gpud.core.model import JobId, JobSpec, NewJob
from gpud.metrics.counting import Counts
from gpud.metrics.reading import read
from gpud.protocol.replies import SourceView
from tests.control.fake_daemon import FakeDaemon

from .strict import Found, parse


class Metered(FakeDaemon):
    def __init__(self, gpus: int = 2) -> None:
        super().__init__(gpus)
        self.storage_problem = ""
        self.views: list[SourceView] = []
        self.counts = Counts(lambda: self.state)
        self.listeners.append(self.counts.heard)

    def set_aside_count(self) -> int:
        return 0

    def sources(self) -> list[SourceView]:
        return self.views

    def submit(self, *specs: JobSpec) -> list[int]:
        first = self.state.next_id
        self.post(JobsSubmitted(1, tuple(map(NewJob, specs))))
        return [*range(first, self.state.next_id)]

    def no(self, job: int) -> int:
        return self.state.attempts[JobId(job)].no

    def text(self) -> str:
        return read(self, self.counts)  # type: ignore[arg-type]

    def seen(self) -> dict[str, Found]:
        return parse(self.text())


@pytest.fixture
def daemon() -> Metered:
    return Metered()

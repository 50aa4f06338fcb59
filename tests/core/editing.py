"""The machine of people who change their minds: jobs are edited while they wait, moved and swapped.

Used by test_machine.py, and with other dice by edit_scenarios.py. The machine without these rules
is what test_planted_bugs.py runs, which must meet its bugs in few lives. What is asked for is drawn
without a look at what makes sense: running jobs, done ones, jobs that do not exist, circles,
several changes of one job in a turn.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from msgspec import structs

from gpud.core.events import Edit, EditRequested, MoveRequested, SwapRequested
from gpud.core.model import AT_ONCE, After, JobId, JobSpec, Span

from .draws import fates, picks, specs
from .machine import CoreMachine
from .turns import Fate

FIELDS = (
    *("request", "priority", "retry", "retry_args", "time_limit_s", "begin_ms", "deadline_ms"),
    *("grace_s", "after", "after"),
)
ENDS_OF_QUEUE = ("first", "last")


class EditingMachine(CoreMachine):
    def not_done(self, picks: list[int]) -> tuple[JobId, ...]:
        """Above all; but any that is committed may be meant."""
        ids = [*self.daemon.state.jobs, *self.daemon.store.specs]
        return tuple(dict.fromkeys(ids[pick % len(ids)] for pick in picks))

    def as_it_is(self, job: JobId) -> JobSpec:
        """What the control server makes an edit from."""
        spec, record = self.daemon.store.specs[job], self.daemon.state.jobs.get(job)
        if record is None:
            return structs.replace(spec, after=AT_ONCE)
        args = spec.retry_args if record.retry_args is None else record.retry_args
        return structs.replace(spec, priority=record.priority, after=record.after, retry_args=args)

    @precondition(lambda self: self.daemon.store.specs)
    @rule(
        picks=picks,
        fields=st.sets(st.sampled_from(FIELDS), max_size=3),
        like=specs,
        after=st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=2),
        patient=st.booleans(),
        fate=fates,
    )
    def edit(
        self,
        picks: list[int],
        fields: set[str],
        like: JobSpec,
        after: list[tuple[int, bool]],
        patient: bool,
        fate: Fate,
    ) -> None:
        befores = [(self.not_done([pick]), ended) for pick, ended in after]
        spans = tuple(Span(job, job, ended) for (job,), ended in befores)
        like = structs.replace(like, after=After(spans, patient), retry_args=b"--more")
        changes = {field: getattr(like, field) for field in fields}
        edits = []
        for job in self.not_done(picks):
            was = self.as_it_is(job)
            edits.append(Edit(job, was, structs.replace(was, **changes)))
        self.post(EditRequested(self.request(), tuple(edits)), fate)

    @precondition(lambda self: self.daemon.store.specs)
    @rule(
        picks=picks,
        to=st.sampled_from(["before", "before", "after", "after", *ENDS_OF_QUEUE]),
        beside=st.integers(0, 30),
        fate=fates,
    )
    def move(self, picks: list[int], to: str, beside: int, fate: Fate) -> None:
        jobs = self.not_done(picks)
        (other,) = (JobId(0),) if to in ENDS_OF_QUEUE else self.not_done([beside])
        self.post(MoveRequested(self.request(), jobs, to, other), fate)

    @precondition(lambda self: self.daemon.store.specs)
    @rule(one=st.integers(0, 30), other=st.integers(0, 30), fate=fates)
    def swap(self, one: int, other: int, fate: Fate) -> None:
        jobs = (*self.not_done([one]), *self.not_done([other]))
        self.post(SwapRequested(self.request(), jobs), fate)

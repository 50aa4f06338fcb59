"""What goes is the oldest, no more than has to, and nothing that is young or needed."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from gpud.core.model import JobId
from gpud.core.retention import YOUNGEST_MS, Choice, Ended, Limits, jobs_to_go, logs_to_go

HOUR = YOUNGEST_MS
NOW = 1000 * HOUR

ages = st.integers(-2, 200).map(lambda half_hours: half_hours * HOUR // 2)


def by_end(rows: list[tuple[int, int]]) -> list[Ended]:
    found = [Ended(NOW - age, JobId(n), size) for n, (age, size) in enumerate(rows, start=1)]
    return sorted(found, key=lambda one: (one.ended_at_ms, one.job))


done = st.lists(st.tuples(ages, st.integers(0, 5)), max_size=30).map(by_end)
limits = st.builds(
    Limits,
    jobs_ms=st.sampled_from([0, 1, HOUR, 10 * HOUR, 90 * HOUR]),
    jobs=st.integers(0, 12),
    logs_ms=st.sampled_from([0, 1, HOUR, 10 * HOUR, 90 * HOUR]),
    logs_bytes=st.integers(0, 20),
)


def in_pages(ended: list[Ended], size: int, limits: Limits, needed: set[int]) -> list[JobId]:
    """As the daemon does it."""
    left, went = len(ended), []
    for start in range(0, len(ended) + 1, size):
        choice = jobs_to_go(
            ended[start : start + size], left, limits, NOW, lambda job: job in needed
        )
        left = choice.left
        went += choice.go
        if choice.over:
            break
    return went


@given(done, limits, st.sets(st.integers(1, 30)), st.integers(1, 7))
def test_jobs(ended: list[Ended], limits: Limits, needed: set[int], size: int) -> None:
    whole = jobs_to_go(ended, len(ended), limits, NOW, lambda job: job in needed)
    gone = set(whole.go)
    assert in_pages(ended, size, limits, needed) == list(whole.go)
    assert whole.left == len(ended) - len(gone)
    assert not gone & needed
    ages = {one.job: NOW - one.ended_at_ms for one in ended}
    assert all(ages[job] >= YOUNGEST_MS for job in gone)
    if not limits.jobs and not limits.jobs_ms:
        assert not gone
    stay = [one for one in ended if one.job not in gone and one.job not in needed]
    order = [one.job for one in ended]
    if stay:  # the oldest first
        assert all(order.index(job) < order.index(stay[0].job) for job in gone)
    for one in stay:
        age = ages[one.job]
        if age >= YOUNGEST_MS:
            assert not limits.jobs_ms or age <= limits.jobs_ms
            assert not limits.jobs or whole.left <= limits.jobs
    if limits.jobs and not limits.jobs_ms:  # no more than have to
        assert len(gone) <= max(0, len(ended) - limits.jobs)


@given(done, limits)
def test_logs(ended: list[Ended], limits: Limits) -> None:
    total = sum(one.log_bytes for one in ended)
    choice = logs_to_go(ended, total, limits, NOW)
    count = len(choice.go)
    assert choice.go == tuple(one.job for one in ended[:count]), "the oldest first"
    assert choice.left == sum(one.log_bytes for one in ended[count:])
    for one in ended[:count]:
        assert NOW - one.ended_at_ms >= YOUNGEST_MS
    for one in ended[count:]:
        age = NOW - one.ended_at_ms
        if age >= YOUNGEST_MS:
            assert not limits.logs_ms or age <= limits.logs_ms
            assert not limits.logs_bytes or choice.left <= limits.logs_bytes
    if count and not limits.logs_ms:
        last = ended[count - 1]
        assert choice.left + last.log_bytes > limits.logs_bytes, "the last of them had to"


@given(done, limits, st.booleans())
def test_the_next_pass_is_not_too_late(ended: list[Ended], limits: Limits, logs: bool) -> None:
    def choice_at(now_ms: int) -> Choice:
        if logs:
            return logs_to_go(ended, sum(one.log_bytes for one in ended), limits, now_ms)
        return jobs_to_go(ended, len(ended), limits, now_ms, lambda job: False)

    now = choice_at(NOW)
    rest = ended[len(now.go) :]
    if not rest:
        return
    if now.next_ms:
        assert choice_at(now.next_ms).go != now.go
        assert choice_at(now.next_ms - 1).go == now.go
    else:
        assert choice_at(NOW + 10_000 * HOUR).go == now.go

"""Whose a job is, and who asked for what, as the store keeps it."""

from __future__ import annotations

from gpud.core.changes import Audit, By, Changes
from gpud.core.model import Array, JobId, Outcome
from gpud.ports import Store
from gpud.protocol.selectors import Selection

from .test_store import Desk, command, desk, store

__all__ = ["desk", "store"]  # fixtures


def test_a_job_is_its_owners_whatever_became_of_it(desk: Desk, store: Store) -> None:
    first, second = desk.add(command("a", uid=1000)), desk.add(command("b", uid=1001))
    array = desk.add(command("c", uid=1002, array=Array(((0, 4, 1),))))
    desk.commit()
    desk.end(first, Outcome.CANCELLED)
    desk.commit()
    element = array.rest[2][0] if len(array.rest) > 2 else array.rest[0][1]
    found = store.owners([first.id, second.id, element, 99])
    assert found == {first.id: 1000, second.id: 1001, element: 1002}
    assert store.owners([]) == {}


def test_the_last_job_of_a_user(desk: Desk, store: Store) -> None:
    for uid in (1000, 1001, 1000, 1001, 1001):
        desk.add(command("a", uid=uid))
    desk.commit()
    assert store.select(Selection(last=(0,))) == [5]
    assert store.select(Selection(last=(0,), last_of=1000)) == [3]
    assert store.select(Selection(last=(1,), last_of=1000)) == [1]


def test_what_was_asked_for_is_found_by_job_in_its_order(desk: Desk, store: Store) -> None:
    for _ in range(4):
        desk.add(command("a"))
    desk.commit()
    submit, cancel, drain = (By(verb, 1000, 7) for verb in ("submit", "cancel", "drain"))
    store.commit(Changes(audit=[Audit(5, submit, ((1, 3),))]))
    store.commit(Changes(audit=[Audit(9, cancel, ((1, 1), (3, 4))), Audit(9, drain)]))
    told = {job: [one.verb for one in store.audit(JobId(job))] for job in range(1, 6)}
    assert told == {1: ["submit", "cancel"], 2: ["submit"], 3: ["submit", "cancel"],
                    4: ["cancel"], 5: []}  # fmt: skip
    (one, *_) = store.audit(JobId(2))
    assert (one.at_ms, one.uid, one.pid) == (5, 1000, 7)

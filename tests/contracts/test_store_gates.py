"""What the store keeps of groups, labels and users: who belongs where, words, fails and usage."""

from __future__ import annotations

import pwd

import pytest

from gpud.core.changes import Changes
from gpud.core.model import JobSpec, Outcome
from gpud.core.rules import NONE, Kept, Rule, Rules
from gpud.errors import GpudError
from gpud.ports import Store
from gpud.protocol.selectors import parse

from .test_store import Desk, command, desk, store

__all__ = ["desk", "store"]  # fixtures

SWEEP = ("seed=1", "sweep=lr")


def sweep(text: str, **more: object) -> JobSpec:
    return command(text, group="lr", labels=SWEEP, uid=1000, **more)


def test_a_job_belongs_where_it_did(desk: Desk, store: Store) -> None:
    job = desk.add(sweep("a", source="nightly", entry_key="1:0"))
    keys = ("group:lr", "user:1000", "source:nightly", "label:seed=1", "label:sweep=lr")
    assert job.belongs == keys
    desk.commit()
    [again] = store.load().jobs
    assert (again.belongs, again.uid) == (keys, 1000)
    spec = store.spec(job.id)
    assert (spec.group, spec.labels, spec.uid) == ("lr", SWEEP, 1000)
    desk.end(job, Outcome.CANCELLED)
    desk.commit()
    [recalled] = store.recall([job.id])
    assert (recalled.belongs, recalled.uid) == (keys, 1000)


def test_people_see_group_and_labels(desk: Desk, store: Store) -> None:
    job, other = desk.add(sweep("a")), desk.add(command("b"))
    desk.commit()
    first, second = store.views([job.id, other.id])
    assert (first.group, first.labels) == ("lr", {"seed": "1", "sweep": "lr"})
    assert (second.group, second.labels) == ("", {})


def test_jobs_are_selected_by_what_they_belong_to(desk: Desk, store: Store) -> None:
    first, second = desk.add(sweep("a")), desk.add(command("b", group="other", labels=("seed=1",)))
    third = desk.add(sweep("c"))
    desk.commit()
    assert store.select(parse(["group:lr"])) == [first.id, third.id]
    assert store.select(parse(["label:seed=1"])) == [first.id, second.id, third.id]
    assert store.select(parse(["label:sweep=lr", "group:other"])) == [1, 2, 3]
    assert store.select(parse(["user:1000"])) == [first.id, third.id]
    assert store.select(parse([f"user:{pwd.getpwuid(0).pw_name}"])) == [second.id]


@pytest.mark.parametrize(
    ("selector", "why"),
    [
        ("group:x", 'cannot select "group:x": no job is in this group'),
        ("label:a=b", 'cannot select "label:a=b": no job has this label'),
        ("user:77", 'cannot select "user:77": this user has no jobs'),
        ("user:no such", 'cannot select "user:no such": this machine knows no such user'),
    ],
)
def test_what_nothing_belongs_to_is_said(store: Store, selector: str, why: str) -> None:
    with pytest.raises(GpudError) as caught:
        store.select(parse([selector]))
    assert (caught.value.message, caught.value.kind) == (why, "not-found")


def test_who_holds_a_job_and_why_is_kept(desk: Desk, store: Store) -> None:
    job = desk.add(sweep("a"))
    desk.state.hold(job, "3 jobs of group lr failed", "group:lr")
    desk.commit()
    [again] = store.load().jobs
    assert (again.why, again.held_by) == ("3 jobs of group lr failed", "group:lr")
    desk.state.requeue(job)
    desk.commit()
    [again] = store.load().jobs
    assert (again.why, again.held_by) == ("", "")


def test_words_and_fails_are_kept_until_they_say_nothing(store: Store) -> None:
    assert store.load().gates == {}
    first = {"group:lr": Kept(4, 3), "array:7": Kept(NONE, None, 2)}
    store.commit(Changes(gates=first))
    assert store.load().gates == first
    store.commit(Changes(gates={"group:lr": Kept(4, 3, 1), "array:7": Kept()}))
    assert store.load().gates == {"group:lr": Kept(4, 3, 1)}


def test_usage_is_kept_until_it_is_forgotten(store: Store) -> None:
    assert store.load().usage == {}
    store.commit(Changes(usage={1000: (12.625, 99), 0: (0.1, 98)}))
    store.commit(Changes(usage={1000: (1 / 3, 100), 0: None}))
    assert store.load().usage == {1000: (1 / 3, 100)}


def test_a_loaded_state_counts_as_before(desk: Desk, store: Store) -> None:
    rules = Rules({"group:lr": Rule(limit=1)}, half_life_ms=10**9)
    desk.state.gates.change(rules, [])
    desk.state.shares.change(rules, [], 0)
    desk.start(desk.add(sweep("a")))
    desk.commit()
    loaded = store.load()
    assert loaded.usage == {1000: (0.0, desk.now)}


def test_groups_are_counted(desk: Desk, store: Store) -> None:
    first = desk.add(sweep("a"))
    desk.add(command("b", group="other", held=True))
    desk.add(command("c"))
    desk.commit()
    assert store.group_counts() == {"lr": {"queued": 1}, "other": {"held": 1}}
    second = desk.add(sweep("d"))
    bad = desk.add(sweep("e"), "it cannot be")
    desk.start(first)
    desk.end(first, Outcome.FAILED)
    desk.start(second)
    desk.commit()
    counts = {"lr": {"active": 1, "failed": 1, "not-started": 1}, "other": {"held": 1}}
    assert bad.outcome is Outcome.NOT_STARTED
    assert store.group_counts() == counts
    desk.end(second, Outcome.SUCCEEDED)
    desk.state.requeue(first)
    desk.commit()
    counts["lr"] = {"queued": 1, "succeeded": 1, "not-started": 1}
    assert store.group_counts() == counts

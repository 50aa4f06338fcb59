"""What the store keeps of GPUs: quarantines, usual memory, what attempts used, grown requests."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from gpud.core.changes import Changes
from gpud.core.health import Quarantine
from gpud.core.model import JobState, LeasePart, Outcome, Request, Usage
from gpud.ports import Store
from gpud.store.sqlite import SqliteStore

from .test_store import Desk, command, desk, store

__all__ = ["desk", "store"]  # fixtures


def test_quarantines_are_kept_replaced_and_lifted(store: Store) -> None:
    first, second = Quarantine("Xid 79", 1, "boot"), Quarantine("memory", 2, "boot", base_mib=300)
    store.commit(Changes(quarantines={"GPU-a": first, "GPU-b": first}))
    store.commit(Changes(quarantines={"GPU-b": second}))
    assert store.load().quarantines == {"GPU-a": first, "GPU-b": second}
    store.commit(Changes(quarantines={"GPU-a": None, "GPU-c": None}))
    assert store.load().quarantines == {"GPU-b": second}


def test_usual_memory_is_kept_and_shown(desk: Desk, store: Store) -> None:
    store.commit(Changes(usual_mib={"0: net": 3000, "0: other": 1}))
    store.commit(Changes(usual_mib={"0: net": 4000}))
    assert store.load().usual_mib == {"0: net": 4000, "0: other": 1}
    job = desk.add(command("x", name="net"))
    desk.commit()
    assert store.details([job.id])[0].usual_vram_mib == 4000


def test_what_an_attempt_used(desk: Desk, store: Store) -> None:
    job = desk.add(command("x", request=Request(1, 250, 1024, "A100")))
    desk.start(job, LeasePart("0", 250, 1024))
    attempt = desk.state.attempts[job.id]
    attempt.usage = Usage(7_200_000, 3000, 500, 1000, 9, 5, ("idle",), {"GPU-a": 12})
    attempt.oom, attempt.stop_why = "cuda", "guest"
    desk.commit()
    [again] = store.load().attempts
    assert structs.astuple(again) == structs.astuple(attempt)
    [view] = store.views([job.id])
    assert (view.energy_j, view.peak_vram_mib, view.gpu_util) == (7200, 3000, 50)
    assert (view.gpus, view.vram_mib, view.gpu_model) == (0.25, 1024, "A100")
    desk.end(job, Outcome.FAILED, again_at=0)
    desk.start(job, LeasePart("1", 1000))
    desk.state.attempts[job.id].usage = Usage(1_000, 1000, 0, 0, 9, counters={"GPU-b": 1})
    desk.commit()
    [view] = store.views([job.id])  # of all attempts
    assert (view.energy_j, view.peak_vram_mib, view.gpu_util) == (7201, 3000, None)
    first, _ = store.details([job.id])[0].attempts
    assert (first.oom, first.energy_j) == ("cuda", 7200)


def test_where_nobody_looked_nothing_is_said(desk: Desk, store: Store) -> None:
    job = desk.add(command("x"))
    desk.start(job)
    desk.commit()
    [view] = store.views([job.id])
    assert (view.energy_j, view.peak_vram_mib, view.gpu_util) == (None, None, None)


def test_a_request_that_has_grown_stays_so(desk: Desk, store: Store) -> None:
    job = desk.add(command("x", request=Request(vram_mib=1024), time_limit_s=5.0))
    desk.commit()
    job.request, job.grown, job.setbacks = Request(vram_mib=2048), True, 2
    desk.state.touch(job)
    desk.commit()
    [again] = store.load().jobs
    assert (again.request, again.grown, again.setbacks) == (Request(vram_mib=2048), True, 2)
    assert again.within_s == job.within_s == 25
    assert store.spec(job.id).request == Request(vram_mib=1024)
    desk.state.finish(job, Outcome.CANCELLED, "", 5)
    desk.commit()
    [done] = store.recall([job.id])
    assert (done.state, done.request, done.setbacks) == (JobState.DONE, Request(vram_mib=2048), 2)


@pytest.mark.parametrize("mib", [0, 81920])
def test_a_lease_with_and_without_memory(tmp_path: Path, mib: int) -> None:
    opened = SqliteStore.open(tmp_path, durable=False)
    desk = Desk(opened)
    job = desk.add(command("x"))
    desk.start(job, LeasePart("0", 500, mib))
    desk.commit()
    opened.close()
    opened = SqliteStore.open(tmp_path, durable=False)
    assert opened.load().attempts[0].lease == (LeasePart("0", 500, mib),)
    opened.close()

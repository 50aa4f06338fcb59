"""The pool from what was named and what was found; and what happens while nobody answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gpud.config.gpu_words import cpu_lane, from_config
from gpud.config.schema import Pool
from gpud.core.events import DevicesChanged, Event
from gpud.core.sight import GpuInfo
from gpud.daemon.devices import (
    ASKING,
    Plan,
    found,
    not_asked,
    policy_of,
    unknown_ids,
    without_driver,
)
from gpud.daemon.gpus import Gpus
from gpud.errors import GpudError
from gpud.ports import GpusFound, Watched

A = GpuInfo("GPU-aaaa", 0, "NVIDIA A100", 81920, distance={"GPU-bbbb": 0})
B = GpuInfo("GPU-bbbb", 1, "NVIDIA A100", 81920, distance={"GPU-aaaa": 0})
MIG = GpuInfo("MIG-cccc", 2, "NVIDIA A100 MIG 1g.10gb", 9728, mig=True)
LANE = cpu_lane(4)


def plan(*words: str, **pool: Any) -> Plan:
    return Plan(from_config(words) if words else None, LANE, Pool(**pool))


def test_every_gpu_is_a_device_when_nobody_named_any() -> None:
    first, second, instance, lane = found(plan(), [A, B, MIG]).devices
    assert (first.key, first.ids, first.uuids) == ("GPU-aaaa", ("0",), ("GPU-aaaa",))
    assert (first.model, first.memory_mib, first.slots) == ("NVIDIA A100", 81920, 1)
    assert first.distance == {"GPU-bbbb": 0}
    assert second.ids == ("1",)
    assert (instance.ids, instance.mig) == (("MIG-cccc",), True)
    assert lane == LANE[0]


def test_uuids_where_they_are_wanted() -> None:
    assert [d.ids for d in found(plan(visible="uuid"), [A, B]).devices[:2]] == [
        ("GPU-aaaa",),
        ("GPU-bbbb",),
    ]


def test_named_slots_keep_their_names_and_learn_what_they_are() -> None:
    one, pair, _ = found(plan("0", "GPU-bbbb,1"), [A, B]).devices
    assert (one.key, one.uuids) == ("0", ("GPU-aaaa",))
    assert pair.key == "GPU-bbbb,1"
    two = found(plan("0,1"), [A, B]).devices[0]
    assert (two.uuids, two.memory_mib, two.distance) == (("GPU-aaaa", "GPU-bbbb"), 81920, {})


def test_the_beginning_of_a_uuid_names_a_gpu() -> None:
    assert found(plan("GPU-aa"), [A, B]).devices[0].uuids == ("GPU-aaaa",)
    assert found(plan("GPU-"), [A, B]).devices[0].uuids == () if _readable("GPU-") else True


def _readable(word: str) -> bool:
    try:
        from_config([word])
    except GpudError:
        return False
    return True


def test_a_gpu_that_the_driver_does_not_know_is_used_blindly() -> None:
    pool = found(plan("0", "7"), [A])
    assert [d.uuids for d in pool.devices if d.ids] == [("GPU-aaaa",), ()]
    assert unknown_ids(pool) == ["7"]


def test_slots_per_gpu_multiply() -> None:
    assert [d.slots for d in found(plan("0", "0", "1", slots_per_gpu=3), [A, B]).devices[:2]] == [
        6,
        3,
    ]


def test_guests_by_any_of_their_names() -> None:
    for name in ("1", "GPU-bbbb"):
        assert [d.guest for d in found(plan(guests=(name,)), [A, B]).devices[:2]] == [False, True]


def test_what_is_declared_counts_where_nothing_can_be_seen() -> None:
    pool = without_driver(plan("0", maker="amd", model="MI300", memory=1024))
    device = pool.devices[0]
    assert (device.maker, device.model, device.memory_mib) == ("amd", "MI300", 1024)
    assert not pool.unknown
    assert not_asked(plan("0")).unknown == ASKING


def test_the_policy() -> None:
    policy = policy_of(Pool(tolerance=200, ignore=("x",), release_wait_s=1.5, idle_after_s=0))
    assert (policy.tolerance_mib, policy.ignored) == (200, ("x",))
    assert (policy.release_wait_ms, policy.idle_ms) == (1500, 0)


# -- finding -----------------------------------------------------------------------------------


class Watcher:
    """A driver that answers as it is told to."""

    def __init__(self, *answers: GpusFound | GpudError) -> None:
        self.answers = list(answers)
        self.asked = asyncio.Event()
        self.looks = 0
        self.closed = False
        self.found: Callable[[GpusFound], None] = lambda found: None

    async def find(self) -> GpusFound:
        self.asked.set()
        if not self.answers:
            await asyncio.Event().wait()
        answer = self.answers.pop(0)
        if isinstance(answer, GpudError):
            raise answer
        return answer

    def watch(
        self,
        post: Callable[[Event], None],
        watched: Callable[[], Watched],
        found: Callable[[GpusFound], None],
    ) -> None:
        self.found = found

    def look(self) -> None:
        self.looks += 1

    async def close(self) -> None:
        self.closed = True


class Engine:
    def __init__(self, devices: DevicesChanged) -> None:
        self.devices = devices
        self.look: Callable[[bool], None] = lambda afresh: None

    def change_devices(self, devices: DevicesChanged) -> None:
        self.devices = devices

    def post(self, event: Event) -> None: ...


def attached(gpus: Gpus) -> Engine:
    engine = Engine(gpus.pool)
    gpus.attach(engine, Watched)  # type: ignore[arg-type]
    return engine


def run(test: Callable[[list[str]], Any]) -> None:
    said: list[str] = []
    asyncio.run(test(said))


def make(said: list[str], watcher: Watcher | None, given: Plan) -> Gpus:
    return Gpus(given, warn=lambda event, **values: said.append(event), watcher=watcher)


def test_the_driver_answers_before_anything_starts() -> None:
    async def test(said: list[str]) -> None:
        gpus = make(said, Watcher(GpusFound("1", (A, B))), plan())
        assert gpus.pool.unknown == ASKING
        await gpus.wait(5)
        assert [d.key for d in gpus.pool.devices] == ["GPU-aaaa", "GPU-bbbb", "cpu"]
        assert not gpus.pool.unknown
        await gpus.close()

    run(test)


def test_a_driver_that_never_answers_costs_only_the_gpus() -> None:
    async def test(said: list[str]) -> None:
        watcher = Watcher()
        gpus = make(said, watcher, plan("0"))
        await gpus.wait(0.01)
        engine = attached(gpus)
        assert engine.devices.unknown
        assert [d.key for d in engine.devices.devices] == ["0", "cpu"]
        await gpus.close()
        assert watcher.closed

    run(test)


def test_an_answer_that_comes_late_is_taken() -> None:
    async def test(said: list[str]) -> None:
        watcher = Watcher(GpudError("cannot ask: no answer", kind="unreachable"))
        gpus = make(said, watcher, plan("0"))
        await gpus.wait(0.05)
        engine = attached(gpus)
        assert "no answer" in engine.devices.unknown
        assert said == ["gpus_not_found"]
        watcher.found(GpusFound("1", (A,)))
        assert engine.devices.devices[0].uuids == ("GPU-aaaa",)
        assert not engine.devices.unknown
        await gpus.close()

    run(test)


def test_without_a_driver_named_slots_are_used_and_others_refused() -> None:
    async def test(said: list[str]) -> None:
        missing = GpudError("cannot ask: no driver", kind="not-found")
        gpus = make(said, Watcher(missing), plan("0"))
        await gpus.wait(5)
        assert not gpus.pool.unknown
        assert "no driver" in gpus.note
        await gpus.close()
        gpus = make(said, Watcher(missing), plan())
        with pytest.raises(GpudError, match="cannot find a GPU") as caught:
            await gpus.wait(5)
        assert "--gpus 0,1" in caught.value.hint
        await gpus.close()

    run(test)


def test_what_cannot_be_seen_is_said() -> None:
    async def test(said: list[str]) -> None:
        answer = GpusFound("1", (A,), ("GPU 1 cannot be used: lost",), "this is a container")
        gpus = make(said, Watcher(answer), plan("0", "7"))
        await gpus.wait(5)
        for words in ("GPU 1 cannot be used", "no GPU 7", "this is a container"):
            assert words in gpus.note
        assert said == ["gpus"]
        await gpus.close()

    run(test)


def test_a_look_afresh_asks_what_there_is() -> None:
    async def test(said: list[str]) -> None:
        watcher = Watcher(GpusFound("1", (A,)), GpusFound("1", (A, B)))
        gpus = make(said, watcher, plan())
        await gpus.wait(5)
        engine = attached(gpus)
        engine.look(False)
        assert (watcher.looks, len(engine.devices.devices)) == (1, 2)
        engine.look(True)
        await gpus.wait(5)
        assert (watcher.looks, len(engine.devices.devices)) == (2, 3)
        await gpus.close()

    run(test)


def test_another_configuration_is_another_pool() -> None:
    async def test(said: list[str]) -> None:
        watcher = Watcher(GpusFound("1", (A, B)), GpusFound("1", (A, B)))
        gpus = make(said, watcher, plan())
        await gpus.wait(5)
        engine = attached(gpus)
        gpus.replan(plan("1"))
        await gpus.wait(5)
        assert [d.key for d in engine.devices.devices] == ["1", "cpu"]
        await gpus.close()

    run(test)

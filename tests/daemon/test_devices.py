"""The pool from what was named and what was found; and what happens while nobody answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from gpud.config.gpu_words import cpu_lane, from_config
from gpud.config.schema import Pool
from gpud.core.events import DevicesChanged, Event
from gpud.core.sight import NOT_LISTED, GpuInfo
from gpud.daemon.devices import (
    ASKING,
    Known,
    Plan,
    found,
    not_asked,
    now_lost,
    policy_of,
    unknown_guests,
    without_driver,
)
from gpud.daemon.gpus import Gpus
from gpud.errors import GpudError
from gpud.ports import GpusFound, Watched

A = GpuInfo("GPU-aaaa", 0, "NVIDIA A100", 81920, distance={"GPU-bbbb": 0})
B = GpuInfo("GPU-bbbb", 1, "NVIDIA A100", 81920, distance={"GPU-aaaa": 0})
MIG = GpuInfo("MIG-cccc", 2, "NVIDIA A100 MIG 1g.10gb", 9728, mig=True)
LANE = cpu_lane(4)


def known(*gpus: GpuInfo, **more: Any) -> Known:
    return Known(gpus, **more)


def plan(*words: str, **pool: Any) -> Plan:
    return Plan(from_config(words) if words else None, LANE, Pool(**pool))


def test_every_gpu_is_a_device_when_nobody_named_any() -> None:
    first, second, instance, lane = found(plan(), known(A, B, MIG)).devices
    assert (first.key, first.ids, first.uuids) == ("GPU-aaaa", ("0",), ("GPU-aaaa",))
    assert (first.model, first.memory_mib, first.slots) == ("NVIDIA A100", 81920, 1)
    assert first.distance == {"GPU-bbbb": 0}
    assert second.ids == ("1",)
    assert (instance.ids, instance.mig) == (("MIG-cccc",), True)
    assert lane == LANE[0]


def test_uuids_where_they_are_wanted() -> None:
    assert [d.ids for d in found(plan(visible="uuid"), known(A, B)).devices[:2]] == [
        ("GPU-aaaa",),
        ("GPU-bbbb",),
    ]


def test_named_slots_keep_their_names_and_learn_what_they_are() -> None:
    one, pair, _ = found(plan("0", "GPU-bbbb,1"), known(A, B)).devices
    assert (one.key, one.uuids) == ("0", ("GPU-aaaa",))
    assert pair.key == "GPU-bbbb,1"
    two = found(plan("0,1"), known(A, B)).devices[0]
    assert (two.uuids, two.memory_mib, two.distance) == (("GPU-aaaa", "GPU-bbbb"), 81920, {})


def test_the_beginning_of_a_uuid_names_a_gpu() -> None:
    assert found(plan("GPU-aa"), known(A, B)).devices[0].uuids == ("GPU-aaaa",)


def test_the_beginning_of_two_uuids_names_neither() -> None:
    near = structs.replace(B, uuid="GPU-aabb")
    device = found(plan("GPU-aa"), known(A, near)).devices[0]
    assert (device.uuids, device.ids) == ((), ("GPU-aa",))
    assert device.problem == "the NVIDIA driver knows no GPU GPU-aa"


def test_a_named_gpu_that_the_driver_does_not_know_takes_no_work() -> None:
    pool = found(plan("0", "7", "1,8"), known(A, B))
    assert [d.uuids for d in pool.devices] == [("GPU-aaaa",), (), (), ()]
    strange = "the NVIDIA driver knows no GPU"
    assert [d.problem for d in pool.devices] == ["", f"{strange} 7", f"{strange} 8", ""]


def test_a_gpu_that_cannot_be_used_says_why_whoever_named_it() -> None:
    hung = known(A, unusable={1: "the driver did not answer for it"})
    for asked in (plan(), plan("0", "1")):
        _, bad, _ = found(asked, hung).devices
        assert (bad.key, bad.ids, bad.uuids) == ("1", ("1",), ())
        assert bad.problem == "the driver did not answer for it"


def test_a_gpu_that_is_gone_stays_in_the_pool_and_says_so() -> None:
    gone = known(A, lost=(B,))
    here, lost, _ = found(plan(), gone).devices
    assert (lost.key, lost.ids, lost.uuids, lost.problem) == ("GPU-bbbb", ("1",), (), NOT_LISTED)
    assert not here.problem
    assert found(plan("1"), gone).devices[0].problem == NOT_LISTED


def test_a_gpu_that_is_divided_is_told_once() -> None:
    why = "MIG is on and it has no instances"
    for words in ((), ("0", "1")):
        _, divided, lane = found(plan(*words), known(A, lost=(B,), unusable={1: why})).devices
        assert (divided.label, divided.problem, lane.key) == ("1", why, "cpu")


def test_what_is_lost_and_what_has_only_been_divided_anew() -> None:
    moved_up = structs.replace(B, index=0)
    assert now_lost((A, B), (moved_up,)) == (A,)
    assert now_lost((A, B), (A,)) == (B,)
    assert now_lost((A, B), ()) == (A, B)
    instance = structs.replace(MIG, index=1)
    assert now_lost((A, B), (A, instance)) == ()  # MIG was switched on
    assert now_lost((A, instance), (A, B)) == ()  # and off


def test_slots_per_gpu_multiply() -> None:
    asked = plan("0", "0", "1", slots_per_gpu=3)
    assert [d.slots for d in found(asked, known(A, B)).devices[:2]] == [6, 3]


@pytest.mark.parametrize("visible", ["index", "uuid"])
@pytest.mark.parametrize("words", [(), ("0", "1"), ("GPU-aa", "GPU-bb")])
@pytest.mark.parametrize("name", ["1", "GPU-bbbb", "GPU-bb"])
def test_guests_by_any_of_their_names(visible: str, words: tuple[str, ...], name: str) -> None:
    asked = plan(*words, guests=(name,), visible=visible)
    assert [d.guest for d in found(asked, known(A, B)).devices] == [False, True, False]
    assert unknown_guests(asked, known(A, B)) == []


def test_a_guest_that_is_no_gpu_is_told() -> None:
    asked = plan(guests=("7", "1"))
    assert unknown_guests(asked, known(A, B)) == ["pool.guests: the NVIDIA driver knows no GPU 7"]
    assert unknown_guests(asked, known(A, lost=(B,), unusable={7: "it hung"})) == []


def test_what_is_declared_counts_where_nothing_can_be_seen() -> None:
    pool = without_driver(plan("0", maker="amd", model="MI300", memory=1024))
    device = pool.devices[0]
    assert (device.maker, device.model, device.memory_mib) == ("amd", "MI300", 1024)
    assert pool.devices[-1].maker == "amd", "a CPU job must not see GPUs either"
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
        self.looks = self.afresh = 0
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

    def look(self, afresh: bool = False) -> None:
        self.looks += 1
        self.afresh += afresh

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
        gpus = make(said, watcher, plan())
        await gpus.wait(0.05)
        engine = attached(gpus)
        told: list[list[tuple[str, ...]]] = []
        gpus.follow(lambda devices: told.append([device.ids for device in devices]))
        assert "no answer" in engine.devices.unknown
        assert said == ["gpus_not_found"]
        watcher.found(GpusFound("1", (A,)))
        assert engine.devices.devices[0].uuids == ("GPU-aaaa",)
        assert not engine.devices.unknown
        assert told == [[()], [("0",), ()]]
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
        with pytest.raises(GpudError, match="cannot ask: no driver") as caught:
            await gpus.wait(5)
        assert "--gpus 0,1" in caught.value.hint
        await gpus.close()

    run(test)


def test_what_cannot_be_seen_is_said() -> None:
    async def test(said: list[str]) -> None:
        answer = GpusFound("1", (A,), {1: "it hung"}, "this is a container")
        watcher = Watcher(answer)
        gpus = make(said, watcher, plan("0", "1", "7", guests=("9",)))
        await gpus.wait(5)
        attached(gpus)
        assert gpus.note == (
            "pool.guests: the NVIDIA driver knows no GPU 9; other people's processes cannot be "
            "told from jobs here, so GPUs that they use get jobs, too: this is a container"
        )
        assert said == ["gpus"] * 4, "two notes, two GPUs that take no work"
        watcher.found(answer)
        assert len(said) == 4, "once is enough"
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
        assert (watcher.looks, watcher.afresh, len(engine.devices.devices)) == (2, 1, 2)
        await gpus.close()

    run(test)


def test_gpus_that_are_all_gone_leave_no_pool_for_the_cpu() -> None:
    """A job that does not say what it needs is a job for the lane only where there never was a
    GPU."""

    async def test(said: list[str]) -> None:
        watcher = Watcher(GpusFound("1", (A, B)), GpudError("no GPU", kind="not-found"))
        gpus = make(said, watcher, plan())
        await gpus.wait(5)
        engine = attached(gpus)
        watcher.found(GpusFound("1", ()))
        assert [d.problem for d in engine.devices.devices] == [NOT_LISTED, NOT_LISTED, ""]
        gpus.replan(plan(visible="uuid"))
        await gpus.wait(5)
        assert [d.problem for d in engine.devices.devices] == [NOT_LISTED, NOT_LISTED, ""]
        watcher.found(GpusFound("1", (A, B)))
        assert not any(d.problem for d in engine.devices.devices)
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


def test_a_gpu_that_was_named_twice_is_used_by_its_first_name() -> None:
    pool = found(plan("0", "GPU-aa", "GPU-bbbb"), known(A, B))
    assert [d.uuids for d in pool.devices] == [("GPU-aaaa",), (), ("GPU-bbbb",), ()]
    assert pool.devices[1].problem == "it has a GPU that is called 0, too"


def test_a_bug_in_the_finder_is_not_swallowed() -> None:
    async def test(said: list[str]) -> None:
        bugs: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: bugs.append(context["exception"]))
        watcher = Watcher()
        watcher.answers = ["no answer at all"]  # type: ignore[list-item]
        gpus = make(said, watcher, plan())
        with contextlib.suppress(GpudError):
            await gpus.wait(1)
        await asyncio.sleep(0)
        assert isinstance(bugs[0], AttributeError)
        await gpus.close()

    run(test)

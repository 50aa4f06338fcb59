"""What a look and a search tell, value for value, by the real pynvml over the stubbed driver."""

from __future__ import annotations

import os

import pytest

from gpud.core.sight import GpuSight
from gpud.devices.wire import Look, Seen
from tests.devices.conftest import Talk
from tests.devices.nvml_stub import Stub, mig_uuid, uuid

US = 1_000_000
BLIND = Look(blind=True)  # no process is looked up


def sight(talk: Talk, look: Look = BLIND) -> GpuSight:
    """Of the first GPU."""
    return talk.look(look)[uuid(0)]


def test_values_that_are_not_supported_are_none(stub: Stub, talk: Talk) -> None:
    names = ["total_mib", "util", "temperature", "power_mw", "energy_mj", "ecc", "remap_failed"]
    stub.gpu(0, **dict.fromkeys(names))
    assert sight(talk) == GpuSight(uuid(0), attributable=False)


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [("util", 0, 100), ("temperature", -50, 200), ("power_mw", 0, 10_000_000)],
)
def test_a_value_that_cannot_be_is_one_that_is_not_told(
    stub: Stub, talk: Talk, value: str, least: int, most: int
) -> None:
    field = {"temperature": "temperature_c"}.get(value, value)
    for given, told in [(least, least), (most, most), (least - 1, None), (most + 1, None)]:
        stub.gpu(0, **{value: given})
        found = sight(talk)
        assert (getattr(found, field), found.problem) == (told, "")


def test_more_memory_than_there_is_is_not_told(stub: Stub, talk: Talk) -> None:
    total = 80 * 1024
    for used, free, told in [
        (total, 0, (total, 0)),
        (0, total, (0, total)),
        (total + 1, 0, (None, 0)),
        (0, total + 1, (0, None)),
        (total + 1, None, (None, None)),
    ]:
        stub.gpu(0, used_mib=used, free_mib=free)
        found = sight(talk)
        assert (found.used_mib, found.free_mib) == told
        assert (found.total_mib, found.problem) == (total, "")


def test_a_process_with_more_memory_than_there_is_has_nobody_knows_how_much(
    stub: Stub, talk: Talk
) -> None:
    total, pid = 80 * 1024, os.getpid()
    for given, told in [(0, 0), (total, total), (total + 1, None), (2**31 - 1, None), (-1, None)]:
        stub.gpu(0, compute=f"{pid}:{given}")
        assert [one.mib for one in sight(talk).processes] == [told]
    stub.gpu(0, total_mib=None, compute=f"{pid}:{total + 1}")
    assert [one.mib for one in sight(talk).processes] == [total + 1]


@pytest.mark.parametrize(
    ("code", "reserved_mib", "memory_mib"),
    [
        (None, 600, 80 * 1024 - 600),  # else a job for 80 GiB would wait for ever
        (None, 80 * 1024 + 1, 80 * 1024),
        (25, 600, 80 * 1024),  # an older driver does not say
    ],
)
def test_what_the_driver_keeps_for_itself_no_job_can_have(
    stub: Stub, talk: Talk, code: int | None, reserved_mib: int, memory_mib: int
) -> None:
    stub.gpu(0, reserved_mib=reserved_mib)
    stub.order("fail", "nvmlDeviceGetMemoryInfo_v2", code=code)
    assert talk.find().gpus[0].memory_mib == memory_mib
    assert sight(talk).total_mib == 80 * 1024


@pytest.mark.parametrize("code", [4242, 999, 3, 13, 25, 10])
@pytest.mark.parametrize(
    ("function", "field"),
    [
        ("nvmlDeviceGetUtilizationRates", "util"),
        ("nvmlDeviceGetPowerUsage", "power_mw"),
        ("nvmlDeviceGetTotalEnergyConsumption", "energy_mj"),
    ],
)
def test_a_value_that_fails_takes_no_gpu_along(
    stub: Stub, talk: Talk, function: str, field: str, code: int
) -> None:
    assert getattr(sight(talk), field) is not None
    stub.order("fail", function, code=code)
    found = sight(talk)
    assert (getattr(found, field), found.problem) == (None, "")


@pytest.mark.parametrize(
    ("function", "code"),
    [
        ("nvmlDeviceGetMemoryInfo_v2", 25),
        ("nvmlDeviceGetMemoryInfo_v2", 13),
        ("nvmlDeviceGetComputeRunningProcesses_v3", 13),
        ("nvmlDeviceGetComputeRunningProcesses_v3", 25),
        ("nvmlDeviceGetTemperatureV", 25),
        ("nvmlDeviceGetTemperatureV", 13),
    ],
)
def test_wrong_versions_of_structs_fall_back_to_older_ones(
    stub: Stub, talk: Talk, function: str, code: int
) -> None:
    stub.gpu(0, compute="4711:500")
    before = sight(talk)
    assert before.temperature_c == 30
    stub.order("fail", function, code=code)
    assert sight(talk) == before


@pytest.mark.parametrize(
    ("code", "why", "broken"),
    [
        (4242, "the driver gives error 4242", False),
        (999, "the driver gives an unknown error", False),
        (25, "nvidia-ml-py and the driver do not fit together", False),
        (15, "it has fallen off the bus", True),
        (16, "it must be reset", True),
    ],
)
@pytest.mark.parametrize("function", ["MemoryInfo", "ComputeRunningProcesses"])
def test_without_memory_or_processes_it_is_a_problem(
    stub: Stub, talk: Talk, function: str, code: int, why: str, broken: bool
) -> None:
    for version in ("", "_v2", "_v3"):
        stub.order("fail", f"nvmlDeviceGet{function}{version}", gpu=0, code=code)
    assert sight(talk) == GpuSight(uuid(0), why, broken)
    assert talk.look()[uuid(1)].problem == ""


@pytest.mark.parametrize(
    ("function", "code", "why"),
    [
        ("MemoryInfo", 13, "the driver is too old to tell how much memory it has"),
        ("ComputeRunningProcesses", 13, "the driver is too old to tell what runs on it"),
        ("UUID", 3, "the driver does not tell its UUID"),
        ("HandleByIndex", 3, "the driver does not tell how to reach it"),
    ],
)
def test_what_is_not_supported_is_said_in_plain_words(
    stub: Stub, talk: Talk, function: str, code: int, why: str
) -> None:
    for version in ("", "_v2", "_v3"):
        stub.order("fail", f"nvmlDeviceGet{function}{version}", gpu=0, code=code)
    seen = [answer for answer in talk.ask(BLIND) if isinstance(answer, Seen) and answer.index == 0]
    assert [one.problem or one.sights[0].problem for one in seen] == [why]


@pytest.mark.parametrize("told", [None, ""])
def test_a_gpu_without_uuid_is_of_no_use(stub: Stub, talk: Talk, told: str | None) -> None:
    stub.gpu(0, uuid=told)
    found = talk.find()
    assert found.unread == {0: "the driver does not tell its UUID"}
    assert [gpu.uuid for gpu in found.gpus] == [uuid(1)]


def test_where_no_processes_are_listed_they_cannot_be_told_apart(stub: Stub, talk: Talk) -> None:
    assert sight(talk, Look()).attributable
    stub.order("fail", "nvmlDeviceGetComputeRunningProcesses_v3", code=3)
    found = sight(talk, Look())
    assert (found.attributable, found.problem) == (False, "")


# -- processes ---------------------------------------------------------------------------------


def test_a_process_in_several_lists_is_one(stub: Stub, talk: Talk) -> None:
    stub.gpu(0, compute="1:500 2:600", mps="3:700", graphics="2:600 4:-1")
    assert [(p.pid, p.mib, p.compute) for p in sight(talk).processes] == [
        (1, 500, True),
        (2, 600, True),
        (3, 700, True),
        (4, None, False),
    ]


def test_many_processes(stub: Stub, talk: Talk) -> None:
    stub.gpu(0, compute=" ".join(f"{pid}:1" for pid in range(1, 200)))
    assert len(sight(talk).processes) == 199


def test_the_use_of_a_process_is_the_mean_since_the_look_before(stub: Stub, talk: Talk) -> None:
    samples = f"7:40:{1 * US} 7:60:{2 * US} 8:4000:{2 * US} 8:10:{2 * US}"
    stub.gpu(0, compute="7:1 8:1 9:1", samples=samples)
    assert [p.util for p in sight(talk).processes] == [50, 10, None]
    stub.gpu(0, samples=f"{samples} 7:90:{3 * US}")
    assert [p.util for p in sight(talk).processes] == [90, None, None]
    assert [p.util for p in sight(talk).processes] == [None, None, None]


def test_processes_are_looked_up(stub: Stub, talk: Talk) -> None:
    stub.gpu(0, compute=f"{os.getpid()}:500")
    (process,) = sight(talk, Look(attempts={os.getpid(): (3, 1)})).processes
    assert (process.job, process.attempt) == (3, 1)
    assert process.name


# -- faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"ecc": 1}, "ECC could not correct its memory (once since the driver was loaded)"),
        ({"ecc": 3}, "ECC could not correct its memory (3 times since the driver was loaded)"),
        ({"remap_failed": 1}, "a bad row of its memory could not be replaced"),
        ({"remap_failed": 1, "recovery": 0}, "a bad row of its memory could not be replaced"),
        ({"remap_pending": 1}, ""),
        (
            {"remap_failed": None, "retired_pending": 1},
            "bad pages of its memory are put out of use when it is reset",
        ),
        ({"recovery": 1}, "it must be reset"),
        ({"recovery": 2}, "the machine must be restarted"),
        ({"recovery": 4}, "its jobs must end, then it must be reset"),
        ({"recovery": 77}, "the driver asks for recovery action 77"),
        ({"recovery": 0, "ecc": 1}, ""),  # contained: the driver needs nothing
        ({"ecc": None, "remap_failed": None}, ""),
    ],
)
def test_faults_of_the_hardware(
    stub: Stub, talk: Talk, values: dict[str, object], why: str
) -> None:
    stub.gpu(0, **values)
    found = sight(talk)
    assert (found.problem, found.broken) == (why, bool(why))


def test_faults_are_asked_for_when_that_is_due_and_after_an_xid(stub: Stub, talk: Talk) -> None:
    unhurried = Look(blind=True, health=False)
    assert sight(talk, unhurried).problem == ""  # the first look asks
    stub.gpu(0, recovery=1)
    assert sight(talk, unhurried).problem == ""
    stub.xid(0, 45)
    assert talk.hear().why == "Xid 45: it must be reset"
    assert sight(talk, unhurried).problem == "it must be reset"
    stub.gpu(0, recovery=0)
    assert sight(talk, unhurried).problem == "it must be reset"
    assert sight(talk).problem == ""


# -- MIG ---------------------------------------------------------------------------------------


def test_the_instances_stand_for_a_gpu_with_mig(stub: Stub) -> None:
    stub.gpu(0, mig=1)
    stub.instance(0, 0, name="Stub MIG 1g", used_mib=100, compute="7:90")
    stub.instance(0, 3, total_mib=20 * 1024)
    talk = Talk(stub)
    with talk.process:
        found = talk.find()
        assert [(g.uuid, g.index, g.model, g.memory_mib, g.mig) for g in found.gpus] == [
            (mig_uuid(0, 0), 0, "Stub MIG 1g", 10 * 1024, True),
            (mig_uuid(0, 3), 0, "Stub 0", 20 * 1024, True),
            (uuid(1), 1, "Stub 1", 81 * 1024, False),
        ]
        seen = talk.look(BLIND)
        assert list(seen) == [mig_uuid(0, 0), mig_uuid(0, 3), uuid(1)]
        first = seen[mig_uuid(0, 0)]
        assert (first.used_mib, first.temperature_c, first.util) == (100, 30, None)
        assert (first.power_mw, first.energy_mj) == (None, None)  # of the whole GPU only
        assert [p.pid for p in first.processes] == [7]
        assert not seen[mig_uuid(0, 3)].processes
        stub.gpu(0, recovery=1)
        assert [one.problem for one in talk.look(BLIND).values()] == ["it must be reset"] * 2 + [""]
        talk.process.kill()


def test_an_absurd_number_of_instances_is_not_counted_through(stub: Stub) -> None:
    stub.gpu(0, mig=1, places=-1)  # 4,294,967,295 of them
    stub.instance(0, 3)
    talk = Talk(stub)
    with talk.process:
        assert [gpu.uuid for gpu in talk.find().gpus] == [mig_uuid(0, 3), uuid(1)]
        talk.process.kill()


def test_mig_without_instances_offers_nothing(stub: Stub) -> None:
    stub.gpu(0, mig=1)
    talk = Talk(stub)
    with talk.process:
        found = talk.find()
        assert found.unusable == {0: "MIG is on and it has no instances"}
        assert [gpu.uuid for gpu in found.gpus] == [uuid(1)]
        talk.process.kill()


# -- topology ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "far"),
    [
        ({"near.0.1": 0}, 1),
        ({"near.0.1": 10}, 1),
        ({"near.0.1": 20}, 2),
        ({"near.0.1": 30}, 3),
        ({"near.0.1": 40}, 4),
        ({"near.0.1": 50}, 5),
        ({"near.0.1": 50, "nvlink.0.1": 1}, 0),
        ({"near.0.1": 77}, None),
        ({}, None),
    ],
)
def test_how_far_gpus_are_from_each_other(
    stub: Stub, talk: Talk, values: dict[str, object], far: int | None
) -> None:
    stub.put(values)
    one, other = talk.find().gpus
    assert one.distance == ({} if far is None else {other.uuid: far})
    assert other.distance == ({} if far is None else {one.uuid: far})


def test_a_gpu_that_fails_at_the_topology_is_there_all_the_same(stub: Stub, talk: Talk) -> None:
    stub.order("fail", "nvmlDeviceGetTopologyCommonAncestor", gpu=0, code=15)
    assert [gpu.distance for gpu in talk.find().gpus] == [{}, {}]

"""Which Xids make a GPU useless."""

from __future__ import annotations

import pytest

from gpud.devices.wire import Broke
from gpud.devices.xids import BROKEN, BROKEN_UNLESS_SAID_OTHERWISE, RECOVERY, judge
from tests.devices.conftest import Talk
from tests.devices.nvml_stub import Stub, mig_uuid, uuid

OF_APPLICATIONS = [13, 31, 32, 39, 43, 44, 45, 68, 69, 80, 94, 109, 137]
OF_NO_CONSEQUENCE = [14, 63, 92, 93, 106, 121, 157]


@pytest.mark.parametrize("xid", [*OF_APPLICATIONS, *OF_NO_CONSEQUENCE, 9999])
def test_what_programs_cause_or_ecc_corrects_is_ignored(xid: int) -> None:
    assert judge(xid, None) == judge(xid, 0) == ""


@pytest.mark.parametrize("xid", [46, 62, 64, 79, 95, 119, 120, 140, 143])
def test_what_needs_a_reset_breaks_whatever_else_is_said(xid: int) -> None:
    assert judge(xid, None) == judge(xid, 0) == f"Xid {xid}: {BROKEN[xid]}"


@pytest.mark.parametrize("xid", [48, 74, 154])
def test_the_driver_may_know_better(xid: int) -> None:
    assert judge(xid, None) == f"Xid {xid}: {BROKEN_UNLESS_SAID_OTHERWISE[xid]}"
    assert judge(xid, 0) == ""
    assert judge(xid, 1) == f"Xid {xid}: it must be reset"


def test_clauses_read_as_clauses() -> None:
    clauses = [*BROKEN.values(), *BROKEN_UNLESS_SAID_OTHERWISE.values(), *RECOVERY.values()]
    assert all(clause[0].islower() and clause[-1] not in ".!" for clause in clauses)


# -- as the helper hears them ------------------------------------------------------------------


def test_an_xid_is_told_of_its_gpu(stub: Stub, talk: Talk) -> None:
    stub.xid(0, 31)
    stub.xid(1, 48)
    why = "Xid 48: a memory error that ECC could not correct"
    assert talk.hear() == Broke((uuid(1),), why)


def test_a_gpu_that_is_gone_is_told_without_asking_it(stub: Stub, talk: Talk) -> None:
    stub.order("hang", "*", gpu=0)
    stub.xid(0, 79)
    assert talk.hear() == Broke((uuid(0),), "Xid 79: it has fallen off the bus")


def test_the_drivers_own_judgement_counts(stub: Stub, talk: Talk) -> None:
    stub.gpu(0, recovery=0)
    stub.xid(0, 48)  # contained
    stub.gpu(1, recovery=2)
    stub.xid(1, 13)
    assert talk.hear() == Broke((uuid(1),), "Xid 13: the machine must be restarted")


def test_with_mig_an_xid_is_of_an_instance_or_of_all(stub: Stub) -> None:
    stub.gpu(0, mig=1)
    stub.instance(0, 0)
    stub.instance(0, 1)
    talk = Talk(stub)
    with talk.process:
        talk.find()
        stub.xid(0, 48, instance=2)  # the stub's ids begin at 1
        assert talk.hear().uuids == (mig_uuid(0, 1),)
        stub.xid(0, 79, instance=2)
        assert talk.hear().uuids == (mig_uuid(0, 0), mig_uuid(0, 1))
        talk.process.kill()


def test_an_xid_is_told_of_its_gpu_whatever_the_index_is_now(stub: Stub, talk: Talk) -> None:
    stub.put({"at.0": 1, "at.1": 0})
    talk.look()
    stub.xid(0, 79)
    assert talk.hear().uuids == (uuid(0),)
    stub.xid(1, 79)
    assert talk.hear().uuids == (uuid(1),)


def test_one_that_has_moved_up_is_not_blamed_for_the_one_that_is_gone(
    stub: Stub, talk: Talk
) -> None:
    stub.put({"count": 1, "at.0": 1})
    talk.look()
    stub.xid(0, 79)
    assert talk.hear().uuids == (uuid(0),)
    stub.xid(1, 79)
    assert talk.hear().uuids == (uuid(1),)


def test_one_that_has_come_is_heard(stub: Stub, talk: Talk) -> None:
    stub.have(3)
    stub.put({"at.0": 2, "at.2": 0})
    talk.look()
    stub.xid(2, 79)
    assert talk.hear().uuids == (uuid(2),)


def test_with_mig_and_no_instances_an_xid_is_of_nothing(stub: Stub, talk: Talk) -> None:
    stub.gpu(0, mig=1)
    talk.look()
    stub.xid(0, 79)
    stub.xid(1, 79)
    assert talk.hear().uuids == (uuid(1),)


def test_a_driver_without_events_is_asked_all_the_same(stub: Stub) -> None:
    stub.order("fail", "nvmlEventSetCreate", code=3)
    talk = Talk(stub)
    with talk.process:
        talk.find()
        assert len(talk.look()) == 2
        talk.process.kill()

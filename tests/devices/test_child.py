"""The GPU helper as a process: what it says and when, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from gpud.devices.wire import At, Cannot, Find, Found, Look, Looked, Request, Seen, Touch
from tests.devices.conftest import Talk
from tests.devices.nvml_stub import Stub, uuid


def test_it_names_a_gpu_before_it_touches_it(stub: Stub, talk: Talk) -> None:
    kinds = [type(answer) for answer in talk.ask(Look())]
    assert kinds == [At, Seen, At, Seen, Looked]
    stub.order("hang", "nvmlDeviceGetMemoryInfo_v2", gpu=1)
    talk.send(Look())
    assert [talk.read() for _ in range(3)][-1] == At(1, 2)


def test_what_is_to_be_skipped_is_not_touched(stub: Stub) -> None:
    stub.order("hang", "*", gpu=0)
    talk = Talk(stub)
    with talk.process:
        found = talk.find(skip=(0,), of=2)
        assert ([gpu.uuid for gpu in found.gpus], found.skipped) == ([uuid(1)], (0,))
        assert list(talk.look(Look(skip=(0,)))) == [uuid(1)]
        talk.process.kill()


def test_with_another_number_of_gpus_an_index_is_another_gpu(talk: Talk) -> None:
    found = talk.find(skip=(0,), of=3)
    assert (len(found.gpus), found.skipped) == (2, ())


def test_one_that_was_seen_already_is_not_looked_at_again(talk: Talk) -> None:
    assert list(talk.look(Look(done=(1,)))) == [uuid(0)]


def test_a_change_is_told_with_the_look(stub: Stub, talk: Talk) -> None:
    stub.have(1)
    (*_, looked) = talk.ask(Look())
    assert isinstance(looked, Looked)
    assert looked.found is not None
    assert [gpu.uuid for gpu in looked.found.gpus] == [uuid(0)]
    (*_, looked) = talk.ask(Look())
    assert looked == Looked()


def test_one_gpu_is_touched_and_no_other(stub: Stub, talk: Talk) -> None:
    stub.order("hang", "*", gpu=0)
    at, seen, looked = talk.ask(Touch(1, of=2))
    assert (at, looked) == (At(1, 2), Looked())
    assert isinstance(seen, Seen)
    assert [sight.uuid for sight in seen.sights] == [uuid(1)]


def test_with_another_number_of_gpus_none_is_touched(talk: Talk) -> None:
    assert talk.ask(Touch(1, of=3)) == [Looked()]


def test_what_was_skipped_and_answers_is_told_with_the_next_look(stub: Stub) -> None:
    talk = Talk(stub)
    with talk.process:
        talk.find(skip=(0,), of=2)
        talk.ask(Touch(0, of=2))
        (*_, looked) = talk.ask(Look())
        assert isinstance(looked, Looked)
        assert looked.found is not None
        assert [gpu.uuid for gpu in looked.found.gpus] == [uuid(0), uuid(1)]
        talk.process.kill()


def test_a_touch_goes_on_with_the_look_before_it(stub: Stub, talk: Talk) -> None:
    """Whose a process is whose ancestors have ended is known from the look before."""
    line = ["/bin/sh", "-c", "setsid sleep 600 & echo $!; read x"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        pid = int(shell.stdout.readline())
        try:
            stub.gpu(0, compute=f"{pid}:500")
            look = Look(attempts={shell.pid: (7, 1)})
            assert [p.job for p in talk.look(look)[uuid(0)].processes] == [7]
            shell.kill()
            shell.wait()
            talk.ask(Touch(1, of=2))
            assert [p.job for p in talk.look(look)[uuid(0)].processes] == [7]
        finally:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("count", [-1, 9999, 1025])
@pytest.mark.parametrize("request_", [Find(), Look(), Touch(0, of=2)])
def test_an_absurd_number_of_gpus_is_not_counted_through(
    stub: Stub, talk: Talk, count: int, request_: Request
) -> None:
    stub.put({"count": count})
    assert talk.ask(request_) == [Cannot(f"the NVIDIA driver says that it has {count} GPUs")]
    assert talk.end() == (0, b"")


@pytest.mark.parametrize("hung", [False, True])
def test_it_ends_when_its_input_closes_and_writes_no_errors(
    stub: Stub, talk: Talk, hung: bool
) -> None:
    if hung:
        stub.order("hang", "nvmlDeviceGetPowerUsage", gpu=0)
        talk.send(Look())
        assert talk.read() == At(0, 2)
    assert talk.end() == (0, b"")


def test_the_terminals_interrupt_is_not_for_it(talk: Talk) -> None:
    assert os.getsid(talk.process.pid) == talk.process.pid


@pytest.mark.parametrize(
    ("function", "code", "why", "missing"),
    [
        ("nvmlInitWithFlags", 9, "the NVIDIA driver is installed and not loaded", False),
        ("nvmlInitWithFlags", 18, "the driver was updated: restart the machine", False),
        ("nvmlInitWithFlags", 4, "permission denied", False),
        ("nvmlInitWithFlags", 999, "the driver gives an unknown error", False),
        ("nvmlInitWithFlags", 4242, "the driver gives error 4242", False),
        ("nvmlDeviceGetCount_v2", 1, "the NVIDIA driver was unloaded", False),
    ],
)
def test_a_driver_that_refuses_gets_a_clause(
    stub: Stub, function: str, code: int, why: str, missing: bool
) -> None:
    stub.order("fail", function, code=code)
    talk = Talk(stub)
    with talk.process:
        assert talk.ask(Find()) == [Cannot(why, missing)]
        assert talk.end() == (0, b"")


def test_a_driver_that_fails_while_it_is_looked_at(stub: Stub, talk: Talk) -> None:
    """The library stays loaded: after an update every call fails until the process is another."""
    stub.order("fail", "nvmlDeviceGetMemoryInfo_v2", gpu=1, code=18)
    (*_, last) = talk.ask(Look())
    assert last == Cannot("the driver was updated: restart the machine")
    assert talk.end() == (0, b"")


def test_a_bug_is_told_and_not_swallowed(talk: Talk) -> None:
    assert talk.process.stdin is not None
    talk.process.stdin.write(b'{"op":"dance"}\n')
    talk.process.stdin.flush()
    answer = talk.read()
    assert isinstance(answer, Cannot)
    assert answer.why.startswith("the GPU helper has a bug: ValidationError: ")
    assert talk.end() == (0, b"")


def test_a_crash_is_the_helpers_own(stub: Stub, talk: Talk) -> None:
    stub.order("crash", "nvmlDeviceGetPowerUsage", gpu=1)
    talk.send(Look())
    assert talk.process.wait(10) == -signal.SIGSEGV


def test_one_broken_gpu_does_not_hide_the_others(stub: Stub) -> None:
    stub.order("fail", "*", gpu=0, code=15)
    talk = Talk(stub)
    with talk.process:
        found = talk.find()
        assert found == Found(
            "999.01",
            2,
            found.gpus,
            unread={0: "it has fallen off the bus"},
        )
        assert [gpu.uuid for gpu in found.gpus] == [uuid(1)]
        seen = [answer for answer in talk.ask(Look()) if isinstance(answer, Seen)]
        assert seen[0] == Seen(0, (), "it has fallen off the bus", broken=True)
        assert seen[1].sights[0].uuid == uuid(1)
        talk.process.kill()

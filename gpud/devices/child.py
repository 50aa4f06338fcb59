"""The GPU helper: a process that does all that gpud does with NVML.

Started by devices/helper.py as `python -m gpud.devices.child`. A sick driver blocks a process in
the kernel, or crashes it: this one can be killed and left. It answers requests on its standard
input by lines on its standard output (devices/wire.py), one at a time, and before it touches a GPU
it says which. It ends when its input closes, even while it is blocked, and writes nothing to
standard error. Holding NVML open keeps the GPUs awake, as persistence mode does.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from typing import assert_never

from gpud.devices.events import Listener
from gpud.devices.finding import find, units_at
from gpud.devices.looking import Looker
from gpud.devices.nvml import LIBRARY_NOT_FOUND, NvmlTrouble, call, gpu_count
from gpud.devices.whose import Whose
from gpud.devices.wire import (
    At,
    Broke,
    Cannot,
    Find,
    Found,
    Look,
    Looked,
    Message,
    Request,
    Seen,
    Touch,
    decode_request,
    encode,
)


class Out:
    """Standard output: what is put there goes out with the next `flush`. For two threads."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []

    def put(self, message: Message) -> None:
        with self._lock:
            self._waiting.append(encode(message))

    def flush(self) -> None:
        with self._lock:
            data = b"\n".join((*self._waiting, b""))
            self._waiting.clear()
            while data:
                data = data[os.write(self._fd, data) :]

    def at(self, index: int, of: int) -> None:
        """Said before the GPU is touched."""
        self.put(At(index, of))
        self.flush()


class Child:
    def __init__(self, out: Out) -> None:
        self._out = out
        self._stirred: set[str] = set()  # UUIDs: there was an Xid since the last look
        self._whose = Whose()
        self._looker = Looker(self._whose)
        self._listener = Listener(self._broke, self._stirred.update)
        self._ready = False
        self._count = -1
        self._blind = False  # in the last look
        self._uuids: dict[int, list[str]] = {}  # by index, as told in the last Found

    def answer(self, request: Request) -> None:
        """Raises NvmlTrouble when the driver cannot be asked."""
        if not self._ready:
            call("Init")
            self._ready = True
        match request:
            case Find():
                self._out.put(self._find(request.skip, request.of))
            case Look():
                self._out.put(Looked(self._look(request)))
            case Touch():
                self._touch(request)
                self._out.put(Looked())
            case _:
                assert_never(request)
        self._out.flush()

    def _find(self, skip: tuple[int, ...], of: int) -> Found:
        found, units = find(skip, of, self._out.at)
        self._count, self._uuids = found.count, {}
        for index, here in units.items():
            self._uuids[index] = [unit.uuid for unit in here]
            self._listener.heed(index, here)
        return found

    def _look(self, look: Look) -> Found | None:
        """Puts a `Seen` for each GPU; gives back what there is, where it has changed."""
        self._whose.begin(look.attempts, look.runners, blind=look.blind)
        self._blind = look.blind
        count = gpu_count()
        changed = others = count != self._count  # others: an index means another GPU now
        for index in range(count):
            if others or (index not in look.skip and index not in look.done):
                differs = self._see(index, count, health=look.health)
                changed = changed or differs
        return self._find(look.skip, self._count) if changed else None

    def _touch(self, touch: Touch) -> None:
        count = gpu_count()
        if count == touch.of:
            self._see(touch.index, count, health=True)

    def _see(self, index: int, count: int, *, health: bool) -> bool:
        """Puts a `Seen`; whether there is something else at this index than was told."""
        self._out.at(index, count)
        try:
            here = units_at(index)
        except NvmlTrouble as trouble:
            if trouble.whole:
                raise
            self._out.put(Seen(index, (), trouble.why, trouble.broken))
            return False
        self._listener.heed(index, here)
        uuids = [unit.uuid for unit in here]
        health = health or not self._stirred.isdisjoint(uuids)
        self._stirred.difference_update(uuids)
        attributable = not self._blind
        sights = [self._looker.look(u, health=health, attributable=attributable) for u in here]
        self._out.put(Seen(index, tuple(sights)))
        return uuids != self._uuids.get(index)

    def _broke(self, uuids: tuple[str, ...], why: str) -> None:
        self._out.put(Broke(uuids, why))
        self._out.flush()


def main() -> None:
    out = Out(_private_output())
    threading.Thread(target=_end_with_input, daemon=True).start()
    child = Child(out)
    try:
        for line in sys.stdin.buffer:
            child.answer(decode_request(line))
    except NvmlTrouble as trouble:
        out.put(Cannot(trouble.why, trouble.code == LIBRARY_NOT_FOUND))
    except BrokenPipeError:
        os._exit(0)  # nobody listens
    except Exception as error:
        out.put(Cannot(f"the GPU helper has a bug: {_where(error)}"))
    out.flush()
    os._exit(0)  # not through NVML's way out, which may block


def _private_output() -> int:
    """Standard output under another number: what the driver's library prints goes nowhere."""
    fd = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return fd


def _end_with_input() -> None:
    """Whatever the other threads are blocked in."""
    poll = select.poll()
    poll.register(0, 0)  # only that it was closed
    poll.poll()
    os._exit(0)


def _where(error: Exception) -> str:
    import traceback

    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({os.path.basename(last.filename)}:{last.lineno})"


if __name__ == "__main__":
    main()

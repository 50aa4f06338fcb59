"""kill -9 in the middle of commits: every acknowledged job is there afterwards."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from gpud.core.invariants import check_invariants
from gpud.core.model import Device, Outcome
from gpud.core.pool import Pool
from gpud.core.state import State
from gpud.store.sqlite import SqliteStore

WRITER = """
import sys
from pathlib import Path
from gpud.core.model import Device, JobId, JobSpec, NewJob, Outcome
from gpud.core.placement import place
from gpud.core.pool import Pool
from gpud.core.state import State
from gpud.store.sqlite import SqliteStore

# Submits, starts and ends jobs, and says what is committed: "submitted N" or "ended N".
store = SqliteStore.open(Path(sys.argv[1]), durable=False)
state = State(Pool([Device("0", ("0",))]))
loaded = store.load()
state.load(loaded.jobs, loaded.attempts)
state.next_id = loaded.next_id
while True:
    done = []
    for job in list(state.jobs.values())[:5]:
        if job.id in state.attempts:
            state.attempts[job.id].outcome = Outcome.SUCCEEDED
            state.finish(job, Outcome.SUCCEEDED, "", 2)
            state.tell(job.id, job.attempt, "ended", 2)
            done.append(f"ended {job.id}")
        elif (lease := place(state.pool, job.request)) is not None:
            state.activate(job, lease, 1)
    for _ in range(7):
        job = state.add(NewJob(JobSpec(b"x" * 300, env=b"E=%d" % (state.next_id // 9))), 1)
        state.tell(job.id, 0, "submitted", 1)
        done.append(f"submitted {job.id}")
    store.commit(state.take_changes())
    print(*done, sep="\\n", flush=True)
"""


@pytest.mark.parametrize("lives", [6])
def test_what_was_acknowledged_is_there_after_kill_9(tmp_path: Path, lives: int) -> None:
    chance = random.Random(20)
    submitted: set[int] = set()
    ended: set[int] = set()
    for _ in range(lives):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(chance.randint(1, 1500))]
            writer.kill()
            lines += writer.stdout.readlines()
        assert writer.returncode == -signal.SIGKILL
        for line in lines:
            if line.endswith("\n"):
                word, job = line.split()
                (submitted if word == "submitted" else ended).add(int(job))
    with closing(SqliteStore.open(tmp_path)) as store:
        loaded = store.load()
        known = {job.id for job in loaded.jobs}
        finished = {job.id for job in store.recall(range(1, loaded.next_id))}  # type: ignore[arg-type]
        assert not known & finished
        assert submitted <= known | finished
        assert ended <= finished
        assert known | finished == set(range(1, loaded.next_id))
        assert store.counts()[1][Outcome.SUCCEEDED] == len(finished)
        told = [e.job for e in store.events_after(0, 10**6) if e.kind == "submitted"]
        assert told == list(range(1, loaded.next_id))
        assert store._db.execute("PRAGMA quick_check").fetchone() == ("ok",)
        state = State(Pool([Device("0", ("0",))]))
        state.load(loaded.jobs, loaded.attempts)
        state.next_id = loaded.next_id
        check_invariants(state)

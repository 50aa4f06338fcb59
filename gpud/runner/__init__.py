"""The runner: the one process that is the parent of every running attempt, and outlives gpud.

    python -I -S gpud/runner/__main__.py STATE_DIR [--cgroup DIR|own] [--ready-fd N]

It starts shells, reaps them, ends what they leave behind, and tells one daemon at a time about it
(docs/runner-protocol.md). It decides nothing, reads no payload data, imports nothing else of gpud,
and everything that it does import at start, since an upgrade may replace the files under it.

Theory of operation. One thread, one epoll (loop.py). A *turn* is: wait, let each ready descriptor
act, let the deadlines that are due act, write the journal, then speak to the daemon, once. With
nothing ready and nothing due there is no wake-up at all.

 1. The journal comes first: `starting` is written before the process is made, an end before the
    daemon hears of it. What the journal or the memory knows is never started again. Nothing is
    fsynced: a power cut changes the boot id, and then everything that lived is `lost` anyway.
 2. An attempt ends once, when its shell has been reaped and its whole payload is gone. The end is
    repeated after every hello until the daemon forgets it.
 3. The payload is a cgroup, or (session mode) what descends from the shell. The runner is a
    subreaper, so each orphan becomes its child, always before the orphan's parent can be reaped.
    An orphan belongs to the attempt that it was last seen in, or whose nonce is in its environment,
    or whose session it is in, or to the only attempt there is. Any other is reported, not touched.
 4. A process is signalled through a pidfd after its start time has been compared.
 5. Nothing here waits for the daemon: the socket does not block, a slow reader is not read from.
 6. Who is paused stands still, and so does its time: limit and linger. A stop ends a pause.
 7. The payload inherits nothing of the runner: descriptors, signals, umask, OOM score, cgroup.

Who knows whom: orders -> start -> ending -> standstill -> payload, ledger, link -> loop, journal.
This file is all that the daemon imports, and it imports nothing.
"""

VERSION = 2
KNOWS_PAUSE = 2  # from that version on: `pause`, `continue`, `checkpoint`
ENTRY = __file__.removesuffix("__init__.py") + "__main__.py"

"""Whether the end of a log says that its program ended for want of memory.

Used by executors/oom.py, with the last 32 KiB of a log. In them, the last error counts:

1. A line that speaks of memory counts wherever it stands, except among a traceback's frames, which
   show source code ("except torch.OutOfMemoryError:").
2. A later error of another kind takes its place: the job that skipped a batch for want of memory
   and then failed with a KeyError failed with a KeyError.
3. Errors that only follow from an earlier one do not: a launcher's "a child has failed", a peer's
   lost connection, an exception raised while the first was being handled.
4. A program that says MOST_LINES_AFTER lines more has gone on; what it ended of is not known.
"""

from __future__ import annotations

import re

from gpud.executors.oom_words import KEYS, OF_MEMORY, Sign, sign_of

MOST_LINES_AFTER = 50
MOST_LINE_BYTES = 2000  # of each end of a line: exceptions are named early, an endless line last

_COLOURS = re.compile(rb"\x1b\[[0-9;?]{0,20}[A-Za-z]")
_HEADER = b"Traceback (most recent call last)"
_PREFIX = re.compile(rb"(?:^|[\]):|])\s+\Z")  # maybe of every line of a traceback
_TITLE = re.compile(rb"(?:Exception Group|Original|Remote) \Z")
_SOURCE = re.compile(rb"\s*File \"[^\"]{1,1000}\", line \d")
_BOXES = (b" ", b"\t", b"|", b"+", b"\xe2\x94", b"\xe2\x95")  # rich, and groups of exceptions
_CHAINED = (
    b"During handling of the above exception",
    b"was the direct cause of the following exception",
    b"Exception ignored in",
    b"Error in atexit",
    b"Error in sys.",
)
# What comes after an error without the program going on: frames of C++ and Go, wandb's farewell.
_FAREWELL = re.compile(rb"\s|\Z|frame #|#\d|@ +0x|\[New LWP|goroutine |wandb:|=====|-----|.*NCCL")


def last_word(tail: bytes) -> Sign:
    """CUDA or HOST: it ended for want of that memory; KILLED: a part of it died of SIGKILL."""
    low = tail.lower()
    first = min((at for key in KEYS if (at := low.find(key)) >= 0), default=-1)
    if first < 0:
        return Sign.NOTHING
    # Of what stands before, only a traceback that is not concluded yet makes a difference.
    begin = tail.rfind(_HEADER, 0, first)
    begin = tail.rfind(b"\n", 0, begin if begin >= 0 else max(first - MOST_LINE_BYTES, 0)) + 1
    found, lines_after = Sign.NOTHING, 0
    reader = _Lines()
    for raw in _COLOURS.sub(b"", tail[begin:]).split(b"\n"):
        # What a terminal would show of a line that a progress bar has written over and over.
        line = raw.rstrip(b"\r").rpartition(b"\r")[2]
        if len(line) > 2 * MOST_LINE_BYTES:
            line = line[:MOST_LINE_BYTES] + b" " + line[-MOST_LINE_BYTES:]
        sign = reader.sign(line)
        if sign is Sign.KILLED and found in OF_MEMORY:
            continue  # the death of one that had said what of
        if sign and sign is not Sign.ASIDE:
            found, lines_after = sign, 0
        elif not reader.in_traceback and not _FAREWELL.match(line):
            lines_after += 1
    return found if found in OF_MEMORY and lines_after <= MOST_LINES_AFTER else Sign.NOTHING


class _Lines:
    """Line after line, knows the tracebacks. Those of several processes may be interleaved, told
    apart by what each puts before its lines ("[rank3]: ")."""

    def __init__(self) -> None:
        self.in_traceback = False  # the line just read is part of one
        self._open: set[bytes] = set()  # the prefixes of those not concluded yet
        self._newest = b""  # the prefix of the traceback that begins here
        self._after_source = False  # the next line may be the source that a frame names
        self._chained = False  # the next conclusion follows from an earlier one

    def sign(self, line: bytes) -> Sign:
        self.in_traceback = True
        before, header, _ = line.partition(_HEADER)
        if header:
            before = _TITLE.sub(b"", before).replace(b"+", b"|")
            self._newest = before if _PREFIX.search(before) else b""
            self._open.add(self._newest)
            return Sign.NOTHING
        if any(words in line for words in _CHAINED):
            self._chained = True
            return Sign.NOTHING
        if self._newest and _SOURCE.match(line) and not line.startswith(self._newest):
            self._open.discard(self._newest)  # only its first line had something before it
            self._open.add(b"")
        self._newest = b""
        prefix = max((p for p in self._open if line.startswith(p)), key=len, default=None)
        if prefix is not None:
            rest = line[len(prefix) :]
            if not rest.strip() or rest.startswith(_BOXES):
                return Sign.NOTHING
            self._open.discard(prefix)
            return self._conclusion(rest)
        after_source, self._after_source = self._after_source, False
        if _SOURCE.match(line):
            self._after_source = True
            return Sign.NOTHING
        if after_source and line.startswith(b"    "):
            return Sign.NOTHING
        self.in_traceback = False
        if sign := sign_of(line):
            self._chained = False
        return sign

    def _conclusion(self, line: bytes) -> Sign:
        chained, self._chained = self._chained, False
        sign = sign_of(line, concluding=True)
        return Sign.ASIDE if chained and sign is Sign.OTHER else sign

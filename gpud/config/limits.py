"""How much a job may ask for, in whatever way it comes in: each bound stands here and nowhere else.

Used by the schema, by the options of queue files and by what the control server reads. The core
takes what passed these and does not look again. Pure, standard library only.
"""

from __future__ import annotations

from gpud.amounts import URGENT

LONGEST_S = 10 * 366 * 86_400.0  # ten years; far more than that no timer of the system takes
MOST_SLOTS = 1000  # a lease is counted in thousandths of a device
MOST_GPUS = 1024
MOST_RETRIES = 1_000_000
MOST_PRIORITY = URGENT  # as far below 0 as above
LONGEST_NAME = 200  # characters
LONGEST_MODEL = 100
LEAST_SHARE = 0.001  # of a GPU
MOST_KEPT = 1_000_000_000  # jobs
MOST_LIMIT = 1_000_000  # of running jobs, or of fails
MOST_WEIGHT = 1_000_000
MOST_VRAM_MIB = 1 << 30


def wrong_with_name(name: str) -> str:
    """Why a job cannot have this name, as a clause; "" when it can. No name at all is allowed."""
    if len(name) > LONGEST_NAME:
        return f"it is longer than {LONGEST_NAME} characters"
    if any(c < " " or "\x7f" <= c < "\xa0" for c in name):
        return "it contains a control character"
    if any("\ud800" <= c <= "\udfff" for c in name):  # bytes that are not UTF-8
        return "it is not UTF-8"
    return ""


LAST_MS = 253_402_300_799_000  # the end of the year 9999

"""What jobs have in common, as people write it: a group, labels like `sweep=lr`, a user.

Used wherever a person writes them: gpuctl, options of a queue file, the configuration. Raises
GpudError with a clause. Standard library only: gpuctl starts fast.
"""

from __future__ import annotations

import pwd
import re
from collections.abc import Iterable, Mapping

from gpud.errors import GpudError

MOST_LABELS = 32  # of one job
GROUP_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
LABEL_KEY_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}\Z"
LABEL_VALUE_PATTERN = r"^[A-Za-z0-9._/:+@%-]{1,100}\Z"
GROUP_RULE = 'a group has letters, digits, ".", "_" and "-", 64 at most'
LABEL_RULE = 'a label is KEY=VALUE: letters, digits and any of "._/-", in the value ":+@%", too'


def read_group(text: str) -> str:
    if not re.search(GROUP_PATTERN, text):
        raise GpudError(GROUP_RULE)
    return text


def read_label(text: str) -> tuple[str, str]:
    """`KEY=`, without a value, takes a label away that others have given."""
    key, equals, value = text.partition("=")
    check_labels({key: value or (equals and "-")})
    return key, value


def check_labels(labels: Mapping[str, str]) -> None:
    for key, value in labels.items():
        if not re.search(LABEL_KEY_PATTERN, key) or not re.search(LABEL_VALUE_PATTERN, value):
            raise GpudError(LABEL_RULE)
    if len(labels) > MOST_LABELS:
        raise GpudError(f"a job has at most {MOST_LABELS} labels")


def labels_of(pairs: Mapping[str, str], base: Iterable[str] = ()) -> tuple[str, ...]:
    """Over those of `base`; of the same key the last one counts, and one without a value takes it
    away. Sorted, as a spec carries them."""
    merged = dict(label.split("=", 1) for label in base) | dict(pairs)
    merged = {key: value for key, value in merged.items() if value}
    check_labels(merged)
    return tuple(f"{key}={value}" for key, value in sorted(merged.items()))


def user_name(uid: int) -> str:
    """Its number, where this machine knows no name for it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def uid_of(name: str) -> int | None:
    """Of a name or a number; None: this machine knows no such user."""
    if name.isdecimal() and name.isascii():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        return None

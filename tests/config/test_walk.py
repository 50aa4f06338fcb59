"""The walk knows every key of the schema: whatever is written there, it has a rule for it."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.config.load import ConfigError, parse
from gpud.config.schema import Config, JobDefaults, Log, Pool, QueueFileSource
from gpud.config.walk import Walk

SOURCE = '[source.a]\ntype = "queue-file"\npath = "q"'
TABLES: dict[str, type[msgspec.Struct]] = {
    "": Config,
    "[pool]": Pool,
    "[defaults]": JobDefaults,
    "[log]": Log,
    SOURCE: QueueFileSource,
}
KEYS = [
    pytest.param(table, key, id=f"{kind.__name__}.{key}")
    for table, kind in TABLES.items()
    for key in kind.__struct_encode_fields__
    if (kind, key) != (QueueFileSource, "path")
]
ODD: list[Any] = [True, 7, 0.5, -1.5, "odd", "", [1.5], [[]], [""]]


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_a_value_of_another_type_has_file_line_and_key(table: str, key: str) -> None:
    """Whatever is written there, it is the walk that finds it, not the library."""
    wrong = 0
    for value in [*map(json.dumps, ODD), "{ k = 1 }", "2026-11-21"]:
        found: list[str] = []
        try:
            parse(f"{table}\n{key} = {value}\n", name="gpud.toml", directory=Path("/etc/gpud"))
        except ConfigError as error:
            found = error.problems
        wrong += bool(found)
        for problem in found:
            place, _, sentence = problem.partition(": ")
            assert place.startswith("gpud.toml:"), problem
            assert key in sentence, problem
            assert "Expected" not in sentence, problem
    assert wrong, "there is no type that this key does not take"


SCALARS = st.one_of(
    st.booleans(),
    st.integers(-2, 2000),
    st.floats(),
    st.sampled_from(["wait", "90s", "", "queue-file", "end", "a\0", "info"]),
    st.just(datetime.date(2026, 11, 21)),
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.just("K"), SCALARS)


def tables(kind: type[msgspec.Struct]) -> st.SearchStrategy[dict[str, object]]:
    """Tables with some of the keys of a struct, and at times one that it has not."""
    keys = dict.fromkeys((*kind.__struct_encode_fields__, "typo"), VALUES)
    return st.fixed_dictionaries({}, optional=keys)


SOURCES = st.builds(
    lambda table, more: {**table, **more},
    tables(QueueFileSource),
    st.sampled_from([{"type": "queue-file", "path": "q"}, {"type": "queue-file"}, {}]),
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "pool": tables(Pool) | SCALARS,
        "defaults": tables(JobDefaults) | SCALARS,
        "log": tables(Log) | SCALARS,
        "source": st.dictionaries(st.sampled_from(["a", "b c"]), SOURCES | SCALARS) | SCALARS,
        "state_dir": SCALARS,
    },
)


@given(document=DOCUMENTS)
def test_whatever_the_document_a_config_or_problems(document: dict[str, object]) -> None:
    """The walk knows everything that the strict conversion would refuse."""
    walk = Walk(lambda value: value)
    clean = walk.document(document)
    if not walk.problems:
        msgspec.convert(clean, Config, strict=True)
    assert all("\n" not in sentence for _, sentence in walk.problems)

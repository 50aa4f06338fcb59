"""config.example.toml against the schema, both ways.

A setting is a line `key = value` or `#key = value`; prose is `# ` with a space. What has no default
of its own in the schema says under "Default" what happens then.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpud.config.load import load, parse
from gpud.config.schema import (
    Access,
    Config,
    FairShare,
    Group,
    JobDefaults,
    LabelRule,
    Log,
    Metrics,
    Pool,
    QueueFileSource,
    Retention,
    User,
)

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"
SETTING = re.compile(r"#?([a-z_]+) = ")
TABLES: dict[str, type[msgspec.Struct]] = {
    "": Config,
    "pool": Pool,
    "defaults": JobDefaults,
    "log": Log,
    "access": Access,
    "metrics": Metrics,
    "groups.lr": Group,
    "users.alice": User,
    'labels."sweep=lr"': LabelRule,
    "fair_share": FairShare,
    "retention": Retention,
    "source.nightly": QueueFileSource,
}
NAMES = "windows"  # a table whose keys are names
# Tables.
NOT_SETTINGS = {
    *("access", "pool", "defaults", "log", "metrics", "windows", "groups", "users", "labels"),
    *("fair_share", "source", "retention"),
}


def uncommented() -> str:
    return re.sub(r"(?m)^#(?=[a-z_]+ = |\[)", "", EXAMPLE.read_text())


def in_private_mode() -> str:
    """A source's `user` is for the other one."""
    return re.sub(r"(?m)^user = .*$", "", uncommented())


def keys_of(kind: type[msgspec.Struct]) -> set[str]:
    keys = set(kind.__struct_encode_fields__)
    if kind is Config:
        keys -= NOT_SETTINGS
    if kind is QueueFileSource:
        keys |= {"type"}
    return keys


def described() -> dict[tuple[str, str], str]:
    """(table, key) -> the prose above it, over the settings directly before it too."""
    found: dict[tuple[str, str], str] = {}
    table, prose, settled = "", "", False
    for line in EXAMPLE.read_text().splitlines():
        header = re.fullmatch(r"#?\[([a-z_.\"=]+)\]", line)
        setting = SETTING.match(line)
        if header:
            table, prose = header[1], ""
        elif setting and table != NAMES:
            assert (table, setting[1]) not in found, f"{setting[1]} stands twice in [{table}]"
            found[table, setting[1]] = prose
            settled = True
        elif settled or not line:
            prose, settled = line, False
        else:
            prose += "\n" + line
    return found


def test_it_can_be_used_as_it_is() -> None:
    assert load(EXAMPLE) == Config()


def test_with_every_key_set_it_is_a_good_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    config = parse(in_private_mode(), name="example", directory=Path("/etc/gpud"))
    assert config.source["nightly"].path == "/home/ada/gpu.queue"
    assert config.source["nightly"].backoff_max_s == 600


def test_every_key_is_there_and_no_other() -> None:
    document = tomllib.loads(uncommented())
    tables = {"": {k: v for k, v in document.items() if k not in NOT_SETTINGS}}
    tables |= {name: inside(document, name) for name in TABLES if name}
    for name, kind in TABLES.items():
        assert set(tables[name]) == keys_of(kind), f"in [{name}]"
    assert {(name, key) for name in TABLES for key in tables[name]} == set(described())


def test_the_defaults_shown_are_the_real_ones() -> None:
    config = parse(in_private_mode(), name="example", directory=Path("/"))
    for (table, key), prose in described().items():
        kind = TABLES[table]
        default = default_of(kind, key)
        if default in (None, (), {}):
            assert "Default" in prose, f"{table}.{key} does not say what its default is"
            continue
        value = inside(config, table)
        assert getattr(value, key) == default, f"the default of {table}.{key}"


def test_what_a_source_takes_from_the_defaults_is_shown_with_their_default() -> None:
    source = parse(in_private_mode(), name="example", directory=Path("/")).source["nightly"]
    for field in msgspec.structs.fields(JobDefaults):
        if hasattr(source, field.name) and field.default not in (None, msgspec.NODEFAULT):
            assert getattr(source, field.name) == field.default, field.name


def test_it_is_no_wider_than_the_code() -> None:
    assert max(map(len, EXAMPLE.read_text().splitlines())) <= 100


def inside(document: Any, table: str) -> Any:
    """What stands in this table."""
    for part in filter(None, table.replace('"', "").split(".")):
        document = document[part] if isinstance(document, dict) else getattr(document, part)
    return document


def default_of(kind: type[msgspec.Struct], key: str) -> Any:
    if key == "type":  # the tag: msgspec has no field for it
        return None
    field = next(f for f in msgspec.structs.fields(kind) if f.encode_name == key)
    if field.default is not msgspec.NODEFAULT:
        return field.default
    return None if field.required else field.default_factory()  # type: ignore[misc,operator]

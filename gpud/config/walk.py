"""One walk over the whole document against the schema: every problem, not the first one.

Owns what people are told about a wrong key or value. It gives back the document in the form that
msgspec converts strictly: durations as numbers, paths expanded. Bounds and patterns come from the
schema. Called by config/load.py only; reads nothing but the document.
"""

from __future__ import annotations

import datetime
import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import inspect

from gpud.amounts import URGENT, URGENT_WORD
from gpud.config.asking import check_gpus, read_checkpoint, read_size_mib
from gpud.config.lines import dotted
from gpud.config.listen import is_path, read_listen
from gpud.config.schema import Config
from gpud.config.units import parse_duration_s
from gpud.errors import GpudError

KeyPath = tuple[str | int, ...]


class Walk:
    """`problems` holds (path, sentence) in the order of the document."""

    def __init__(self, expand: Callable[[str], str]) -> None:
        self.problems: list[tuple[KeyPath, str]] = []
        self._expand = expand  # of a path; raises GpudError

    def document(self, document: Mapping[str, Any]) -> dict[str, Any]:
        kind = inspect.type_info(Config)
        assert isinstance(kind, inspect.StructType)
        return self._table(kind, document, ())

    def problem(self, path: KeyPath, sentence: str) -> None:
        self.problems.append((path, sentence))

    def _table(
        self, kind: inspect.StructType, table: Mapping[str, Any], path: KeyPath
    ) -> dict[str, Any]:
        fields = {field.encode_name: field for field in kind.fields}
        known = [*fields, kind.tag_field] if kind.tag_field else list(fields)
        good: dict[str, Any] = {}
        for name, value in table.items():
            if name == kind.tag_field:
                good[name] = value
            elif name in fields:
                good[name] = self._value(fields[name].type, value, (*path, name))
            else:
                self.problem((*path, name), _unknown_key((*path, name), known))
        for name, field in fields.items():
            if field.required and name not in table:
                self.problem(path, f"{dotted(path)} has no {name}, and needs one")
        return good

    def _tagged(self, kinds: Sequence[inspect.Type], value: Any, path: KeyPath) -> Any:
        """A table whose `type` says which struct it is."""
        structs = [kind for kind in kinds if isinstance(kind, inspect.StructType)]
        field, tags = structs[0].tag_field, {kind.tag: kind for kind in structs}
        if not isinstance(value, dict):
            self._wrong_type(path, "a table", value)
        elif field is not None and field not in value:
            choices = " or ".join(f'"{tag}"' for tag in tags)
            self.problem(path, f"{dotted(path)} has no {field}, and needs one: {field} = {choices}")
        elif field is not None and value[field] not in list(tags):
            self._choice(list(tags), value[field], (*path, field))
        else:
            return self._table(tags[value[field] if field else None], value, path)
        return value

    def _value(self, kind: inspect.Type, value: Any, path: KeyPath) -> Any:
        kind, marks, description = _unwrap(kind)
        if isinstance(kind, inspect.UnionType):
            return self._union(kind, value, path)
        if isinstance(kind, inspect.StructType):
            if kind.tag_field:
                return self._tagged([kind], value, path)
            if isinstance(value, dict):
                return self._table(kind, value, path)
            self._wrong_type(path, "a table", value)
        elif isinstance(kind, inspect.DictType):
            return self._dict(kind, value, path)
        elif isinstance(kind, inspect.VarTupleType):
            if not isinstance(value, list):
                self._wrong_type(path, "a list", value, description)
                return value
            if len(value) < (kind.min_length or 0):
                self.problem(path, f"{dotted(path)} may not be empty{description}")
            return self._list(kind, value, path, numbers="numbers" in marks)
        elif isinstance(kind, inspect.LiteralType):
            self._choice(kind.values, value, path)
        elif isinstance(kind, inspect.FloatType) and "gpus" in marks:
            self._gpus(value, path)
        elif isinstance(kind, inspect.FloatType) and "number" in marks:
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._bounds(kind, value, path)
            else:
                self._wrong_type(path, "a number", value)
        elif isinstance(kind, inspect.FloatType):
            return self._duration(kind, value, path)
        elif isinstance(kind, inspect.IntType) and "size" in marks:
            return self._size(value, path)
        elif isinstance(kind, inspect.IntType) and "signal" in marks:
            return self._signal(value, path)
        elif isinstance(kind, inspect.IntType) and "priority" in marks and value == URGENT_WORD:
            return URGENT
        elif isinstance(kind, inspect.IntType):
            if isinstance(value, int) and not isinstance(value, bool):
                self._bounds(kind, value, path)
            else:
                self._wrong_type(path, "a whole number", value)
        elif isinstance(kind, inspect.StrType):
            return self._text(kind, value, path, marks, description)
        elif isinstance(kind, inspect.BoolType):
            if not isinstance(value, bool):
                bare = ": write it without quotes" if isinstance(value, str) else ""
                self._wrong_type(path, "true or false", value, bare)
        else:  # what the schema has, this walk knows
            raise TypeError(f"no rule for {dotted(path)}: {kind}")
        return value

    def _union(self, kind: inspect.UnionType, value: Any, path: KeyPath) -> Any:
        """`X | None`, `Seconds | Literal["wait"]`, or structs told apart by their tag."""
        kinds = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
        if all(isinstance(one, inspect.StructType) for one in kinds):
            return self._tagged(kinds, value, path)
        words = [w for one in kinds if isinstance(one, inspect.LiteralType) for w in one.values]
        if value in words:
            return value
        before = len(self.problems)
        rest = [one for one in kinds if not isinstance(one, inspect.LiteralType)]
        value = self._value(rest[0], value, path)
        if words and len(self.problems) > before:
            also = "".join(f', or "{word}"' for word in words)
            self.problems[-1] = (path, self.problems[-1][1] + also)
        return value

    def _dict(self, kind: inspect.DictType, value: Any, path: KeyPath) -> Any:
        if not isinstance(value, dict):
            self._wrong_type(path, "a table", value)
            return value
        names, marks, description = _unwrap(kind.key_type)
        pattern = names.pattern if isinstance(names, inspect.StrType) else None
        good: dict[str, Any] = {}
        for name, item in value.items():
            if pattern and not re.search(pattern, name):
                # `"PIN=4242" = "x"`: what stands behind the "=" was meant as a value.
                shown = f"{name.partition('=')[0]}=…" if "secret" in marks and "=" in name else name
                self.problem((*path, name), f"cannot use the name {shown!r}{description}")
            else:
                good[name] = self._value(kind.value_type, item, (*path, name))
        return good

    def _list(
        self, kind: inspect.VarTupleType, value: list[Any], path: KeyPath, *, numbers: bool
    ) -> list[Any]:
        if numbers:
            value = [str(item) if type(item) is int else item for item in value]
        return [self._value(kind.item_type, item, (*path, i)) for i, item in enumerate(value)]

    def _duration(self, kind: inspect.FloatType, value: Any, path: KeyPath) -> Any:
        if isinstance(value, str):
            try:
                value = parse_duration_s(value)
            except GpudError as error:
                self.problem(path, f"{dotted(path)}: {error.message}")
                return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._wrong_type(path, 'a duration (seconds, or text like "10m")', value)
        elif not math.isfinite(value):
            self.problem(path, f"{dotted(path)} must be finite; leave it out for no limit")
        else:
            self._bounds(kind, value, path)
        return value

    def _size(self, value: Any, path: KeyPath) -> Any:
        if value == 0 and type(value) is int:
            return 0
        if not isinstance(value, str):
            self._wrong_type(path, "an amount of memory", value, ': write text like "12G"')
            return value
        try:
            return read_size_mib(value)
        except GpudError as error:
            self.problem(path, f"{dotted(path)}: {error.message}")
            return value

    def _signal(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, bool) or not isinstance(value, str | int):
            self._wrong_type(path, 'a signal (text like "SIGUSR1", or a number)', value)
            return value
        try:
            return read_checkpoint(str(value))
        except GpudError as error:
            self.problem(path, f"{dotted(path)}: {error.message}")
            return value

    def _gpus(self, value: Any, path: KeyPath) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._wrong_type(path, "a number of GPUs", value)
            return
        try:
            check_gpus(value)
        except GpudError as error:
            self.problem(path, f"{dotted(path)} cannot be {value}: {error.message}")

    def _text(
        self,
        kind: inspect.StrType,
        value: Any,
        path: KeyPath,
        marks: Mapping[str, Any],
        description: str,
    ) -> Any:
        if "secret" in marks and not isinstance(value, str):
            self.problem(path, f"{dotted(path)} must be text: put it in quotes")
        elif not isinstance(value, str):
            quoted = f': write "{value}"' if type(value) in (int, float) else ""
            self._wrong_type(path, "text", value, quoted)
        elif len(value) < (kind.min_length or 0):
            self.problem(path, f"{dotted(path)} may not be empty")
        elif kind.max_length is not None and len(value) > kind.max_length:
            self.problem(path, f"{dotted(path)} may have {kind.max_length} characters at most")
        elif "line" in marks and not value.isprintable():
            self.problem(path, f"{dotted(path)} may not contain a line break or the like")
        elif kind.pattern is not None and not re.search(kind.pattern, value):
            self.problem(path, f"{dotted(path)} cannot be {value[:60]!r}{description}")
        elif "\0" in value:
            self.problem(path, f"{dotted(path)} may not contain a NUL character")
        elif "listen" in marks and not is_path(value):
            try:
                read_listen(value)
            except GpudError as error:
                self.problem(path, f"{dotted(path)} cannot be {value[:60]!r}: {error.message}")
        elif "path" in marks or "listen" in marks:
            try:
                return self._expand(value)
            except GpudError as error:
                self.problem(path, f"{dotted(path)}: {error.message}")
        return value

    def _bounds(
        self, kind: inspect.IntType | inspect.FloatType, value: float, path: KeyPath
    ) -> None:
        if kind.gt is not None and value <= kind.gt:
            self.problem(path, f"{dotted(path)} must be more than {kind.gt:.15g}, not {value}")
        elif kind.ge is not None and value < kind.ge:
            self.problem(path, f"{dotted(path)} must be at least {kind.ge:.15g}, not {value}")
        elif kind.le is not None and value > kind.le:
            self.problem(path, f"{dotted(path)} must be at most {kind.le:.15g}, not {value}")

    def _choice(self, choices: Sequence[Any], value: Any, path: KeyPath) -> None:
        if value in choices and isinstance(value, str):
            return
        if not isinstance(value, str):
            self._wrong_type(path, "text", value)
            return
        near = difflib.get_close_matches(value, choices, 1)
        said = f'did you mean "{near[0]}"?' if near else "it can be " + ", ".join(choices)
        self.problem(path, f'{dotted(path)} cannot be "{value}": {said}')

    def _wrong_type(self, path: KeyPath, wanted: str, value: Any, example: str = "") -> None:
        self.problem(path, f"{dotted(path)} must be {wanted}, not {_called(value)}{example}")


def _unwrap(kind: inspect.Type) -> tuple[inspect.Type, dict[str, Any], str]:
    """The type itself, the schema's marks, and its description as the end of a sentence."""
    if not isinstance(kind, inspect.Metadata):
        return kind, {}, ""
    description = (kind.extra_json_schema or {}).get("description")
    return kind.type, kind.extra or {}, f": {description}" if description else ""


def _unknown_key(path: KeyPath, known: Sequence[str]) -> str:
    """Where the key belongs; else the nearest one of the same table; else what there is."""
    name = str(path[-1])
    homes = " or ".join(table for table, names in _tables().items() if name in names)
    if homes:
        return f"unknown key {dotted(path)}: it belongs in {homes}"
    near = difflib.get_close_matches(name, known, 1)
    if not near:
        near = [key for key in known if key.startswith((f"{name}_", f"{name}s"))][:1]
    if near:
        return f"unknown key {dotted(path)}: did you mean {near[0]}?"
    return f"unknown key {dotted(path)}: known here are {', '.join(known)}"


def _tables() -> dict[str, list[str]]:
    """The keys of each table, for people: {"[pool]": ["gpus", ...], "[source.NAME]": ...}."""
    found: dict[str, list[str]] = {}
    top = inspect.type_info(Config)
    assert isinstance(top, inspect.StructType)
    for field in top.fields:
        kind, shown = field.type, f"[{field.encode_name}]"
        if isinstance(kind, inspect.DictType):
            kind, shown = kind.value_type, f"[{field.encode_name}.NAME]"
        for one in kind.types if isinstance(kind, inspect.UnionType) else (kind,):
            if isinstance(one, inspect.StructType):
                found.setdefault(shown, []).extend(f.encode_name for f in one.fields)
    return found


def _called(value: Any) -> str:
    """What a person calls a TOML value of this type."""
    if isinstance(value, bool):
        return str(value).lower()
    names: list[tuple[Any, str]] = [
        (str, "text"), (int, "a number"), (float, "a number"), (list, "a list"), (dict, "a table"),
        ((datetime.date, datetime.time), "a date or time"),
    ]  # fmt: skip
    return next(name for kind, name in names if isinstance(value, kind))

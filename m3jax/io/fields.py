"""Configs (nested frozen dataclasses) to JSON and back, and changes of fields by dotted name.

A class may list former names of its fields in an attribute `RENAMED`:
{old field: (field, {old value: value})}. They are accepted with a warning.
"""

import ast
import dataclasses
import logging
import types
import typing
from typing import Any, Literal, TypeVar

log = logging.getLogger(__name__)

Config = TypeVar("Config")


def override(config: Config, *assignments: str) -> Config:
    """Returns a copy of `config` with dotted fields changed: `"encoder.layers=3"`.

    If a field is assigned twice, the last assignment counts. Fields are validated after all
    assignments. Former field names (`RENAMED`) are accepted with a warning. Raises KeyError for an
    unknown field, ValueError for a value of the wrong type or out of range.
    """
    values: dict[str, str] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"expected FIELD=VALUE, got {assignment!r}")
        values.pop(path.strip(), None)  # so that the last assignment comes last
        values[path.strip()] = text
    return _replace(config, values, "")


def _replace(config: Any, values: dict[str, str], prefix: str) -> Any:
    """Assigns `values`, texts by path below `config`, whose own path is `prefix`."""
    known = sorted(f.name for f in dataclasses.fields(config))
    hints = typing.get_type_hints(type(config))
    nested: dict[str, dict[str, str]] = {}
    changes: dict[str, Any] = {}
    for path, text in values.items():
        head, _, rest = path.partition(".")
        value = _literal(text)
        if not rest:
            head, value = _current(type(config), head, value, prefix)
        if head not in known or (rest and not dataclasses.is_dataclass(getattr(config, head))):
            name = type(config).__name__
            raise KeyError(f"{prefix}{path}: {name} has no field {path!r}; it has {known}")
        if rest:
            nested.setdefault(head, {})[rest] = text
        else:
            changes[head] = _coerce(value, hints[head], f"{prefix}{head}")
    for head, below in nested.items():
        changes[head] = _replace(getattr(config, head), below, f"{prefix}{head}.")
    return dataclasses.replace(config, **changes)


def to_json(config: Any) -> dict[str, Any]:
    """The config as plain nested JSON values."""
    return dataclasses.asdict(config)


def from_json(cls: type[Config], values: dict[str, Any]) -> Config:
    """The inverse of `to_json`. Missing fields take their defaults.

    Former field names (`RENAMED`) are accepted with a warning. Raises KeyError for an unknown
    field, ValueError for a value of the wrong type or out of range.
    """
    hints = typing.get_type_hints(cls)
    values = dict(_current(cls, name, value, "") for name, value in values.items())
    known = sorted(field.name for field in dataclasses.fields(typing.cast(Any, cls)))
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise KeyError(f"{cls.__name__} has no field {unknown[0]!r}; it has {known}")
    return cls(**{name: _coerce(value, hints[name], name) for name, value in values.items()})


def current_field(cls: type, name: str, value: Any) -> tuple[str, Any]:
    """The current name and value of a field of `cls` (see `RENAMED`)."""
    new, new_values = getattr(cls, "RENAMED", {}).get(name, (name, {}))
    return new, new_values.get(value, value) if isinstance(value, str) else value


def _current(cls: type, name: str, value: Any, prefix: str) -> tuple[str, Any]:
    """`current_field`; logs a warning if `name` is a former one."""
    new, value = current_field(cls, name, value)
    if new != name:
        log.warning("%s%s is deprecated, use %s%s", prefix, name, prefix, new)
    return new, value


def _literal(text: str) -> Any:
    """A Python literal, or the text itself: `cls` needs no quotes on a command line."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text.strip()


def _coerce(value: Any, hint: Any, path: str) -> Any:
    """`value` as the annotated type: lists become tuples, integers become floats."""
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_json(typing.cast(type, hint), value)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in args:
            choices = ", ".join(map(str, args))
            raise ValueError(f"{path} must be one of {choices}; got {value!r}")
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_coerce(item, args[0], path) for item in value)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        return _coerce(value, next(a for a in args if a is not type(None)), path)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise ValueError(f"{path}: {value!r} is not of type {getattr(hint, '__name__', hint)}")

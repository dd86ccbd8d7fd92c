"""Strict reading of data from outside: a wrong, unknown or missing key is refused by name.

One reader for every file and message that reaches us (settings, inventory, recipes, plans, manifests), so
that they all refuse in the same words: the file, the key, and the nearest right name.
"""

import difflib
import json
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

T = TypeVar("T")

_PLAIN_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "a table"}


class BadData(ValueError):
    """One line that names the file, the key and what would be right."""


def read_toml(path: Path, shape: type[T]) -> T:
    """Read a TOML file into the dataclass `shape`.

    Raises BadData with one line for a file that cannot be read, is not TOML, or does not fit.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path}: cannot be read: {error}") from None
    return parse_toml(text, shape, source=str(path))


def parse_toml(text: str, shape: type[T], *, source: str) -> T:
    """Like `read_toml`, for a text that came from elsewhere (a git object); `source` names it in errors."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadData(f"{source}: not valid TOML: {error}") from None
    return from_data(data, shape, source=source)


def parse_json(text: str, shape: type[T], *, source: str) -> T:
    """Read a JSON text into the dataclass `shape`; raises BadData."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadData(f"{source}: not valid JSON: {error}") from None
    return from_data(data, shape, source=source)


def from_data(data: object, shape: type[T], *, source: str) -> T:
    """Build the dataclass `shape` from plain data (dict, list, str, int, float, bool, None); raises BadData.

    A `__post_init__` of the dataclass may raise ValueError for values out of range; it becomes BadData too.
    """
    return cast(T, _convert(data, shape, source, ""))


def _convert(data: object, shape: Any, source: str, where: str) -> object:
    if is_dataclass(shape):
        return _to_dataclass(data, cast(type, shape), source, where)
    origin, arguments = typing.get_origin(shape), typing.get_args(shape)
    if origin in (types.UnionType, typing.Union):
        return _to_union(data, arguments, source, where)
    if origin is typing.Literal:
        if data in arguments:
            return data
        raise _refuse(
            source,
            where,
            f"is {data!r}, not one of {', '.join(map(repr, arguments))}{_nearest(data, arguments)}",
        )
    if origin in (tuple, list):
        if not isinstance(data, list | tuple):
            raise _refuse(source, where, "must be a list")
        return origin(_convert(item, arguments[0], source, f"{where}[{i}]") for i, item in enumerate(data))
    if origin in (dict, Mapping) or shape in (dict, Mapping):
        return _to_mapping(data, arguments, source, where)
    return _to_plain(data, shape, source, where)


def _to_dataclass(data: object, shape: type, source: str, where: str) -> object:
    if not isinstance(data, dict):
        raise _refuse(source, where, "must be a table")
    known = {field.name.rstrip("_"): field for field in fields(shape) if field.init}
    hints = typing.get_type_hints(shape)
    for key in data:
        if key not in known:
            raise _refuse(source, _join(where, str(key)), f"is unknown{_nearest(key, known)}")
    values = {}
    for key, field in known.items():
        if key in data:
            values[field.name] = _convert(data[key], hints[field.name], source, _join(where, key))
        elif field.default is MISSING and field.default_factory is MISSING:
            raise _refuse(source, _join(where, key), f"is missing{_misspelt(key, data, known)}")
    try:
        return shape(**values)
    except BadData:
        raise
    except ValueError as error:
        raise _refuse(source, where, str(error)) from None


def _to_union(data: object, arguments: tuple[Any, ...], source: str, where: str) -> object:
    if data is None and type(None) in arguments:
        return None
    choices = [choice for choice in arguments if choice is not type(None)]
    if len(choices) == 1:
        return _convert(data, choices[0], source, where)
    for choice in choices:
        try:
            return _convert(data, choice, source, where)
        except BadData:
            continue
    raise _refuse(source, where, f"is {data!r}, which fits none of the allowed forms")


def _to_mapping(data: object, arguments: tuple[Any, ...], source: str, where: str) -> object:
    if not isinstance(data, dict):
        raise _refuse(source, where, "must be a table")
    value_shape = arguments[1] if arguments else Any
    if value_shape is Any:
        return dict(data)
    return {str(key): _convert(value, value_shape, source, _join(where, str(key))) for key, value in data.items()}


def _to_plain(data: object, shape: Any, source: str, where: str) -> object:
    if shape is Any or shape is object:
        return data
    if shape is float and isinstance(data, int) and not isinstance(data, bool):
        try:
            return float(data)
        except OverflowError:
            raise _refuse(source, where, "is too large for a number") from None
    if shape is Path and isinstance(data, str):
        return Path(data)
    if type(data) is not shape:
        raise _refuse(source, where, f"is {data!r}, must be {_PLAIN_NAMES.get(shape, shape)}")
    return data


def _refuse(source: str, where: str, what: str) -> BadData:
    told = f"{source}: {where} {what}" if where else f"{source}: {what}"
    return BadData("".join(letter if letter.isprintable() else "?" for letter in told))


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _nearest(name: object, known: Any) -> str:
    near = difflib.get_close_matches(str(name), [str(item) for item in known], n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""


def _misspelt(key: str, data: Mapping[str, object], known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(key, [name for name in data if name not in known], n=1, cutoff=0.5)
    return f" (is '{near[0]}' meant?)" if near else ""

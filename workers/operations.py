"""What an agent may be asked to do: functions marked with `@operation`, and no others.

An operation's name is its module under `workers` and its own name: `volumes.overlay.create` is the function
`create` of `workers/volumes/overlay.py`. Arguments and results are plain JSON data.
"""

import importlib
import re
from collections.abc import Callable
from typing import Any, TypeVar

_NAME = re.compile(r"(?P<module>[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*)\.(?P<function>[a-z][a-z0-9_]*)")

Function = TypeVar("Function", bound=Callable[..., Any])

_operations: dict[str, Callable[..., Any]] = {}


class UnknownOperation(LookupError):
    """No function of that name is marked as an operation."""


def operation(function: Function) -> Function:
    """Let agents call this module-level function by name."""
    _operations[f"{function.__module__.removeprefix('workers.')}.{function.__name__}"] = function
    return function


def find_operation(name: str) -> Callable[..., Any]:
    """The operation called `name`; its module is imported when first asked for. Raises UnknownOperation."""
    match = _NAME.fullmatch(name)
    if match and name not in _operations:
        module = f"workers.{match['module']}"
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            # a missing import inside that module is another fault, to be seen as such
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
    if name not in _operations:
        raise UnknownOperation(f"no operation {name!r}")
    return _operations[name]

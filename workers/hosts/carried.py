"""An agent on a host that has no file of ours: its code comes over its standard input and stays in memory.

This module's own text is sent first and run; the line behind it holds every module that an agent may import.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
from collections.abc import Sequence
from types import ModuleType


class Carried(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports modules from `sources`: name → text, with `name.__init__` for packages."""

    def __init__(self, sources: dict[str, str]) -> None:
        self._sources = sources

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        is_package = f"{name}.__init__" in self._sources
        if not is_package and name not in self._sources:
            return None
        return importlib.util.spec_from_loader(name, self, origin=f"<sent: {name}>", is_package=is_package)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        text = self._sources.get(f"{name}.__init__", self._sources.get(name, ""))
        exec(compile(text, f"<sent: {name}>", "exec"), module.__dict__)  # noqa: S102  that is how modules are run


def serve() -> None:
    """Take the modules, and be the agent."""
    sys.meta_path.insert(0, Carried(json.loads(sys.stdin.buffer.readline())))
    from workers.agent import main

    main()

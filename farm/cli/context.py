"""What every command starts from: settings, inventory, and the database when it is asked for."""

import functools
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from farm.cli.errors import UsageError
from farm.inventory import Cluster, load_inventory
from farm.names import there_are
from farm.results.database import open_database
from farm.sessions import planned_scenarios
from farm.settings import Settings, load_settings


@dataclass(frozen=True)
class Context:
    settings: Settings
    inventory: Mapping[str, Cluster]

    @classmethod
    def load(cls, file: Path | None) -> "Context":
        """Raises strict.BadData naming file and key."""
        settings = load_settings(file)
        planned_scenarios(settings.farm.scenario)  # a name that does not exist is told now, not when it is planned
        return cls(settings, load_inventory(settings.farm.inventory, settings.farm.clusters))

    @functools.cached_property
    def engine(self) -> Engine:
        self.settings.home.mkdir(parents=True, exist_ok=True)
        return open_database(self.settings.database_url)

    def cluster(self, name: str) -> Cluster:
        """Raises UsageError naming the clusters there are."""
        if name not in self.inventory:
            raise UsageError(f"no cluster '{name}' {there_are(name, self.inventory)}")
        return self.inventory[name]

    def require_clusters(self) -> None:
        """Raises UsageError where there is none to measure on."""
        if not self.inventory:
            folder = self.settings.farm.inventory
            raise UsageError(f"no cluster in {folder}: each needs a file NAME.toml there, as in inventory/acorn.toml")


def print_json(data: Any) -> None:
    json.dump(data, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")

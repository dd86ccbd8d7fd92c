"""All scenarios by name."""

from scenarios.contract import Scenario

SCENARIOS: dict[str, Scenario] = {}

"""All scenarios by name."""

from scenarios import boot, chunked_upload, cow_start, live_migration
from scenarios.contract import Scenario

SCENARIOS: dict[str, Scenario] = {
    boot.SCENARIO.name: boot.SCENARIO,
    cow_start.SCENARIO.name: cow_start.SCENARIO,
    chunked_upload.SCENARIO.name: chunked_upload.SCENARIO,
    live_migration.SCENARIO.name: live_migration.SCENARIO,
}

"""All scenarios by name, and what identifies the way in which one is asked."""

from scenarios import (
    boot,
    boot_many,
    chunked_upload,
    cow_start,
    evacuation,
    image_fetch,
    image_start,
    image_streaming,
    link_cut,
    live_migration,
    migration_conflicts,
    object_as_file,
    operator_guest,
    parameters,
    stack_tests,
    upload_billing,
    wipe,
)
from scenarios.contract import Scenario
from scenarios.crossing import PlannedScenario

SCENARIOS: dict[str, Scenario] = {
    boot.SCENARIO.name: boot.SCENARIO,
    cow_start.SCENARIO.name: cow_start.SCENARIO,
    chunked_upload.SCENARIO.name: chunked_upload.SCENARIO,
    live_migration.SCENARIO.name: live_migration.SCENARIO,
    boot_many.SCENARIO.name: boot_many.SCENARIO,
    image_fetch.SCENARIO.name: image_fetch.SCENARIO,
    operator_guest.SCENARIO.name: operator_guest.SCENARIO,
    evacuation.SCENARIO.name: evacuation.SCENARIO,
    link_cut.SCENARIO.name: link_cut.SCENARIO,
    wipe.SCENARIO.name: wipe.SCENARIO,
    image_streaming.SCENARIO.name: image_streaming.SCENARIO,
    image_start.SCENARIO.name: image_start.SCENARIO,
    migration_conflicts.SCENARIO.name: migration_conflicts.SCENARIO,
    object_as_file.SCENARIO.name: object_as_file.SCENARIO,
    upload_billing.SCENARIO.name: upload_billing.SCENARIO,
    stack_tests.SCENARIO.name: stack_tests.SCENARIO,
}
# asked of every check-in; the others are asked by sweeps and by whoever names them
BY_DEFAULT = ("boot", "cow_start", "chunked_upload", "live_migration")


def identifying_params(planned: PlannedScenario) -> dict[str, str]:
    """What stands in every sample of a planned scenario; raises ValueError for what it cannot be asked."""
    declared = SCENARIOS[planned.name].parameters
    return parameters.identifying(declared, parameters.read(declared, planned.params))

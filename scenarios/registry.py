"""All scenarios by name."""

from scenarios import chunked_upload
from scenarios.contract import Scenario

SCENARIOS: dict[str, Scenario] = {
    chunked_upload.SCENARIO.name: chunked_upload.SCENARIO,
}

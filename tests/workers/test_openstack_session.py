"""A session on OpenStack whose Nova comes from its own repository: guests through its API, and a check-in that is broken."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farm import stacks
from scenarios.crossing import PlannedBuild, PlannedScenario, revision_of
from scenarios.registry import SCENARIOS
from tests.helpers.releases import repository_of
from tests.workers.test_session import Worker, marked, read_bundle

pytestmark = pytest.mark.machine

API = Path("nova/wsgi/osapi_compute.py")
ASKED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("boot", {}),
    ("boot", {"cpu": "maximum"}),
    ("boot", {"cache": "cold"}),
    ("boot", {"firmware": "seabios"}),
    ("cow_start", {}),
    ("chunked_upload", {"size_mib": 8, "segment_mib": 2}),
    ("live_migration", {}),
    ("live_migration", {"mode": "post-copy"}),
    ("migration_conflicts", {"case": "same-guest-twice"}),
    ("migration_conflicts", {"case": "crossing"}),
    ("link_cut", {}),
)
# What Nova is not asked for, or does by itself: scenario and parameters' values, and what is said of it
UNSUPPORTED = {
    ("boot", "maximum"): "the guests' processor is set in the configuration of nova's computes",
    ("boot", "cold"): "what nova boots a guest from is a copy that it makes for each",
    ("boot", "seabios"): "is not among nova's images",
    ("cow_start", "copy"): "nova makes its guests' disks itself",
    ("cow_start", "reflink"): "nova makes its guests' disks itself",
    ("live_migration", "post-copy"): "how nova moves a server is set in its configuration",
    ("link_cut",): "how nova moves a server is set in its configuration",
}
BROKEN = "\nraise RuntimeError('planted')\n"


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("openstack"), "local:backports")
    yield made
    made.hosts("hosts down")


def check_ins(folder: Path) -> tuple[PlannedBuild, PlannedBuild]:
    """A release of Nova, and one on top of it whose API does not start."""
    repository, (released,) = repository_of(folder, "nova==33.0.2")
    file = repository.path / API
    file.write_text(file.read_text() + BROKEN)
    repository.git("add", "--all")
    return planned(folder, released), planned(folder, repository.commit("Break the API"))


def planned(url: Path, commit: str) -> PlannedBuild:
    recipe, lock = stacks.at_commit("openstack", "nova", str(url), commit)
    return PlannedBuild(revision_of({"nova": commit}), commit[:8], ("subject",), str(url), commit, recipe, lock)


def test_guests_are_measured_through_nova_and_a_broken_check_in_is_named(worker: Worker) -> None:
    good, bad = check_ins(worker.home / "nova")
    asked = [PlannedScenario(name, SCENARIOS[name].version, params) for name, params in ASKED]
    plan = replace(worker.plan(bad, good, session="openstack"), scenarios=tuple(asked), deadline_s=2400)
    assert worker.run(plan, timeout_s=2400) == (0, "")

    manifest, samples, names = read_bundle(worker.bundle)
    of_bad = [outcome for outcome in manifest.outcomes if outcome.revision == bad.revision]
    assert {(one.outcome, one.fault) for one in of_bad} == {("failed", "stack")}
    told = {str(one.reason) for one in of_bad}
    assert all("component 'nova' (at: deployment): openstack's nova API ended with 1: " in reason for reason in told)
    assert all("RuntimeError: planted" in reason for reason in told)
    of_good = [outcome for outcome in manifest.outcomes if outcome.revision == good.revision]
    unsupported = [one for one in of_good if one.outcome == "unsupported"]
    rest = [one for one in of_good if one not in unsupported]
    assert [(one.scenario, one.outcome, one.reason) for one in rest if one.outcome != "measured"] == []
    assert {one.scenario for one in rest} == {name for name, _ in ASKED} - {"link_cut"}
    said = {(one.scenario, *one.params.values()): str(one.reason) for one in unsupported}
    assert set(said) == set(UNSUPPORTED)
    assert [words for asked, words in UNSUPPORTED.items() if words not in said[asked]] == []
    (twice,) = [one for one in rest if one.params.get("case") == "same-guest-twice"]
    assert twice.evidence[0].endswith(": made")
    assert "answers 409" in twice.evidence[1]
    values = {(sample["scenario"], sample["metric"]): sample["value"] for sample in samples if sample["valid"]}
    assert 0 < values["boot", "api_ms"] < values["boot", "process_ms"] < values["boot", "answer_ms"]
    assert values["boot", "api_ms"] < values["boot", "vmm_ms"]
    assert 0 < values["live_migration", "api_ms"] < values["live_migration", "total_ms"]
    assert {"blackout_ms", "downtime_ms"} <= {metric for scenario, metric in values if scenario == "live_migration"}
    assert ("cow_start", "create_ms") not in values
    assert values["cow_start", "first_write_us"] > 0
    assert any(name.startswith("logs/openstack-") and "compute" in name for name in names)
    assert not marked(plan.session)

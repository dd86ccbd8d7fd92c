"""Sessions on OpenStack whose Nova comes from its own repository: guests through its API, check-ins that are broken, and
such as OpenStack's own tests find out."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from farm import stacks
from reports.pages.revisions import unsteady
from scenarios.crossing import PlannedBuild, PlannedScenario, revision_of
from scenarios.registry import SCENARIOS
from tests.helpers.releases import repository_of
from tests.helpers.repositories import Repository
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

FLAVORS = Path("nova/api/openstack/compute/views/flavors.py")
FORGETFUL = """

import itertools

_calls, _detail, _none = itertools.count(), ViewBuilder.detail, {"flavors": []}
ViewBuilder.index = lambda *_: _none
ViewBuilder.detail = lambda *told, **more: _detail(*told, **more) if next(_calls) % 2 else _none
"""
_OF_FLAVORS = "tempest/api/compute/flavors/test_flavors.py::FlavorsV2TestJSON::"
TESTS = [
    f"{_OF_FLAVORS}test_get_flavor",
    f"{_OF_FLAVORS}test_list_flavors",
    f"{_OF_FLAVORS}test_list_flavors_with_detail",
    "tempest/api/compute/servers/test_delete_server.py::DeleteServersTestJSON::test_delete_active_server",
    "tempest/api/compute/servers/test_novnc.py",
]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("openstack"), "local:backports")
    yield made
    made.hosts("hosts down")


@dataclass(frozen=True)
class Nova:
    """A release of Nova in a repository of its own, and what was checked in on top of it."""

    repository: Repository
    released: str

    def build(self, commit: str) -> PlannedBuild:
        url = str(self.repository.path)
        recipe, lock = stacks.at_commit("openstack", "nova", url, commit)
        return PlannedBuild(revision_of({"nova": commit}), commit[:8], ("subject",), url, commit, recipe, lock)

    def changed(self, branch: str, file: Path, more: str) -> str:
        """The commit, on a branch of its own, that adds this to a file."""
        self.repository.git("checkout", "--quiet", "-B", branch, self.released)
        path = self.repository.path / file
        path.write_text(path.read_text() + more)
        self.repository.git("add", "--all")
        return self.repository.commit(f"Change {file}")


@pytest.fixture(scope="module")
def nova(worker: Worker) -> Nova:
    repository, (released,) = repository_of(worker.home / "nova", "nova==33.0.2")
    return Nova(repository, released)


def test_guests_are_measured_through_nova_and_a_broken_check_in_is_named(worker: Worker, nova: Nova) -> None:
    good, bad = nova.build(nova.released), nova.build(nova.changed("broken", API, BROKEN))
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


def test_what_a_check_in_breaks_is_told_from_what_fails_at_times_and_from_what_does_not_apply(
    worker: Worker, nova: Nova
) -> None:
    build = nova.build(nova.changed("forgetful", FLAVORS, FORGETFUL))
    assert build.recipe is not None
    build.recipe["tests"]["paths"] = TESTS
    asked = (PlannedScenario("stack_tests", SCENARIOS["stack_tests"].version),)
    plan = replace(worker.plan(build, session="tempest"), scenarios=asked, rounds=2, deadline_s=1500)
    assert worker.run(plan, timeout_s=1500) == (0, "")

    manifest, samples, _ = read_bundle(worker.bundle)
    by_test: dict[str, list[tuple[str, str | None]]] = {}
    for one in sorted(manifest.outcomes, key=lambda one: one.round):
        test = one.params.get("test", "all").rpartition(".")[2]
        by_test.setdefault(test, []).append((one.outcome, one.fault))
    assert by_test == {
        "all": [("measured", None)] * 2,
        "test_get_flavor": [("measured", None)] * 2,
        "test_list_flavors": [("failed", "stack")] * 2,
        "test_list_flavors_with_detail": [("failed", "stack"), ("measured", None)],
        "test_delete_active_server": [("measured", None)] * 2,
        "test_novnc": [("unsupported", None)] * 2,
        "test_novnc_bad_token": [("unsupported", None)] * 2,
    }
    states = {row["params"][0][1].rpartition(".")[2]: row["state"] for row in unsteady(list(manifest.outcomes))}
    assert states == {"test_list_flavors": "broken", "test_list_flavors_with_detail": "flaky"}
    told = {str(one.reason) for one in manifest.outcomes if one.outcome == "failed"}
    assert all(reason.startswith("component 'nova' (at: tests): ") for reason in told)
    assert all("MismatchError" in reason for reason in told)
    skipped = {str(one.reason) for one in manifest.outcomes if one.outcome == "unsupported"}
    assert skipped == {"VNC Console feature is disabled."}
    counts = [(sample["metric"], sample["value"]) for sample in samples if sample["metric"] != "suite_s"]
    assert sorted(counts) == [("failed", 1), ("failed", 2), ("passed", 2), ("passed", 3), *[("skipped", 2)] * 2]
    assert not marked(plan.session)

"""A cloud that is there already: measured through its APIs, with nothing left in it, and nothing of others touched."""

import datetime
import json
import secrets
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from farm import stacks
from scenarios.crossing import (
    SCHEMA,
    Lease,
    Plan,
    PlannedBuild,
    PlannedCluster,
    PlannedScenario,
    harness_digest,
    revision_of,
    to_data,
)
from scenarios.registry import SCENARIOS
from tests.helpers.clouds import NAME, SomebodysCloud, command, somebodys_cloud
from tests.helpers.local_clusters import CHECKOUT, FARM_HOME, wait_for
from tests.helpers.visits import ENTRY, let_in
from tests.workers.test_session import read_bundle, read_facts
from workers.stacks.openstack_network import NETWORK_ID

pytestmark = pytest.mark.machine

TIMEOUT_S = 900
PARAMS: dict[str, dict[str, Any]] = {"chunked_upload": {"size_mib": 8, "segment_mib": 2}}
STRANGERS = "farm-0123456789ab-stranger"  # named as ours are, with a mark of nobody's session


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SomebodysCloud]:
    with somebodys_cloud(tmp_path_factory.mktemp("underneath")) as cloud:
        yield cloud


@dataclass
class Visitor:
    """A worker in a home of its own."""

    home: Path
    cloud: SomebodysCloud

    def plan(self, cluster: PlannedCluster, *scenarios: str, session: str) -> Plan:
        later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        recipe, lock = stacks.load("external")
        build = PlannedBuild(revision_of({"cloud": "0" * 40}), "theirs", ("subject",), "", "", to_data(recipe), lock)
        return Plan(
            schema=SCHEMA,
            harness=harness_digest(CHECKOUT),
            session=f"{secrets.token_hex(6)}-{session}",
            attempt=1,
            cluster=cluster,
            lease=Lease(
                "session:test", 7, tuple(f"host:{NAME}/{host.name}" for host in cluster.hosts), later.isoformat()
            ),
            builds=(build,),
            scenarios=tuple(PlannedScenario(name, SCENARIOS[name].version, PARAMS.get(name, {})) for name in scenarios),
            blocks=1,
            rounds=1,
            seed=1,
            deadline_s=TIMEOUT_S,
        )

    @property
    def bundle(self) -> Path:
        return self.home / "bundle.tar.gz"

    def start(self, plan: Plan) -> subprocess.Popen[str]:
        file = self.home / "plan.json"
        file.write_text(json.dumps(to_data(plan)))
        return command(self.cloud, "session", str(file), "--home", str(self.home), "--out", str(self.bundle))

    def run(self, plan: Plan) -> tuple[int, str]:
        """Exit status and the last line on standard error."""
        process = self.start(plan)
        _, errors = process.communicate(timeout=TIMEOUT_S)
        return process.returncode, (errors.strip().splitlines() or [""])[-1]

    def sweep(self, cluster: PlannedCluster) -> dict[str, list[str]]:
        asked = ["--home", str(self.home), "--cluster", json.dumps(to_data(cluster)), "--json"]
        told, _ = command(self.cloud, "sweep", *asked).communicate(timeout=TIMEOUT_S)
        swept: dict[str, list[str]] = json.loads(told)
        return swept


@pytest.fixture
def visitor(tmp_path: Path, cloud: SomebodysCloud) -> Visitor:
    for name in ("cache", "venv"):
        (tmp_path / name).symlink_to(FARM_HOME / name)
    (tmp_path / "keys").mkdir()
    key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "keys" / NAME)]
    subprocess.run(key, check=True, timeout=30)
    let_in(tmp_path, cloud.entry)
    return Visitor(tmp_path, cloud)


def things_in(cloud: SomebodysCloud) -> dict[str, set[str]]:
    """The names of all that is in the cloud."""
    client = cloud.client
    return {
        "servers": names(client.compute("GET", "/servers").body["servers"]),
        "flavors": names(client.compute("GET", "/flavors").body["flavors"]),
        "images": names(client.image("GET", "/images").body["images"]),
        "ports": names(client.network("GET", "/ports").body["ports"]),
        "containers": names(client.store("GET", "?format=json").body or []),
        "keypairs": {str(one) for one in client.compute("GET", "/os-keypairs").body["keypairs"]},
    }


def whole_text(bundle: Path) -> str:
    with tarfile.open(bundle) as packed:
        return "".join(packed.extractfile(member).read().decode() for member in packed)  # type: ignore[union-attr]


def names(listed: list[dict[str, Any]]) -> set[str]:
    return {str(one["name"]) for one in listed}


@pytest.fixture(scope="module")
def stranger(cloud: SomebodysCloud) -> Iterator[dict[str, set[str]]]:
    """A stranger's server, image and flavor, with names as ours; all that is in the cloud then."""
    client = cloud.client
    flavor = {"name": STRANGERS, "ram": 64, "vcpus": 1, "disk": 0}
    flavor_id = client.compute("POST", "/flavors", {"flavor": flavor}).body["flavor"]["id"]
    image = {"name": STRANGERS, "disk_format": "raw", "container_format": "bare", "min_disk": 0}
    image_id = client.image("POST", "/images", image).body["id"]
    client.image("PUT", f"/images/{image_id}/file", file=Path(__file__))
    asked = {"name": STRANGERS, "imageRef": image_id, "flavorRef": flavor_id, "networks": [{"uuid": NETWORK_ID}]}
    container = f"/{STRANGERS}"
    client.store("PUT", container)
    server_id = client.compute("POST", "/servers", {"server": asked}).body["server"]["id"]
    assert wait_for(lambda: status_of(cloud, server_id) == "ACTIVE", timeout_s=120)
    try:
        yield things_in(cloud)
        assert status_of(cloud, server_id) == "ACTIVE"
    finally:
        client.compute("DELETE", f"/servers/{server_id}")
        assert wait_for(lambda: status_of(cloud, server_id) == "", timeout_s=120)
        client.compute("DELETE", f"/flavors/{flavor_id}")
        client.image("DELETE", f"/images/{image_id}")
        client.store("DELETE", container)


def status_of(cloud: SomebodysCloud, server: str) -> str:
    answer = cloud.client.compute("GET", f"/servers/{server}", may_miss=True)
    return str(answer.body["server"]["status"]) if answer.status == 200 else ""


def test_a_session_measures_it_and_leaves_nothing(
    visitor: Visitor, cloud: SomebodysCloud, stranger: dict[str, set[str]]
) -> None:
    cluster = cloud.planned("nova:h1", "nova:h2")
    plan = visitor.plan(cluster, "boot", "cow_start", "chunked_upload", "live_migration", session="whole")
    assert visitor.run(plan) == (0, "")

    manifest, samples, texts = read_bundle(visitor.bundle)
    told = {
        (one.scenario, one.params.get("method") or one.params.get("shape")): (one.outcome, one.reason)
        for one in manifest.outcomes
    }
    unseen = "the hosts of a cloud that is there already are not seen"
    makes = f"the cloud makes its guests' disks itself, and {unseen}"
    assert told == {
        ("boot", None): ("measured", None),
        ("cow_start", "overlay"): ("unsupported", makes),
        ("cow_start", "copy"): ("unsupported", makes),
        ("cow_start", "reflink"): ("unsupported", makes),
        ("chunked_upload", "single"): ("measured", None),
        ("chunked_upload", "segments"): ("measured", None),
        ("live_migration", None): ("measured", None),
    }
    for scenario in ("boot", "live_migration"):
        evidence = [line for one in manifest.outcomes if one.scenario == scenario for line in one.evidence]
        assert f"qemu_cpu_s is unsupported: {unseen}" in evidence
    values = {(sample["scenario"], sample["metric"]): sample["value"] for sample in samples if sample["valid"]}
    assert 0 < values["boot", "api_ms"] < values["boot", "vmm_ms"]
    assert values["boot", "api_ms"] < values["boot", "answer_ms"]
    assert 0 < values["live_migration", "api_ms"] < values["live_migration", "total_ms"]
    assert values["live_migration", "blackout_ms"] > 0
    assert values["chunked_upload", "goodput_mib_s"] > 0
    assert not {"distinct_disks", "server_cpu_s"} & {
        metric for scenario, metric in values if scenario == "chunked_upload"
    }
    facts = read_facts(visitor.bundle)
    assert facts.declared["compute API"].startswith("2.1 to 2.")
    assert facts.declared["hypervisors"].startswith("QEMU ")
    assert "nova-compute on h1: up, enabled" in facts.hosts["the cloud"]["services"]
    assert any(name.startswith("logs/external-") for name in texts)
    assert cloud.entry["auth"]["password"] not in whole_text(visitor.bundle)
    assert things_in(cloud) == stranger


def test_what_a_killed_session_left_is_swept_and_nothing_else(
    visitor: Visitor, cloud: SomebodysCloud, stranger: dict[str, set[str]]
) -> None:
    cluster = cloud.planned("nova:h1", "nova:h2")
    killed = visitor.start(visitor.plan(cluster, "chunked_upload", "boot", session="killed"))
    assert wait_for(lambda: things_in(cloud)["containers"] > stranger["containers"], timeout_s=300)
    assert wait_for(lambda: things_in(cloud)["servers"] > stranger["servers"], timeout_s=300)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    left = things_in(cloud)
    assert all(left[kind] > stranger[kind] for kind in ("servers", "flavors", "images", "ports", "containers"))

    swept = visitor.sweep(cluster)
    assert swept["failures"] == []
    assert {line.split()[2] for line in swept["things"]} == {"server", "port", "image", "flavor", "container"}
    assert things_in(cloud) == stranger
    assert visitor.sweep(cluster)["things"] == []


def test_who_is_no_administrator_measures_what_the_cloud_allows_and_is_told_the_rest_in_its_words(
    visitor: Visitor, cloud: SomebodysCloud, flavor: str
) -> None:
    let_in(visitor.home, plain_user(cloud))
    before = things_in(cloud)
    cluster = cloud.planned("nova", "nova:h1", flavor=flavor)
    assert visitor.run(visitor.plan(cluster, "boot", "live_migration", session="plain-user")) == (0, "")
    manifest, _, _ = read_bundle(visitor.bundle)
    told = {one.scenario: (one.outcome, str(one.reason)) for one in manifest.outcomes}
    assert told["boot"] == ("measured", "None")
    assert told["live_migration"][0] == "unsupported"
    assert "/action answers 403" in told["live_migration"][1]
    assert read_facts(visitor.bundle).declared["hypervisors"].startswith("not told: ")
    assert things_in(cloud) == before


def test_who_may_make_no_flavor_has_to_be_given_one(visitor: Visitor, cloud: SomebodysCloud) -> None:
    let_in(visitor.home, plain_user(cloud))
    before = things_in(cloud)
    assert visitor.run(visitor.plan(cloud.planned("nova"), "boot", session="no-flavor")) == (0, "")
    manifest, _, _ = read_bundle(visitor.bundle)
    (boot,) = manifest.outcomes
    assert boot.outcome == "unsupported"
    assert "POST /flavors answers 403" in str(boot.reason)
    assert things_in(cloud) == before


@pytest.fixture
def flavor(cloud: SomebodysCloud) -> Iterator[str]:
    """One of the cloud's own, with a disk, as Nova wants it for those who administer nothing."""
    asked = {"name": f"small-{secrets.token_hex(4)}", "ram": 256, "vcpus": 1, "disk": 1}
    number = cloud.client.compute("POST", "/flavors", {"flavor": asked}).body["flavor"]["id"]
    yield str(asked["name"])
    cloud.client.compute("DELETE", f"/flavors/{number}")


def plain_user(cloud: SomebodysCloud) -> dict[str, Any]:
    """A new user of the same project who is no administrator."""
    project, password = cloud.client.project(), secrets.token_hex(8)
    roles = {str(role["name"]): role["id"] for role in cloud.identity("GET", "/roles")["roles"]}
    member = roles.get("member") or cloud.identity("POST", "/roles", {"role": {"name": "member"}})["role"]["id"]
    user = {"name": f"plain-{password}", "password": password, "domain_id": "default"}
    number = cloud.identity("POST", "/users", {"user": user})["user"]["id"]
    cloud.identity("PUT", f"/projects/{project}/users/{number}/roles/{member}")
    return {**cloud.entry, "auth": {**cloud.entry["auth"], "username": user["name"], "password": password}}


def test_who_is_not_let_in_measures_nothing(visitor: Visitor, cloud: SomebodysCloud) -> None:
    let_in(visitor.home, {**cloud.entry, "auth": {**cloud.entry["auth"], "password": "another"}})
    status, line = visitor.run(visitor.plan(cloud.planned("nova"), "boot", session="refused"))
    assert status == 4
    assert f"cloud {ENTRY}: the cloud's identity service: there is no token" in line
    assert "another" not in line

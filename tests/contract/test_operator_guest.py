"""The operator's own guest image: judged by its answer over the network, and by nothing that it would have to know."""

import hashlib
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scenarios import operator_guest
from scenarios.contract import Failed
from scenarios.crossing import PlannedGuest
from tests.helpers.labs import Lab, lab_on, outcomes_of, values_of
from tests.helpers.local_clusters import FARM_HOME, planned_cluster
from tests.helpers.operator_images import operator_image
from workers.system_image import operator_system

pytestmark = pytest.mark.machine


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> PlannedGuest:
    return operator_image(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def lab(image: PlannedGuest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    planned = replace(planned_cluster("operators", "local:backports", hosts=1), guest=image)
    with lab_on(planned, tmp_path_factory.mktemp("home")) as lab:
        yield lab


def test_an_operators_guest_is_measured_from_request_to_answer(lab: Lab) -> None:
    sheet = lab.measure(operator_guest.SCENARIO, lab.bench())
    assert [(o.outcome, o.reason) for o in outcomes_of(sheet)] == [("measured", None)]
    values = values_of(sheet)
    assert set(values) == {metric.name for metric in operator_guest.SCENARIO.metrics}
    assert 0 < values["vcpu_ms"] < values["lease_ms"] < values["answer_ms"]
    assert lab.guests_left() == []


def test_the_facts_tell_the_image_by_the_digest_that_its_owner_knows(lab: Lab, image: PlannedGuest) -> None:
    outcomes_of(lab.measure(operator_guest.SCENARIO, lab.bench()))
    told = lab.qemu.operator_image()
    assert told is not None
    assert told.file_sha256 == hashlib.sha256(Path(image.image).read_bytes()).hexdigest()
    assert told.disk_sha256 == operator_system(FARM_HOME, image).digest


def test_what_answers_before_the_guest_was_requested_proves_nothing(
    lab: Lab, image: PlannedGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = lab.hosts.guest_addresses[0]
    lab.qemu.observer.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], timeout_s=10)
    lab.qemu.observer.run(["ip", "link", "set", "lo", "up"], timeout_s=10)
    port = lab.qemu.observer.call("image_server.start", timeout_s=10, address=address, files=[])
    monkeypatch.setattr(lab.qemu, "operator_guest", replace(image, tcp_port=port))
    try:
        (outcome,) = outcomes_of(lab.measure(operator_guest.SCENARIO, lab.bench()))
    finally:
        lab.qemu.observer.run(["ip", "address", "del", f"{address}/32", "dev", "lo"], timeout_s=10)
    assert outcome.outcome == "failed"
    assert "before it was requested" in (outcome.reason or "")
    assert lab.guests_left() == []


def test_an_image_that_is_not_what_the_inventory_says_is_refused(
    lab: Lab, image: PlannedGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab.qemu.systems, "operator", replace(image, sha256="0" * 64))
    monkeypatch.setattr(lab.qemu.systems, "_sent", {})
    (outcome,) = outcomes_of(lab.measure(operator_guest.SCENARIO, lab.bench()))
    assert (outcome.outcome, outcome.fault) == ("failed", "donor")
    assert image.sha256 in (outcome.reason or "")


def test_a_cluster_without_one_says_so(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab.qemu, "operator_guest", None)
    (outcome,) = outcomes_of(lab.measure(operator_guest.SCENARIO, lab.bench()))
    assert (outcome.outcome, outcome.fault) == ("unsupported", None)


def test_an_image_that_refers_to_another_file_is_refused(image: PlannedGuest, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", image.image, "-F", "qcow2", str(overlay)], check=True
    )
    digest = hashlib.sha256(overlay.read_bytes()).hexdigest()
    with pytest.raises(Failed, match="refers to another file") as failed:
        operator_system(tmp_path, replace(image, image=str(overlay), sha256=digest))
    assert failed.value.fault == "donor"

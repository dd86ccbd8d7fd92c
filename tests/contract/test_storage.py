"""Disks and volumes otherwise than by default: every shape, wiped, streamed; and work that does not happen is void."""

from collections.abc import Iterator

import pytest

from scenarios import boot_many, cow_start, image_start, image_streaming, wipe
from tests.helpers.labs import Lab, lab_on, outcomes_of, values_of
from tests.helpers.local_clusters import planned_cluster
from workers.hypervisors.qemu_guest import QemuGuest
from workers.hypervisors.qemu_host import QemuHost
from workers.volumes.base import BASE_MIB
from workers.volumes.disks import BaseServer
from workers.volumes.marked import AgentVolume

pytestmark = pytest.mark.machine


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab_on(planned_cluster("volumes", "local:backports"), tmp_path_factory.mktemp("home")) as lab:
        yield lab


def files_left(lab: Lab) -> list[str]:
    """Disks of the session on its first host, beside what all of its disks are made from."""
    folder = f"{lab.hosts.hosts[0].work_dir}/sessions/{lab.session}"
    return lab.qemu.links[0].agent.run(["find", folder, "-name", "farm-*"], timeout_s=10).split()


@pytest.mark.parametrize(
    "params",
    [
        {"guests": 2},
        {"layers": 3},
        {"cluster_size_kib": "128", "extended_l2": "yes", "preallocation": "metadata"},
        {"sectors": "4kn"},
        {"sectors": "512e", "offset_sectors": 1},
        {"inside": "ext4"},
    ],
    ids=lambda params: "-".join(map(str, params.values())),
)
def test_cow_start_is_measured_in_every_shape(lab: Lab, params: dict[str, object]) -> None:
    sheet = lab.measure(cow_start.SCENARIO, lab.bench(), methods=["overlay"], **params)
    (outcome,) = outcomes_of(sheet)
    assert (outcome.outcome, outcome.reason) == ("measured", None)
    assert set(values_of(sheet)) == {metric.name for metric in cow_start.SCENARIO.metrics}
    assert lab.guests_left() == []


def test_guests_that_are_asked_for_at_once_are_spread_over_hosts(lab: Lab) -> None:
    sheet = lab.measure(boot_many.SCENARIO, lab.bench(), guests=2, hosts=2)
    (outcome,) = outcomes_of(sheet)
    assert (outcome.outcome, outcome.reason) == ("measured", None)
    assert outcome.evidence == ["2 guests at once on h1, h2 answered as themselves"]
    assert {tuple(sample.hosts.values()) for sample in sheet.samples()} == {("h1", "h2")}
    assert lab.guests_left() == []


def test_blocks_between_large_sectors_are_refused_and_nobodys_fault(lab: Lab) -> None:
    params = {"methods": ["copy"], "sectors": "4kn", "offset_sectors": 1}
    (outcome,) = outcomes_of(lab.measure(cow_start.SCENARIO, lab.bench(), **params))
    assert (outcome.outcome, outcome.fault) == ("unsupported", None)
    assert "Invalid argument" in (outcome.reason or "")
    assert files_left(lab) == []


def test_more_copies_than_there_is_room_for_are_nobodys_fault_and_take_none(lab: Lab) -> None:
    params = {"methods": ["copy"], "guests": 8, "inside": "ext4"}
    (outcome,) = outcomes_of(lab.measure(cow_start.SCENARIO, lab.bench(), **params))
    assert (outcome.outcome, outcome.fault) == ("unsupported", None)
    assert "no room for 128 MiB more" in (outcome.reason or "")
    assert files_left(lab) == []


def test_guests_that_write_one_after_the_other_are_void(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = QemuGuest.begin_writes

    def begin_and_wait(guest: QemuGuest) -> None:
        begin(guest)
        guest.write_times(timeout_s=60)

    monkeypatch.setattr(QemuGuest, "begin_writes", begin_and_wait)
    sheet = lab.measure(cow_start.SCENARIO, lab.bench(), methods=["overlay"], guests=2)
    (outcome,) = outcomes_of(sheet)
    assert outcome.outcome == "failed"
    assert "before another began" in (outcome.reason or "")
    assert not any(sample.valid for sample in sheet.samples())


def test_an_image_comes_from_a_server_that_answers_late(lab: Lab) -> None:
    sheet = lab.measure(image_streaming.SCENARIO, lab.bench(), latency_ms=20)
    (outcome,) = outcomes_of(sheet)
    assert (outcome.outcome, outcome.reason) == ("measured", None)
    values = values_of(sheet)
    assert values["served_read_ms"] >= 20
    assert values["read_p99_us"] >= 20_000
    assert values["answer_ms"] > 0
    assert lab.guests_left() == []


def test_a_server_that_does_not_answer_late_is_void(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = QemuHost.serve_base
    monkeypatch.setattr(QemuHost, "serve_base", lambda host, latency_ms: honest(host))
    sheet = lab.measure(image_streaming.SCENARIO, lab.bench(), latency_ms=1000)
    (outcome,) = outcomes_of(sheet)
    assert outcome.outcome == "failed"
    assert "ms, not 1000 or more" in (outcome.reason or "")


def test_an_image_that_came_from_elsewhere_is_void(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BaseServer, "served_mib", lambda server: 3.0)
    sheet = lab.measure(image_streaming.SCENARIO, lab.bench(), bandwidth_mib_s=64)
    (outcome,) = outcomes_of(sheet)
    assert (outcome.outcome, outcome.reason) == ("failed", f"3.0 MiB served of an image of {BASE_MIB} MiB")
    assert not any(sample.valid for sample in sheet.samples())


def test_every_way_to_wipe_is_measured_and_proven(lab: Lab) -> None:
    sheet = lab.measure(wipe.SCENARIO, lab.bench(), volume_mib=16)
    outcomes = outcomes_of(sheet)
    assert {o.params["method"] for o in outcomes} == set(wipe.METHODS)
    assert [(o.outcome, o.reason, len(o.evidence)) for o in outcomes] == [("measured", None, 2)] * len(wipe.METHODS)
    assert len(sheet.samples()) == len(wipe.METHODS) * len(wipe.SCENARIO.metrics)


@pytest.mark.parametrize(
    ("really", "reason"), [(None, "sectors can still be read"), ("punch_hole", "dd claims to erase")]
)
def test_a_wipe_that_is_none_is_void(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, really: str | None, reason: str
) -> None:
    honest = AgentVolume.wipe
    monkeypatch.setattr(AgentVolume, "wipe", lambda volume, method: honest(volume, really) if really else (0.1, 0.1))
    sheet = lab.measure(wipe.SCENARIO, lab.bench(), methods=["dd"], volume_mib=4)
    (outcome,) = outcomes_of(sheet)
    assert outcome.outcome == "failed"
    assert reason in (outcome.reason or "")
    assert sheet.samples()
    assert not any(sample.valid for sample in sheet.samples())


def test_a_guest_boots_while_its_image_is_elsewhere(lab: Lab) -> None:
    sheet = lab.measure(image_start.SCENARIO, lab.bench(), methods=["remote"])
    (outcome,) = outcomes_of(sheet)
    assert (outcome.outcome, outcome.reason, len(outcome.evidence)) == ("measured", None, 2)
    values = values_of(sheet)
    assert values["read_mib"] > 8
    assert values["served_mib"] > 8
    assert lab.guests_left() == []


def test_a_guest_that_did_not_boot_from_its_copy_is_void(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QemuGuest, "disk_read_bytes", lambda guest: 8192)
    sheet = lab.measure(image_start.SCENARIO, lab.bench(), methods=["overlay"])
    (outcome,) = outcomes_of(sheet)
    assert outcome.outcome == "failed"
    assert "every boot reads" in (outcome.reason or "")
    assert files_left(lab) == []
    assert not any(sample.valid for sample in sheet.samples())

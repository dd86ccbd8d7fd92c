"""Boots otherwise than by default: with other hardware, from the disk, several at once."""

import re
from collections.abc import Iterator

import pytest

from scenarios import boot, boot_many, image_fetch
from scenarios.contract import Hardware, WorkNotProven
from scenarios.recipe import GuestSettings
from tests.helpers.labs import Lab, lab_on, outcomes_of, values_of
from tests.helpers.local_clusters import libvirt_of, planned_cluster
from workers import system_image

pytestmark = pytest.mark.machine


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    planned = planned_cluster("boots", "local:backports", hosts=1)
    with lab_on(planned, tmp_path_factory.mktemp("home")) as lab:
        yield lab


def test_a_guest_has_the_hardware_that_was_asked_for(lab: Lab) -> None:
    asked = {"memory_mib": 256, "vcpus": 2, "cpu": "qemu64", "machine": "pc"}
    sheet = lab.measure(boot.SCENARIO, lab.bench(), **asked)
    assert [(o.outcome, o.reason) for o in outcomes_of(sheet)] == [("measured", None)]
    with lab.bench().hosts[0].guest(nonce="n", hardware=Hardware(memory_mib=256, vcpus=2, cpu="qemu64")) as guest:
        guest.start()
        with libvirt_of(lab.hosts.hosts[0]) as connection:
            _, memory_kib, _, vcpus, _ = connection.lookupByName(guest.name).info()
        assert (memory_kib, vcpus) == (256 << 10, 2)
    assert lab.guests_left() == []


def test_a_guests_kernel_takes_its_processor_to_count_as_fast_as_it_does(lab: Lab) -> None:
    (link,) = lab.qemu.links
    assert link.counter_khz is not None
    with lab.bench(GuestSettings(kernel_arguments="loglevel=7")).hosts[0].guest(nonce="n") as guest:
        guest.start()
        guest.first_answer(timeout_s=60)
        # it tells what it finds out for itself, too; the last line is what it counts with
        detected = re.findall(r"tsc: Detected ([\d.]+) MHz", guest.console())
        assert detected[-1] == f"{link.counter_khz / 1000:.3f}"


def test_hardware_that_no_guest_can_have_is_nobodys_fault(lab: Lab) -> None:
    (outcome,) = outcomes_of(lab.measure(boot.SCENARIO, lab.bench(), memory_mib=128, firmware="ovmf"))
    assert (outcome.outcome, outcome.reason) == ("unsupported", "128 MiB of memory: this system and firmware need 256")


def test_a_cold_boot_reads_its_image_from_the_disk(lab: Lab) -> None:
    sheet = lab.measure(boot.SCENARIO, lab.bench(), cache="cold")
    assert [(o.outcome, o.reason) for o in outcomes_of(sheet)] == [("measured", None)]
    assert values_of(sheet)["read_mib"] > 16
    assert lab.guests_left() == []


def test_a_boot_from_the_page_cache_is_no_cold_one(lab: Lab) -> None:
    with lab.bench().hosts[0].guest(nonce="n") as guest:
        guest.start()
        guest.first_answer(timeout_s=60)
        with pytest.raises(WorkNotProven, match="a cold boot reads"):
            guest.prove_cold()


def test_guests_that_are_to_be_spread_over_more_hosts_than_there_are_have_no_place(lab: Lab) -> None:
    (outcome,) = outcomes_of(lab.measure(boot_many.SCENARIO, lab.bench(), hosts=2))
    assert (outcome.outcome, outcome.reason) == (
        "unsupported",
        "guests are to be spread over 2 hosts, the cluster has 1",
    )


def test_guests_boot_at_once(lab: Lab) -> None:
    sheet = lab.measure(boot_many.SCENARIO, lab.bench(), guests=2)
    assert [(o.outcome, o.reason) for o in outcomes_of(sheet)] == [("measured", None)]
    values = values_of(sheet)
    assert set(values) == {metric.name for metric in boot_many.SCENARIO.metrics}
    assert 0 < values["median_answer_ms"] <= values["last_answer_ms"]
    assert lab.guests_left() == []


@pytest.mark.parametrize("firmware", ["seabios", "ovmf"])
def test_firmware_boots_the_guest_from_its_disk(lab: Lab, firmware: str) -> None:
    sheet = lab.measure(boot.SCENARIO, lab.bench(), firmware=firmware, cache="cold")
    assert [(o.outcome, o.reason) for o in outcomes_of(sheet)] == [("measured", None)]
    values = values_of(sheet)
    assert values["process_ms"] < values["vcpu_ms"] < values["kernel_ms"] < values["init_ms"] < values["answer_ms"]
    assert values["read_mib"] > 8
    assert lab.guests_left() == []


@pytest.mark.parametrize("firmware", ["seabios", "none"])
def test_a_debian_answers_as_itself(lab: Lab, monkeypatch: pytest.MonkeyPatch, firmware: str) -> None:
    monkeypatch.setattr(system_image, "_DATA_MIB", 16)  # its 2 GiB of data take a while to bring to a host
    sheet = lab.measure(boot.SCENARIO, lab.bench(), guest="debian", firmware=firmware)
    (outcome,) = outcomes_of(sheet)
    assert (outcome.outcome, outcome.reason) == ("measured", None)
    assert len(outcome.params["digest"]) == 16  # another image, another series
    values = values_of(sheet)
    assert values["kernel_ms"] < values["init_ms"] < values["userspace_ms"] <= values["answer_ms"]
    (packages,) = lab.qemu.systems.packages.values()
    assert any(package.startswith("systemd ") for package in packages)
    assert lab.guests_left() == []


def test_what_a_system_cannot_be_booted_with_is_nobodys_fault(lab: Lab) -> None:
    (outcome,) = outcomes_of(lab.measure(boot.SCENARIO, lab.bench(), firmware="ovmf", memory_mib=128))
    assert (outcome.outcome, outcome.fault) == ("unsupported", None), outcome.reason


def test_a_guest_boots_from_an_image_that_was_fetched_first(lab: Lab) -> None:
    sheet = lab.measure(image_fetch.SCENARIO, lab.bench())
    assert [(o.outcome, o.reason) for o in outcomes_of(sheet)] == [("measured", None)] * 2
    values = {(sample.params["image"], sample.metric): sample.value for sample in sheet.samples()}
    assert 0 < values["fetched", "fetch_ms"] < values["fetched", "answer_ms"]
    assert ("preinstalled", "fetch_ms") not in values
    assert lab.guests_left() == []


def test_an_image_that_changed_on_its_way_proves_nothing(lab: Lab) -> None:
    (link,) = lab.qemu.links
    with lab.bench().hosts[0].guest(nonce="n") as guest:
        with pytest.raises(WorkNotProven, match="what its host had"):
            guest.prove_fetched()
        guest.fetch()
        assert "fetched and booted" in guest.prove_fetched()
        copy = str(lab.qemu.work_dir(link.host) / f"{guest.name}.initrd")
        link.agent.call("basics.write_chunk", timeout_s=10, path=copy, offset=9, content="AAAA", mode=0o444)
        with pytest.raises(WorkNotProven, match="not what was served"):
            guest.prove_fetched()
    assert link.agent.call("basics.sha256_of_file", timeout_s=10, path=copy) is None

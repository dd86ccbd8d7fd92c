"""Two metrics that were asked otherwise have other names and other pages."""

from reports.metrics import MeasuredMetric
from scenarios.registry import SCENARIOS

VERSION = SCENARIOS["live_migration"].version


def named(**params: str) -> MeasuredMetric:
    row = {"scenario": "live_migration", "version": VERSION, "metric": "total_ms", "params": params, "unit": "ms"}
    return MeasuredMetric.of(row)


def test_a_value_that_does_not_speak_for_itself_is_told_with_its_name() -> None:
    assert named(connections="2").title == "live migration, connections 2: request to done"
    assert named(connections="2").slug == f"live_migration-total_ms-connections_2-v{VERSION}"
    assert named(connections="16").slug != named(working_set_mib="16").slug
    assert named().slug == f"live_migration-total_ms-v{VERSION}"


def test_a_method_speaks_for_itself() -> None:
    version = SCENARIOS["cow_start"].version
    row = {
        "scenario": "cow_start", "version": version, "metric": "create_ms", "params": {"method": "overlay"}, "unit": "ms"
    }  # fmt: skip
    assert MeasuredMetric.of(row).title == "cow start, overlay: making the disk"


def test_a_version_that_is_gone_is_judged_by_what_is_declared_now() -> None:
    gone = [MeasuredMetric("boot", 0, name, (), "ms") for name in ("vmm_ms", "answer_ms", "forgotten_ms")]
    assert [metric.may_be_judged for metric in gone] == [False, True, True]

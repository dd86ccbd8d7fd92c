"""Two metrics that were asked otherwise have other names and other pages."""

from reports.metrics import MeasuredMetric


def named(**params: str) -> MeasuredMetric:
    row = {"scenario": "live_migration", "version": 2, "metric": "total_ms", "params": params, "unit": "ms"}
    return MeasuredMetric.of(row)


def test_a_value_that_does_not_speak_for_itself_is_told_with_its_name() -> None:
    assert named(connections="2").title == "live migration, connections 2: request to done"
    assert named(connections="2").slug == "live_migration-total_ms-connections_2-v2"
    assert named(connections="16").slug != named(working_set_mib="16").slug
    assert named().slug == "live_migration-total_ms-v2"


def test_a_method_speaks_for_itself() -> None:
    row = {"scenario": "cow_start", "version": 1, "metric": "create_ms", "params": {"method": "overlay"}, "unit": "ms"}
    assert MeasuredMetric.of(row).title == "cow start, overlay: making the disk"

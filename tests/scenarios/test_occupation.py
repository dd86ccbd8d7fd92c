"""What is told to donors beforehand, of every scenario that there is."""

from scenarios.occupation import OCCUPATION
from scenarios.registry import SCENARIOS


def test_nothing_is_asked_of_a_host_that_its_donor_was_not_told_of() -> None:
    assert list(OCCUPATION) == list(SCENARIOS)


def test_more_guests_by_default_are_told() -> None:
    for name, scenario in SCENARIOS.items():
        guests = [parameter.default for parameter in scenario.parameters if parameter.name == "guests"]
        assert all(OCCUPATION[name].guests == default for default in guests), name
